"""From a picture and a box to the model's pixels: the same code for training, calibration, evaluation and the board.

Pillow resizes, on the host: other filters differ by tens of grey levels, which changes a detector that relies on high
frequencies.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.model.contract import Fit, Framing, ModelContract, PixelRecipe
from edge_runtime.pixels.boxes import Box

COPY_QUALITY = 95
"""Of the copy that is compressed as JPEG."""


def face_pixels(picture: Image.Image, box: Sequence[float] | None, contract: ModelContract) -> NDArray[np.uint8]:
    """Return the model's pixels for one face: uint8 [K, H, W, 3], RGB, K crops of input_size × input_size.

    Args:
        picture: RGB or RGBX.
        box: the face as the face detector found it, or None for the whole picture.
        contract: sets margin, resizing, filter and crops.
    """
    return square_pixels(picture, face_region(picture.size, box, contract), contract.input_size, contract.pixels)


def face_region(size: tuple[int, int], box: Sequence[float] | None, contract: ModelContract) -> Box:
    """Return the region the model is shown for a face at `box` in a picture of `size` (width, height)."""
    width, height = size
    if box is None:
        whole = (0.0, 0.0, float(width), float(height))
        return whole if contract.pixels.fit is Fit.STRETCH else square_within(size, whole, 0.0)
    margin = contract.margin if contract.framing is Framing.DETECTED else 0.0
    return square_within(size, box, margin)


def square_within(size: tuple[int, int], box: Sequence[float], margin: float) -> Box:
    """Return the square around `box` with `margin` (a share of its longer side), in whole pixels, inside the picture.

    A square that reaches beyond the picture is shifted, then shrunk, never padded. For the whole picture without margin
    this is the centre square.
    """
    width, height = size
    left, top, right, bottom = box
    side = max(1, min(round(max(right - left, bottom - top) * (1.0 + margin)), width, height))
    x = min(max(round((left + right - side) / 2), 0), width - side)
    y = min(max(round((top + bottom - side) / 2), 0), height - side)
    return (float(x), float(y), float(x + side), float(y + side))


def square_pixels(picture: Image.Image, region: Box, input_size: int, recipe: PixelRecipe) -> NDArray[np.uint8]:
    """Cut `region` out of `picture` and turn it into crops, uint8 [K, input_size, input_size, 3].

    A region smaller than the input is enlarged, even if the recipe keeps the native resolution.
    """
    sides = (int(region[2] - region[0]), int(region[3] - region[1]))
    width, height = (max(side if recipe.resize_to is None else recipe.resize_to, input_size) for side in sides)
    offsets = crop_offsets((width, height), input_size, recipe.crops)
    left, top = int(region[0]), int(region[1])
    if (width, height) != sides:
        picture = picture.resize((width, height), Image.Resampling[recipe.filter.upper()], box=region)
        left = top = 0
    corners = [(left + x, top + y) for x, y in offsets]
    crops = [picture.crop((x, y, x + input_size, y + input_size)) for x, y in corners]
    # A live picture may be RGBX.
    return np.stack([np.asarray(crop, np.uint8)[:, :, :3] for crop in crops])


def crop_offsets(size: tuple[int, int], input_size: int, crops: int) -> list[tuple[int, int]]:
    """Return left and top of each crop: the centre; with 5 crops, then the four corners."""
    right, bottom = size[0] - input_size, size[1] - input_size
    centre = (right // 2, bottom // 2)
    return [centre] if crops == 1 else [centre, (0, 0), (right, 0), (0, bottom), (right, bottom)]


def changed_copies(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return copies of the model's pixels, uint8 [K, H, W, 3]: as JPEG, shifted by a pixel, and by a sixteenth.

    Nobody sees these changes, but attacks on single pixels rarely survive them.
    """
    copies = [np.stack([_compressed(crop) for crop in pixels])]
    for shift in (1, pixels.shape[1] // 16):
        moved = pixels[:, shift:, shift:]
        copies.append(np.pad(moved, ((0, 0), (0, shift), (0, shift), (0, 0)), "symmetric"))
    return copies


def _compressed(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=COPY_QUALITY, subsampling=0)
    with Image.open(buffer) as saved:
        return np.asarray(saved.convert("RGB"))


def normalized(pixels: NDArray[np.uint8], contract: ModelContract) -> NDArray[np.float32]:
    """Return pixels uint8 [N, H, W, 3] as a network without preprocessing takes them: float32 [N, 3, H, W]."""
    mean, scale = np.array(contract.mean, np.float32), np.array(contract.scale, np.float32)
    images: NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255.0) - mean) / scale
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
