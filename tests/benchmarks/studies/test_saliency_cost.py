import time

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from benchmarks.studies.saliency_cost import logits_alone, measured_cost


def burn(seconds: float):
    def step() -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    return step


def test_cost_is_a_share_of_cpu_time():
    assert measured_cost([burn(0.002), burn(0.003)], 3) == pytest.approx(0.5, abs=0.1)
    assert measured_cost([burn(0.003), burn(0.002)], 3) < 0


def test_logits_alone_drop_the_other_outputs():
    image = ops.parameter([1, 3, 4, 4], np.float32)
    pooled = ops.reduce_mean(image, np.array([2, 3]), keep_dims=False)
    extra = ops.multiply(image, ops.constant(np.float32(2)))
    extra.output(0).set_names({"saliency_map"})
    pooled.output(0).set_names({"logits"})
    network = ov.Model([pooled.output(0), extra.output(0)], [image], "n")
    alone = logits_alone(network)
    assert [output.get_any_name() for output in alone.outputs] == ["logits"]
    assert "Multiply" not in {op.get_type_name() for op in alone.get_ops()}
    assert len(network.outputs) == 2
