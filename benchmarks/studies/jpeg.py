"""Compares JPEG decoders with Pillow's, which reads the pictures: are their pixels equal, and how fast are they?

    python -m benchmarks.studies.jpeg

simplejpeg and imagecodecs, which this project does not need, are compared too if they are installed.
"""

import importlib.util
import io
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.studies.pipeline import textures
from edge_runtime.command import run_command

SIDES = ((1280, 720), (256, 256))
"""Width and height of the pictures. The large ones come first: small ones differ until the allocator is warm."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "4:2:0": ("RGB", {"quality": 95, "subsampling": "4:2:0"}),
    "4:2:0, quality 75": ("RGB", {"quality": 75, "subsampling": "4:2:0"}),
    "4:2:2": ("RGB", {"quality": 95, "subsampling": "4:2:2"}),
    "4:4:4": ("RGB", {"quality": 95, "subsampling": "4:4:4"}),
    "progressive": ("RGB", {"quality": 95, "progressive": True}),
    "grey": ("L", {"quality": 95}),
    "CMYK": ("CMYK", {"quality": 95}),
}
"""Pillow's mode and how it saves each kind."""

Decode = Callable[[bytes], Any]


def with_pillow(jpeg: bytes) -> Image.Image:
    """Return a JPEG decoded as `edge_runtime.pixels.pictures` does it."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
        picture.load()
        return picture if picture.mode == "RGB" else picture.convert("RGB")


def decoders() -> Iterator[tuple[str, Decode]]:
    """Yield each other decoder that is installed, by name; they return RGB as uint8 [H, W, 3], or raise."""

    def opencv(module: Any) -> Decode:
        return lambda jpeg: module.imdecode(np.frombuffer(jpeg, np.uint8), module.IMREAD_COLOR_RGB)

    def torchvision(module: Any) -> Decode:
        torch = importlib.import_module("torch")

        def decode(jpeg: bytes) -> Any:
            data = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
            return module.decode_jpeg(data, module.ImageReadMode.RGB).permute(1, 2, 0).numpy()

        return decode

    makers: dict[str, tuple[str, Callable[[Any], Decode]]] = {
        "OpenCV": ("cv2", opencv),
        "torchvision": ("torchvision.io", torchvision),
        "simplejpeg": ("simplejpeg", lambda module: lambda jpeg: module.decode_jpeg(jpeg, "RGB")),
        "imagecodecs": ("imagecodecs", lambda module: lambda jpeg: module.jpeg8_decode(jpeg, outcolorspace="RGB")),
    }
    for name, (module, make) in makers.items():
        if importlib.util.find_spec(module.split(".")[0]):
            yield name, make(importlib.import_module(module))


def difference(decode: Decode, jpeg: bytes) -> int | None:
    """Return the largest difference of a pixel from Pillow's, in grey levels; None if it can't decode `jpeg`."""
    expected: NDArray[np.int16] = np.asarray(with_pillow(jpeg), np.int16)
    # The decoders raise errors of many kinds.
    try:
        return int(np.abs(np.asarray(decode(jpeg), np.int16) - expected).max())
    except Exception:
        return None


def cpu_ms(work: Callable[[], object], seconds: float) -> float:
    """Return the CPU milliseconds of one call, in the mean over `seconds`."""
    calls, began = 0, time.process_time()
    while (used := time.process_time() - began) < seconds:
        work()
        calls += 1
    return 1e3 * used / calls


def jpeg(
    rounds: Annotated[int, typer.Option(min=1, help="Number of interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.001, help="Seconds per measurement.")] = 0.1,
) -> int:
    """Compare JPEG decoders with Pillow: pixels, and how many times as fast, as an array and as a Pillow picture."""
    found = list(decoders())
    for width, height in SIDES:
        picture = textures(1, width)[0].crop((0, 0, width, height))
        for kind, (mode, options) in KINDS.items():
            saved = io.BytesIO()
            picture.convert(mode).save(saved, "JPEG", **options)
            data = saved.getvalue()
            gaps = {name: difference(decode, data) for name, decode in found}
            works: dict[str, Callable[[], object]] = {"Pillow": lambda data=data: with_pillow(data)}  # type: ignore[misc]
            for name, decode in found:
                if gaps[name] is not None:
                    works[name] = lambda decode=decode, data=data: decode(data)  # type: ignore[misc]
                    works[f"{name} picture"] = lambda decode=decode, data=data: Image.fromarray(decode(data))  # type: ignore[misc]
            times = [{name: cpu_ms(work, seconds) for name, work in works.items()} for _ in range(rounds)]
            pillow_ms = statistics.median(measured["Pillow"] for measured in times)
            print(f"{width}×{height} {kind}: Pillow {pillow_ms:.2f} ms", flush=True)
            for name, gap in gaps.items():
                if gap is None:
                    print(f"  {name}: can't decode it")
                    continue
                array, as_picture = (
                    statistics.median(measured["Pillow"] / measured[work] for measured in times)
                    for work in (name, f"{name} picture")
                )
                pixels = f"off by {gap}" if gap else "equal"
                print(f"  {name}: pixels {pixels}, {array:.2f} times as fast, {as_picture:.2f} as a picture")
    return 0


if __name__ == "__main__":
    run_command(jpeg, "python -m benchmarks.studies.jpeg")
