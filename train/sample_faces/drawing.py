"""Drawing faces and the rooms that they are in, from a seed, before any camera or generator has touched them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from train.sample_faces.canvas import Canvas, Pixels, Shade, arc, cloud, ellipse, strands
from train.sample_faces.traits import Colour, Traits, muted, sample_traits

OVERSAMPLING = 2
"""Pictures are drawn this many times larger and averaged down, so that no edge is jagged."""

Points = NDArray[np.float64]

TEXTURE_SIDE = 2.8
"""Of the square around a head that skin and hair are textured with, in halves of the head's height; it repeats."""

EYE_LINE, BROW_LINE, MOUTH_LINE = -0.06, -0.27, 0.56


@dataclass(frozen=True)
class Placed:
    """A person in a picture: the head's centre and half its height, in pixels of the picture."""

    traits: Traits
    x: float
    y: float
    half_height: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the face from the brows' hairline to the chin, as face detectors frame it."""
        across, top, bottom = 0.95 * self.traits.width, -0.62, 1.0
        unit = self.half_height
        return (self.x - across * unit, self.y + top * unit, self.x + across * unit, self.y + bottom * unit)


def draw_face(seed: int, size: int = 256) -> NDArray[np.uint8]:
    """Return the drawn face of `seed`, uint8 [size, size, 3], RGB, before any camera or generator."""
    rng = np.random.default_rng([seed, 1])
    traits = sample_traits(rng)
    half = size * rng.uniform(0.33, 0.39)
    place = Placed(traits, size * rng.uniform(0.46, 0.54), size * rng.uniform(0.48, 0.54), half)
    return draw_people((place,), size, size, rng)


def draw_scene(
    seed: int, width: int = 1280, height: int = 720, people: int = 3
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Return a drawn room with `people` side by side, uint8 [height, width, 3], and where they are, left to right."""
    rng = np.random.default_rng([seed, 2])
    placed = place_people(rng, width, height, people)
    return draw_people(placed, width, height, rng), placed


def place_people(rng: np.random.Generator, width: int, height: int, people: int) -> list[Placed]:
    """Return `people` drawn from `rng`, side by side in a picture of this size."""
    share = width / max(people, 1)
    half = min(0.42 * share / 0.9, 0.30 * height)
    return [
        Placed(
            sample_traits(rng),
            share * (index + rng.uniform(0.42, 0.58)),
            height * rng.uniform(0.40, 0.52),
            half * rng.uniform(0.75, 1.0),
        )
        for index in range(people)
    ]


def draw_moving(seed: int, width: int, height: int, *, frames: int, people: int = 2) -> Iterator[NDArray[np.uint8]]:
    """Yield `frames` pictures, uint8 [height, width, 3], of one room in which people sway and turn their heads."""
    rng = np.random.default_rng([seed, 2])
    room = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
    placed = place_people(rng, width, height, people)
    draw_room(room, rng)
    paces = rng.uniform(0.5, 1.0, people)
    for index in range(frames):
        canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
        canvas.pixels[:] = room.pixels
        for number, (person, pace) in enumerate(zip(placed, paces, strict=True)):
            angle = 2.0 * np.pi * pace * index / 30.0
            draw_person(canvas, _moved(person, float(angle)), np.random.default_rng([seed, 6, number]))
        yield finish(canvas)


def _moved(person: Placed, angle: float) -> Placed:
    sway = 0.35 * person.half_height * float(np.sin(angle))
    turned = person.traits.turned(yaw=0.2 * float(np.cos(angle)), roll=0.05 * float(np.sin(angle)))
    return replace(person, traits=turned, x=person.x + sway)


def draw_people(people: Sequence[Placed], width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a room drawn from `rng` with `people` in it, uint8 [height, width, 3]."""
    canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
    draw_room(canvas, rng)
    for person in people:
        draw_person(canvas, person, rng)
    return finish(canvas)


def finish(canvas: Canvas) -> NDArray[np.uint8]:
    """Return the canvas at the picture's own size, uint8."""
    height, width = (side // OVERSAMPLING for side in canvas.pixels.shape[:2])
    small = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.round(np.clip(small, 0.0, 1.0) * 255.0).astype(np.uint8)


def draw_room(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the canvas with a wall, some things out of focus and a texture."""
    height, width = canvas.pixels.shape[:2]
    top, bottom = np.asarray(muted(rng, 0.2, 0.85)), np.asarray(muted(rng, 0.2, 0.85))
    slope = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    canvas.pixels[:] = top + slope * (bottom - top)
    for _ in range(int(rng.integers(2, 9))):
        _draw_thing(canvas, rng)
    texture = cloud(rng, width, height, coarsest=min(width, height) // 4, falloff=rng.uniform(0.55, 0.8))
    canvas.pixels += rng.uniform(0.01, 0.06) * texture[..., None]


def _draw_thing(canvas: Canvas, rng: np.random.Generator) -> None:
    height, width = canvas.pixels.shape[:2]
    x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
    across, down = rng.uniform(0.03, 0.25, 2) * min(width, height)
    shape = ellipse(x, y, across, across) if rng.random() < 0.5 else _rectangle(x, y, across, 2.0 * down)
    soft = rng.uniform(0.002, 0.03) * min(width, height)
    canvas.fill(shape, muted(rng, 0.05, 0.95), opacity=rng.uniform(0.3, 0.9), soft=soft)


def _rectangle(x: float, y: float, across: float, down: float) -> Points:
    return np.array([(x - across, y - down), (x + across, y - down), (x + across, y + down), (x - across, y + down)])


def draw_person(canvas: Canvas, person: Placed, rng: np.random.Generator) -> None:
    """Draw head and shoulders, from behind to the front."""
    _Portrait(canvas, person, rng).draw()


class _Portrait:
    """One person on one canvas; `rng` draws only textures."""

    def __init__(self, canvas: Canvas, person: Placed, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.traits = person.traits
        self.unit = person.half_height * OVERSAMPLING
        self.centre = np.array([person.x, person.y]) * OVERSAMPLING
        side = int(TEXTURE_SIDE * self.unit)
        self.corner = np.round(self.centre - 0.5 * side).astype(int)
        self.grain = cloud(rng, side, side, coarsest=max(2, int(self.unit / 12)), falloff=0.8)
        self.strands = strands(rng, side, side, max(2, int(self.unit / 14)))

    def draw(self) -> None:
        """Draw everything, from behind to the front."""
        self._hair_behind()
        self._shoulders()
        self._ears()
        self._head()
        self._beard()
        self._nose()
        self._mouth()
        for side in (-1.0, 1.0):
            self._eye(side)
            self._brow(side)
        self._hair_in_front()
        if self.traits.glasses:
            self._glasses()

    # Places

    def flat(self, points: ArrayLike) -> Points:
        """Return points of the head's plane (units of half its height) as pixels: turned by roll alone."""
        x, y = np.asarray(points, np.float64).T
        cosine, sine = np.cos(self.traits.roll), np.sin(self.traits.roll)
        return self.centre + self.unit * np.stack([cosine * x - sine * y, sine * x + cosine * y], 1)

    def surface(self, points: ArrayLike) -> Points:
        """Return points that lie on the head's front as pixels: turned by yaw and pitch, then roll."""
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

    # Colours

    def lit(self, colour: Colour, texture: float = 0.02, shine: float = 0.10) -> Shade:
        """Return the paint of a round surface of this colour under the person's light (Lambert, with some shine)."""
        base = np.asarray(colour, np.float32)
        left, top = (float(place) for place in self.centre)
        right, below, towards_us = self.traits.light

        def shade(x: Pixels, y: Pixels) -> Pixels:
            across = np.clip((x - left) / (self.unit * self.traits.width * 1.08), -0.98, 0.98)
            down = np.clip((y - top) / (self.unit * 1.12), -0.98, 0.98)
            towards = np.sqrt(np.clip(1.0 - across**2 - down**2, 0.03, 1.0))
            facing = np.clip(across * right + down * below + towards * towards_us, 0.0, 1.0)
            light = self.traits.ambient + (1.12 - self.traits.ambient) * facing + texture * self._at(self.grain, x, y)
            glint = facing * facing * facing
            return base * light[..., None] + shine * (glint * glint * glint * glint)[..., None]

        return shade

    def hairy(self, colour: Colour, strength: float = 0.17) -> Shade:
        """Return the paint of hair."""
        base, round_paint = np.asarray(colour, np.float32), self.lit(colour, 0.03, 0.04)

        def shade(x: Pixels, y: Pixels) -> Pixels:
            return round_paint(x, y) + strength * (0.12 + base) * self._at(self.strands, x, y)[..., None]

        return shade

    def _at(self, texture: Pixels, x: Pixels, y: Pixels) -> Pixels:
        rows = (y[:, 0].astype(int) - self.corner[1]) % texture.shape[0]
        columns = (x[0].astype(int) - self.corner[0]) % texture.shape[1]
        return texture[np.ix_(rows, columns)]

    def _darker(self, share: float) -> Pixels:
        return np.asarray(self.traits.skin, np.float32) * np.asarray((share, share * 0.9, share * 0.86), np.float32)

    # Parts

    def _hair_behind(self) -> None:
        style, width = self.traits.style, self.traits.width
        if style == "long":
            x, y = self.outline(1.16).T
            lower = np.clip(y, 0.0, 1.0)
            fallen = np.stack([x * (1.0 + 0.15 * np.sqrt(lower)), y * (1.0 + 0.25 * lower)], 1)
            self.canvas.fill(self.flat(fallen), self.hairy(self.traits.hair), soft=0.008 * self.unit)
        elif style in ("short", "fringe"):
            cap = ellipse(0.0, -0.33, 1.06 * width, 0.76)
            self.canvas.fill(self.flat(cap), self.hairy(self.traits.hair), soft=0.008 * self.unit)

    def _shoulders(self) -> None:
        neck = np.array([(-0.36, 0.55), (0.36, 0.55), (0.42, 1.5), (-0.42, 1.5)])
        across = np.linspace(-1.7, 1.7, 41)
        collar = 1.16 + 0.16 * np.abs(across) + 0.9 * np.clip(np.abs(across) - 0.9, 0.0, 1.0) ** 2
        body = np.concatenate([np.stack([across, collar], 1), [(1.75, 4.0), (-1.75, 4.0)]])
        self.canvas.fill(self.centre + self.unit * neck, self.lit(tuple(self._darker(0.82)), 0.02, 0.0))
        self.canvas.fill(
            self.centre + self.unit * ellipse(0.0, 1.02, 0.42, 0.2),
            self._darker(0.45),
            opacity=0.55,
            soft=0.07 * self.unit,
        )
        self.canvas.fill(self.centre + self.unit * body, self._cloth, soft=0.012 * self.unit)

    def _cloth(self, x: Pixels, y: Pixels) -> Pixels:
        base = np.asarray(self.traits.shirt, np.float32)
        shadow = 0.85 + 0.1 * self.traits.light[0] * (x - float(self.centre[0])) / self.unit
        return base * (shadow + 0.05 * self._at(self.grain, x, y))[..., None]

    def _ears(self) -> None:
        if self.traits.style == "long":
            return
        for side in (-1.0, 1.0):
            x = side * self.traits.width * 1.0 - 0.10 * np.sin(self.traits.yaw)
            self.canvas.fill(self.flat(ellipse(x, 0.02, 0.11, 0.20)), self.lit(self.traits.skin), soft=0.01 * self.unit)
            self.canvas.fill(
                self.flat(ellipse(x, 0.02, 0.05, 0.11)), self._darker(0.6), opacity=0.5, soft=0.02 * self.unit
            )

    def _head(self) -> None:
        self.canvas.fill(self.flat(self.outline()), self.lit(self.traits.skin), soft=0.006 * self.unit)
        for side in (-1.0, 1.0):
            socket = ellipse(side * self.traits.eye_distance, EYE_LINE - 0.03, 0.20, 0.13)
            self._shadow(socket, 0.35, 0.05)
            cheek = ellipse(side * 0.40, 0.30, 0.15, 0.12)
            self.canvas.fill(self.surface(cheek), (0.80, 0.36, 0.32), opacity=0.10, soft=0.09 * self.unit)
            self._fold(side)
        self._shadow(ellipse(0.0, 0.80, 0.16, 0.04), 0.25, 0.04)

    def _fold(self, side: float) -> None:
        line = np.array([(0.15, 0.30), (0.20, 0.36), (0.25, 0.43), (0.27, 0.50)]) * (side, 1.0)
        self.canvas.stroke(
            self.surface(line), 0.035 * self.unit, self._darker(0.55), opacity=0.35, soft=0.02 * self.unit
        )

    def _shadow(self, shape: Points, opacity: float, soft: float) -> None:
        self.canvas.fill(self.surface(shape), self._darker(0.5), opacity=opacity, soft=soft * self.unit)

    def _beard(self) -> None:
        if self.traits.beard < 0.05:
            return
        lower = self.outline(0.985)
        lower = lower[lower[:, 1] > 0.28]
        lower = lower[np.argsort(np.arctan2(lower[:, 1] - 0.2, -lower[:, 0]))]
        upper = arc(0.0, 0.44, float(np.abs(lower[:, 0]).max()) * 0.97, 0.10)
        shape = np.concatenate([lower, upper[::1] if lower[-1, 0] < 0 else upper[::-1]])
        self.canvas.fill(
            self.flat(shape), self.hairy(self.traits.hair), opacity=self.traits.beard, soft=0.05 * self.unit
        )

    def _nose(self) -> None:
        tip, lit_side = self.traits.nose_length, np.sign(self.traits.light[0]) or 1.0
        bridge = np.array(
            [
                (-lit_side * 0.07, EYE_LINE),
                (-lit_side * 0.16, tip),
                (-lit_side * 0.04, tip),
                (-lit_side * 0.03, EYE_LINE),
            ]
        )
        self._shadow(bridge, 0.42, 0.025)
        self.canvas.fill(
            self.surface(ellipse(lit_side * 0.02, 0.5 * tip, 0.022, 0.16)),
            (1.0, 0.97, 0.93),
            opacity=0.22,
            soft=0.02 * self.unit,
        )
        self._shadow(ellipse(0.0, tip + 0.045, 0.14, 0.035), 0.55, 0.02)
        for side in (-1.0, 1.0):
            self.canvas.fill(
                self.surface(ellipse(side * 0.07, tip + 0.02, 0.037, 0.020)),
                self._darker(0.18),
                opacity=0.85,
                soft=0.006 * self.unit,
            )
            wing = np.array([(0.125, tip - 0.07), (0.155, tip - 0.02), (0.15, tip + 0.03), (0.11, tip + 0.05)]) * (
                side,
                1.0,
            )
            self.canvas.stroke(
                self.surface(wing), 0.025 * self.unit, self._darker(0.4), opacity=0.6, soft=0.008 * self.unit
            )

    def _mouth(self) -> None:
        half, smile, opening = self.traits.mouth_width, self.traits.smile, self.traits.opening
        line = arc(0.0, MOUTH_LINE, half, -smile)
        line[:, 1] -= smile
        upper = np.array(
            [
                (-half, 0.0),
                (-0.45 * half, -0.055),
                (-0.12 * half, -0.075),
                (0.0, -0.06),
                (0.12 * half, -0.075),
                (0.45 * half, -0.055),
                (half, 0.0),
            ]
        )
        upper = upper * (1.0, 1.0) + (0.0, MOUTH_LINE - smile * 0.6)
        lower = arc(0.0, MOUTH_LINE - smile, 0.92 * half, -(smile + opening + 0.10))
        lips = self.lit(self.traits.lips, 0.02, 0.16)
        self.canvas.fill(
            self.surface(np.concatenate([upper, line[::-1]])),
            self.lit(tuple(0.86 * np.asarray(self.traits.lips)), 0.02, 0.02),
            soft=0.006 * self.unit,
        )
        self.canvas.fill(self.surface(np.concatenate([line, lower[::-1]])), lips, soft=0.006 * self.unit)
        if opening > 0.02:
            inside = arc(0.0, MOUTH_LINE - smile, 0.8 * half, -(smile + opening))
            self.canvas.fill(self.surface(np.concatenate([line[2:-2], inside[::-1]])), (0.22, 0.07, 0.07))
            teeth = arc(0.0, MOUTH_LINE - smile, 0.66 * half, -(smile + 0.55 * opening))
            self.canvas.fill(self.surface(np.concatenate([line[3:-3], teeth[::-1]])), (0.90, 0.88, 0.83), opacity=0.9)
        else:
            self.canvas.stroke(self.surface(line), 0.028 * self.unit, (0.25, 0.09, 0.09), opacity=0.85)
        self._shadow(ellipse(0.0, MOUTH_LINE + 0.15 + opening, 0.13, 0.025), 0.35, 0.025)

    def _eye(self, side: float) -> None:
        x, half = side * self.traits.eye_distance, self.traits.eye_size
        upper, lower = arc(x, EYE_LINE, half, 0.56 * half), arc(x, EYE_LINE, half, -0.40 * half)
        opening = np.concatenate([upper, lower[::-1]])
        self.canvas.fill(self.surface(opening), self.lit((0.93, 0.91, 0.89), 0.0, 0.0))
        gaze = x + 0.12 * half * float(np.sin(self.traits.yaw))
        for radius, colour in ((0.47, self.traits.iris), (0.24, (0.03, 0.03, 0.03))):
            disc = ellipse(gaze, EYE_LINE - 0.05 * half, radius * half, radius * half)
            self.canvas.fill(self.surface(self._within(disc, x, half)), colour, soft=0.003 * self.unit)
        spark = ellipse(gaze + 0.16 * half, EYE_LINE - 0.2 * half, 0.09 * half, 0.09 * half, 12)
        self.canvas.fill(self.surface(spark), (1.0, 1.0, 1.0), opacity=0.9)
        self.canvas.stroke(
            self.surface(upper), 0.05 * self.unit, (0.07, 0.05, 0.05), opacity=0.9, soft=0.003 * self.unit
        )
        self.canvas.stroke(self.surface(lower), 0.016 * self.unit, self._darker(0.4), opacity=0.7)
        self.canvas.stroke(
            self.surface(upper - (0.0, 0.05)), 0.02 * self.unit, self._darker(0.45), opacity=0.6, soft=0.004 * self.unit
        )

    def _within(self, disc: Points, x: float, half: float) -> Points:
        """Return the disc cut off where the lids cover it."""
        fall = np.clip(1.0 - ((disc[:, 0] - x) / half) ** 2, 0.0, 1.0)
        low, high = EYE_LINE - 0.56 * half * fall, EYE_LINE + 0.40 * half * fall
        return np.stack([disc[:, 0], np.clip(disc[:, 1], low, high)], 1)

    def _brow(self, side: float) -> None:
        x, half = side * self.traits.eye_distance, self.traits.eye_size * 1.25
        line = arc(x, BROW_LINE + 0.03, half, 0.055)
        line[:, 1] -= side * self.traits.brow_tilt * (line[:, 0] - x) / half
        colour = np.asarray(self.traits.hair) * 0.75
        self.canvas.stroke(
            self.surface(line), 0.075 * self.unit, self.hairy(tuple(colour)), opacity=0.9, soft=0.008 * self.unit
        )

    def _hair_in_front(self) -> None:
        style = self.traits.style
        if style == "bald":
            return
        crown = self.outline(1.07)
        hairline = {"short": -0.60, "fringe": -0.47, "long": -0.62, "cap": -0.45}[style]
        crown = crown[crown[:, 1] < hairline + 0.22]
        crown = crown[np.argsort(np.arctan2(crown[:, 0], -crown[:, 1]))]
        reach = float(np.abs(crown[:, 0]).max())
        edge = arc(0.0, hairline + 0.24, reach, {"short": 0.22, "fringe": 0.06, "long": 0.30, "cap": 0.12}[style])
        shape = self.flat(np.concatenate([crown, edge[::-1]]))
        if style == "cap":
            self.canvas.fill(shape, self.lit(self.traits.shirt, 0.04, 0.05), soft=0.006 * self.unit)
            self.canvas.stroke(self.flat(edge), 0.10 * self.unit, 0.6 * np.asarray(self.traits.shirt), opacity=0.9)
        else:
            self.canvas.fill(shape, self.hairy(self.traits.hair), soft=0.012 * self.unit)

    def _glasses(self) -> None:
        colour = 0.3 * np.asarray(self.traits.hair)
        for side in (-1.0, 1.0):
            x = side * self.traits.eye_distance
            ring = ellipse(x, EYE_LINE + 0.01, 0.235, 0.19, 40)
            self._rim(self.surface(ring), colour)
            temple = self.surface([(x + side * 0.235, EYE_LINE - 0.03), (side * self.traits.width, EYE_LINE - 0.05)])
            self._rim(temple, colour, closed=False)
            self.canvas.fill(
                self.surface(ellipse(x + 0.06, EYE_LINE - 0.06, 0.05, 0.03)),
                (1.0, 1.0, 1.0),
                opacity=0.18,
                soft=0.02 * self.unit,
            )
        self._rim(self.surface(arc(0.0, EYE_LINE + 0.0, self.traits.eye_distance - 0.22, 0.04)), colour, closed=False)

    def _rim(self, points: Points, colour: ArrayLike, *, closed: bool = True) -> None:
        ends = np.roll(points, -1, axis=0) if closed else points[1:]
        for start, end in zip(points if closed else points[:-1], ends, strict=True):
            along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
            across = np.array([-along[1], along[0]]) * 0.016 * self.unit
            self.canvas.fill([start + across, end + across, end - across, start - across], colour)
