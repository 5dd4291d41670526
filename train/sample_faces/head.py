"""A head: where its points are in the picture, and how its surfaces are lit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from train.sample_faces.canvas import OVERSAMPLING, Pixels, Shade, cloud, strands
from train.sample_faces.traits import Colour, Traits

Points = NDArray[np.float64]
"""x and y of each point, [N, 2]."""

TEXTURE_SIDE = 2.8
"""Side of the square texture of skin and hair, in halves of the head's height; it repeats."""


@dataclass(frozen=True)
class Placed:
    """A person in a picture: the head's centre and half its height, in pixels of the picture."""

    traits: Traits
    x: float
    y: float
    half_height: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the face as face detectors frame it."""
        across, top, bottom = 0.95 * self.traits.width, -0.62, 1.0
        unit = self.half_height
        return (self.x - across * unit, self.y + top * unit, self.x + across * unit, self.y + bottom * unit)


class Head:
    """One person's head on a canvas; `rng` draws its textures."""

    def __init__(self, person: Placed, rng: np.random.Generator) -> None:
        self.traits = person.traits
        self.unit = person.half_height * OVERSAMPLING
        self.centre = np.array([person.x, person.y]) * OVERSAMPLING
        side = int(TEXTURE_SIDE * self.unit)
        self.corner = np.round(self.centre - 0.5 * side).astype(int)
        self.grain = cloud(rng, side, side, coarsest=max(2, int(self.unit / 12)), falloff=0.8)
        self.strands = strands(rng, side, side, max(2, int(self.unit / 14)))

    def flat(self, points: ArrayLike) -> Points:
        """Return points of the head's plane, in halves of its height, as pixels; only roll applies."""
        x, y = np.asarray(points, np.float64).T
        cosine, sine = np.cos(self.traits.roll), np.sin(self.traits.roll)
        return self.centre + self.unit * np.stack([cosine * x - sine * y, sine * x + cosine * y], 1)

    def surface(self, points: ArrayLike) -> Points:
        """Return points on the front of the head as pixels, turned by yaw, pitch and roll."""
        x, y = np.asarray(points, np.float64).T
        width = self.traits.width
        depth = width * np.sqrt(np.clip(1.0 - (x / width) ** 2 - (y / 1.3) ** 2, 0.0, 1.0))
        turned = x * np.cos(self.traits.yaw) + depth * np.sin(self.traits.yaw)
        nodded = y * np.cos(self.traits.pitch) + depth * np.sin(self.traits.pitch)
        return self.flat(np.stack([turned, nodded], 1))

    def outline(self, grown: float = 1.0, top: float = -1.0, count: int = 64) -> Points:
        """Return the head's outline in its own plane, `grown` times as large."""
        angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
        x, y = np.sin(angle), -np.cos(angle)
        narrowed = 1.0 - self.traits.jaw * np.clip(y, 0.0, 1.0) ** 1.5
        squarer = np.sign(x) * np.abs(x) ** 0.85
        return grown * np.stack([self.traits.width * squarer * narrowed, np.where(y < 0.0, -top, 1.0) * y], 1)

    def lit(self, colour: Colour, texture: float = 0.02, shine: float = 0.10) -> Shade:
        """Return the paint of a round surface of this colour in the person's light (Lambert, with some shine)."""
        base = np.asarray(colour, np.float32)
        left, top = (float(place) for place in self.centre)
        right, below, towards_us = self.traits.light

        def shade(x: Pixels, y: Pixels) -> Pixels:
            across = np.clip((x - left) / (self.unit * self.traits.width * 1.08), -0.98, 0.98)
            down = np.clip((y - top) / (self.unit * 1.12), -0.98, 0.98)
            towards = np.sqrt(np.clip(1.0 - across**2 - down**2, 0.03, 1.0))
            facing = np.clip(across * right + down * below + towards * towards_us, 0.0, 1.0)
            light = (
                self.traits.ambient + (1.12 - self.traits.ambient) * facing + texture * self.textured(self.grain, x, y)
            )
            glint = facing * facing * facing
            return base * light[..., None] + shine * (glint * glint * glint * glint)[..., None]

        return shade

    def hairy(self, colour: Colour, strength: float = 0.17) -> Shade:
        """Return the paint of hair."""
        base, round_paint = np.asarray(colour, np.float32), self.lit(colour, 0.03, 0.04)

        def shade(x: Pixels, y: Pixels) -> Pixels:
            return round_paint(x, y) + strength * (0.12 + base) * self.textured(self.strands, x, y)[..., None]

        return shade

    def textured(self, texture: Pixels, x: Pixels, y: Pixels) -> Pixels:
        """Return the repeating `texture` at these pixels, [h, w]."""
        rows = (y[:, 0].astype(int) - self.corner[1]) % texture.shape[0]
        columns = (x[0].astype(int) - self.corner[0]) % texture.shape[1]
        return texture[np.ix_(rows, columns)]

    def darker(self, share: float) -> Pixels:
        """Return the colour of skin in shade, with this share of the light."""
        return np.asarray(self.traits.skin, np.float32) * np.asarray((share, share * 0.9, share * 0.86), np.float32)
