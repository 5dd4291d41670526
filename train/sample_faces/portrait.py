"""A portrait: head and shoulders, painted from behind to the front."""

import numpy as np
from numpy.typing import ArrayLike

from train.sample_faces.canvas import Canvas, Pixels, arc, ellipse
from train.sample_faces.head import Head, Placed, Points

EYE_LINE, BROW_LINE, MOUTH_LINE = -0.06, -0.27, 0.56
"""Heights in halves of the head's height, 0 its middle, downwards."""


def draw_person(canvas: Canvas, person: Placed, rng: np.random.Generator) -> None:
    """Draw head and shoulders; `rng` draws only textures."""
    _Portrait(canvas, Head(person, rng)).draw()


class _Portrait:
    """One person on one canvas."""

    def __init__(self, canvas: Canvas, head: Head) -> None:
        self.canvas, self.head, self.traits = canvas, head, head.traits

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

    def _hair_behind(self) -> None:
        style, width = self.traits.style, self.traits.width
        if style == "long":
            x, y = self.head.outline(1.16).T
            lower = np.clip(y, 0.0, 1.0)
            fallen = np.stack([x * (1.0 + 0.15 * np.sqrt(lower)), y * (1.0 + 0.25 * lower)], 1)
            self.canvas.fill(self.head.flat(fallen), self.head.hairy(self.traits.hair), soft=0.008 * self.head.unit)
        elif style in ("short", "fringe"):
            cap = ellipse(0.0, -0.33, 1.06 * width, 0.76)
            self.canvas.fill(self.head.flat(cap), self.head.hairy(self.traits.hair), soft=0.008 * self.head.unit)

    def _shoulders(self) -> None:
        neck = np.array([(-0.36, 0.55), (0.36, 0.55), (0.42, 1.5), (-0.42, 1.5)])
        across = np.linspace(-1.7, 1.7, 41)
        collar = 1.16 + 0.16 * np.abs(across) + 0.9 * np.clip(np.abs(across) - 0.9, 0.0, 1.0) ** 2
        body = np.concatenate([np.stack([across, collar], 1), [(1.75, 4.0), (-1.75, 4.0)]])
        self.canvas.fill(
            self.head.centre + self.head.unit * neck, self.head.lit(tuple(self.head.darker(0.82)), 0.02, 0.0)
        )
        self.canvas.fill(
            self.head.centre + self.head.unit * ellipse(0.0, 1.02, 0.42, 0.2),
            self.head.darker(0.45),
            opacity=0.55,
            soft=0.07 * self.head.unit,
        )
        self.canvas.fill(self.head.centre + self.head.unit * body, self._cloth, soft=0.012 * self.head.unit)

    def _cloth(self, x: Pixels, y: Pixels) -> Pixels:
        base = np.asarray(self.traits.shirt, np.float32)
        shadow = 0.85 + 0.1 * self.traits.light[0] * (x - float(self.head.centre[0])) / self.head.unit
        return base * (shadow + 0.05 * self.head.textured(self.head.grain, x, y))[..., None]

    def _ears(self) -> None:
        if self.traits.style == "long":
            return
        for side in (-1.0, 1.0):
            x = side * self.traits.width * 1.0 - 0.10 * np.sin(self.traits.yaw)
            self.canvas.fill(
                self.head.flat(ellipse(x, 0.02, 0.11, 0.20)),
                self.head.lit(self.traits.skin),
                soft=0.01 * self.head.unit,
            )
            self.canvas.fill(
                self.head.flat(ellipse(x, 0.02, 0.05, 0.11)),
                self.head.darker(0.6),
                opacity=0.5,
                soft=0.02 * self.head.unit,
            )

    def _head(self) -> None:
        self.canvas.fill(
            self.head.flat(self.head.outline()), self.head.lit(self.traits.skin), soft=0.006 * self.head.unit
        )
        for side in (-1.0, 1.0):
            socket = ellipse(side * self.traits.eye_distance, EYE_LINE - 0.03, 0.20, 0.13)
            self._shadow(socket, 0.35, 0.05)
            cheek = ellipse(side * 0.40, 0.30, 0.15, 0.12)
            self.canvas.fill(self.head.surface(cheek), (0.80, 0.36, 0.32), opacity=0.10, soft=0.09 * self.head.unit)
            self._fold(side)
        self._shadow(ellipse(0.0, 0.80, 0.16, 0.04), 0.25, 0.04)

    def _fold(self, side: float) -> None:
        line = np.array([(0.15, 0.30), (0.20, 0.36), (0.25, 0.43), (0.27, 0.50)]) * (side, 1.0)
        self.canvas.stroke(
            self.head.surface(line),
            0.035 * self.head.unit,
            self.head.darker(0.55),
            opacity=0.35,
            soft=0.02 * self.head.unit,
        )

    def _shadow(self, shape: Points, opacity: float, soft: float) -> None:
        self.canvas.fill(self.head.surface(shape), self.head.darker(0.5), opacity=opacity, soft=soft * self.head.unit)

    def _beard(self) -> None:
        if self.traits.beard < 0.05:
            return
        lower = self.head.outline(0.985)
        lower = lower[lower[:, 1] > 0.28]
        lower = lower[np.argsort(np.arctan2(lower[:, 1] - 0.2, -lower[:, 0]))]
        upper = arc(0.0, 0.44, float(np.abs(lower[:, 0]).max()) * 0.97, 0.10)
        shape = np.concatenate([lower, upper[::1] if lower[-1, 0] < 0 else upper[::-1]])
        self.canvas.fill(
            self.head.flat(shape),
            self.head.hairy(self.traits.hair),
            opacity=self.traits.beard,
            soft=0.05 * self.head.unit,
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
            self.head.surface(ellipse(lit_side * 0.02, 0.5 * tip, 0.022, 0.16)),
            (1.0, 0.97, 0.93),
            opacity=0.22,
            soft=0.02 * self.head.unit,
        )
        self._shadow(ellipse(0.0, tip + 0.045, 0.14, 0.035), 0.55, 0.02)
        for side in (-1.0, 1.0):
            self.canvas.fill(
                self.head.surface(ellipse(side * 0.07, tip + 0.02, 0.037, 0.020)),
                self.head.darker(0.18),
                opacity=0.85,
                soft=0.006 * self.head.unit,
            )
            wing = np.array([(0.125, tip - 0.07), (0.155, tip - 0.02), (0.15, tip + 0.03), (0.11, tip + 0.05)]) * (
                side,
                1.0,
            )
            self.canvas.stroke(
                self.head.surface(wing),
                0.025 * self.head.unit,
                self.head.darker(0.4),
                opacity=0.6,
                soft=0.008 * self.head.unit,
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
        lips = self.head.lit(self.traits.lips, 0.02, 0.16)
        self.canvas.fill(
            self.head.surface(np.concatenate([upper, line[::-1]])),
            self.head.lit(tuple(0.86 * np.asarray(self.traits.lips)), 0.02, 0.02),
            soft=0.006 * self.head.unit,
        )
        self.canvas.fill(self.head.surface(np.concatenate([line, lower[::-1]])), lips, soft=0.006 * self.head.unit)
        if opening > 0.02:
            inside = arc(0.0, MOUTH_LINE - smile, 0.8 * half, -(smile + opening))
            self.canvas.fill(self.head.surface(np.concatenate([line[2:-2], inside[::-1]])), (0.22, 0.07, 0.07))
            teeth = arc(0.0, MOUTH_LINE - smile, 0.66 * half, -(smile + 0.55 * opening))
            self.canvas.fill(
                self.head.surface(np.concatenate([line[3:-3], teeth[::-1]])), (0.90, 0.88, 0.83), opacity=0.9
            )
        else:
            self.canvas.stroke(self.head.surface(line), 0.028 * self.head.unit, (0.25, 0.09, 0.09), opacity=0.85)
        self._shadow(ellipse(0.0, MOUTH_LINE + 0.15 + opening, 0.13, 0.025), 0.35, 0.025)

    def _eye(self, side: float) -> None:
        x, half = side * self.traits.eye_distance, self.traits.eye_size
        upper, lower = arc(x, EYE_LINE, half, 0.56 * half), arc(x, EYE_LINE, half, -0.40 * half)
        opening = np.concatenate([upper, lower[::-1]])
        self.canvas.fill(self.head.surface(opening), self.head.lit((0.93, 0.91, 0.89), 0.0, 0.0))
        gaze = x + 0.12 * half * float(np.sin(self.traits.yaw))
        for radius, colour in ((0.47, self.traits.iris), (0.24, (0.03, 0.03, 0.03))):
            disc = ellipse(gaze, EYE_LINE - 0.05 * half, radius * half, radius * half)
            self.canvas.fill(self.head.surface(self._within(disc, x, half)), colour, soft=0.003 * self.head.unit)
        spark = ellipse(gaze + 0.16 * half, EYE_LINE - 0.2 * half, 0.09 * half, 0.09 * half, 12)
        self.canvas.fill(self.head.surface(spark), (1.0, 1.0, 1.0), opacity=0.9)
        self.canvas.stroke(
            self.head.surface(upper),
            0.05 * self.head.unit,
            (0.07, 0.05, 0.05),
            opacity=0.9,
            soft=0.003 * self.head.unit,
        )
        self.canvas.stroke(self.head.surface(lower), 0.016 * self.head.unit, self.head.darker(0.4), opacity=0.7)
        self.canvas.stroke(
            self.head.surface(upper - (0.0, 0.05)),
            0.02 * self.head.unit,
            self.head.darker(0.45),
            opacity=0.6,
            soft=0.004 * self.head.unit,
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
            self.head.surface(line),
            0.075 * self.head.unit,
            self.head.hairy(tuple(colour)),
            opacity=0.9,
            soft=0.008 * self.head.unit,
        )

    def _hair_in_front(self) -> None:
        style = self.traits.style
        if style == "bald":
            return
        crown = self.head.outline(1.07)
        hairline = {"short": -0.60, "fringe": -0.47, "long": -0.62, "cap": -0.45}[style]
        crown = crown[crown[:, 1] < hairline + 0.22]
        crown = crown[np.argsort(np.arctan2(crown[:, 0], -crown[:, 1]))]
        reach = float(np.abs(crown[:, 0]).max())
        edge = arc(0.0, hairline + 0.24, reach, {"short": 0.22, "fringe": 0.06, "long": 0.30, "cap": 0.12}[style])
        shape = self.head.flat(np.concatenate([crown, edge[::-1]]))
        if style == "cap":
            self.canvas.fill(shape, self.head.lit(self.traits.shirt, 0.04, 0.05), soft=0.006 * self.head.unit)
            self.canvas.stroke(
                self.head.flat(edge), 0.10 * self.head.unit, 0.6 * np.asarray(self.traits.shirt), opacity=0.9
            )
        else:
            self.canvas.fill(shape, self.head.hairy(self.traits.hair), soft=0.012 * self.head.unit)

    def _glasses(self) -> None:
        colour = 0.3 * np.asarray(self.traits.hair)
        for side in (-1.0, 1.0):
            x = side * self.traits.eye_distance
            ring = ellipse(x, EYE_LINE + 0.01, 0.235, 0.19, 40)
            self._rim(self.head.surface(ring), colour)
            temple = self.head.surface(
                [(x + side * 0.235, EYE_LINE - 0.03), (side * self.traits.width, EYE_LINE - 0.05)]
            )
            self._rim(temple, colour, closed=False)
            self.canvas.fill(
                self.head.surface(ellipse(x + 0.06, EYE_LINE - 0.06, 0.05, 0.03)),
                (1.0, 1.0, 1.0),
                opacity=0.18,
                soft=0.02 * self.head.unit,
            )
        self._rim(
            self.head.surface(arc(0.0, EYE_LINE + 0.0, self.traits.eye_distance - 0.22, 0.04)), colour, closed=False
        )

    def _rim(self, points: Points, colour: ArrayLike, *, closed: bool = True) -> None:
        ends = np.roll(points, -1, axis=0) if closed else points[1:]
        for start, end in zip(points if closed else points[:-1], ends, strict=True):
            along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
            across = np.array([-along[1], along[0]]) * 0.016 * self.head.unit
            self.canvas.fill([start + across, end + across, end - across, start - across], colour)
