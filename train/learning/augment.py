"""Augmentations of training faces, each with its own switch and drawn from the generator that is passed in."""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import PixelRecipe
from edge_runtime.pixels.boxes import Box
from train.data.degrade import KERNELS, blur, jpeg, noise, recapture, rescale

Random = np.random.Generator
Change = Callable[[Image.Image, Random], Image.Image]


def rotate(picture: Image.Image, random: Random) -> Image.Image:
    """Turn by up to 10 degrees."""
    angle = float(random.uniform(-10, 10))
    return functional.rotate(picture, angle, interpolation=functional.InterpolationMode.BICUBIC)


def change_colour(picture: Image.Image, random: Random) -> Image.Image:
    """Change brightness, contrast and saturation by up to 30 %."""
    brightness, contrast, saturation = (float(value) for value in random.uniform(0.7, 1.3, 3))
    picture = functional.adjust_contrast(functional.adjust_brightness(picture, brightness), contrast)
    return functional.adjust_saturation(picture, saturation)


def resample(picture: Image.Image, random: Random) -> Image.Image:
    """Shrink to 40 to 100 % and enlarge again, with two random filters."""
    down, up = (KERNELS[index] for index in random.integers(len(KERNELS), size=2))
    return rescale(picture, float(random.uniform(0.4, 1.0)), down, up)


def recompress(picture: Image.Image, random: Random) -> Image.Image:
    """Compress as JPEG of quality 30 to 95, once or twice."""
    for _ in range(int(random.integers(1, 3))):
        picture = jpeg(picture, int(random.integers(30, 96)))
    return picture


def cut_out(picture: Image.Image, random: Random) -> Image.Image:
    """Fill a rectangle, 10 to 35 % of each side, with one colour."""
    pixels = np.array(picture)
    height, width = (int(side * random.uniform(0.1, 0.35)) for side in pixels.shape[:2])
    top, left = int(random.integers(pixels.shape[0] - height)), int(random.integers(pixels.shape[1] - width))
    pixels[top : top + height, left : left + width] = random.integers(256, size=3, dtype=np.uint8)
    return Image.fromarray(pixels)


CHANGES: Mapping[str, Change] = {
    "flip": lambda picture, random: functional.horizontal_flip(picture),
    "rotate": rotate,
    "colour": change_colour,
    "grey": lambda picture, random: functional.rgb_to_grayscale(picture, num_output_channels=3),
    "resample": resample,
    "blur": lambda picture, random: blur(picture, float(random.uniform(0.2, 1.5))),
    "noise": lambda picture, random: noise(picture, float(random.uniform(1, 8)), random),
    "recapture": recapture,
    "jpeg": recompress,
    "cutout": cut_out,
}
"""By name, in the order in which they are applied. `crop` and `scale`, applied before them, choose the part shown."""

SWITCHES = ("crop", "scale", *CHANGES)

Chances = Mapping[str, float]
"""How often each augmentation is applied, by name, in [0, 1]; one that is missing is never applied."""

GENTLE: Chances = {"flip": 0.5, "crop": 1.0}
FULL: Chances = {
    "crop": 1.0,
    "scale": 0.1,
    "flip": 0.5,
    "rotate": 0.1,
    "colour": 0.2,
    "grey": 0.1,
    "resample": 0.3,
    "blur": 0.1,
    "noise": 0.1,
    "recapture": 0.05,
    "jpeg": 0.4,
    "cutout": 0.1,
}


def without(chances: Chances, names: str) -> Chances:
    """Return `chances` without those in `names`, separated by commas; `all` removes every one.

    Raises:
        UsageError: a name is unknown.
    """
    off = SWITCHES if names == "all" else tuple(name for name in names.split(",") if name)
    unknown = [name for name in off if name not in SWITCHES]
    if unknown:
        raise UsageError(f"--without {','.join(unknown)}: unknown; choose from {', '.join(SWITCHES)} or all")
    return {name: chance for name, chance in chances.items() if name not in off}


PLACING = ("crop", "scale", "flip")
"""Augmentations that show another part of a face and leave its traces as they are."""


def ramped(chances: Chances, share: float) -> Chances:
    """Return `chances` with those that damage a face's traces multiplied by `share`, in [0, 1]."""
    return {name: chance if name in PLACING else chance * share for name, chance in chances.items()}


def change_picture(picture: Image.Image, chances: Chances, random: Random) -> Image.Image:
    """Return the picture after a random choice of augmentations, RGB and of the same size."""
    for name, change in CHANGES.items():
        if random.random() < chances.get(name, 0.0):
            picture = change(picture, random)
    return picture


def choose_part(size: tuple[int, int], side: int, recipe: PixelRecipe, chances: Chances, random: Random) -> Box:
    """Return the square of a face of `size` (width, height) that a network of input `side` sees.

    With `crop` it lies anywhere, else in the centre. At native resolution it is `side` pixels wide, with `scale` 0.8 to
    1.25 times that. For a recipe that resizes it is the whole face, with `scale` 0.7 to 1 of it.
    """
    shorter = min(size)
    scaled = random.random() < chances.get("scale", 0.0)
    if recipe.resize_to is None:
        wanted = side * float(np.exp(random.uniform(np.log(0.8), np.log(1.25)))) if scaled else side
    else:
        share = side / max(recipe.resize_to, side)
        wanted = shorter * share * (float(random.uniform(0.7, 1.0)) if scaled else 1.0)
    edge = max(1, min(round(wanted), shorter))
    free = (size[0] - edge, size[1] - edge)
    if random.random() < chances.get("crop", 0.0):
        left, top = (int(random.integers(room + 1)) for room in free)
    else:
        left, top = (room // 2 for room in free)
    return (float(left), float(top), float(left + edge), float(top + edge))
