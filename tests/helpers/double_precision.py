"""`train-detector` in double precision and with the tiny network, run as a script.

In single precision the order of sums changes a gradient's last digits. Adam divides each gradient by its own size, so a
weight whose gradient is all rounding moves by the whole learning rate, one way or the other.
"""

import torch
from networks import tiny_registered
from torch.nn import functional

from train.cli import train_detector_main
from train.learning import session


def use_doubles() -> None:
    """Patch the network, its input and the loss of this process."""
    build, cross_entropy = session.build_backbone, functional.cross_entropy

    def built(*arguments, **options):
        network = build(*arguments, **options).double()
        network.register_forward_pre_hook(lambda network, inputs: (inputs[0].double(),))
        return network

    def weighted(output, labels, weights=None, **options):
        return cross_entropy(output, labels, weights if weights is None else weights.to(output.dtype), **options)

    session.build_backbone, functional.cross_entropy = built, weighted
    torch.Tensor.float = lambda tensor: tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


if __name__ == "__main__":
    use_doubles()
    with tiny_registered():
        train_detector_main()
