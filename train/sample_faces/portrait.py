"""A portrait: head and shoulders, painted from back to front.

Lengths are in halves of the head's height; 0 is its middle, and y points down.
"""

import numpy as np
from numpy.typing import ArrayLike

from train.sample_faces.canvas import Canvas, Paint, Pixels, arc, ellipse
from train.sample_faces.head import Head, Placed, Points

EYE_LINE, BROW_LINE, MOUTH_LINE = -0.06, -0.27, 0.56

SIDES = (-1.0, 1.0)
"""Left and right in the picture."""

HAIRLINES = {"short": -0.60, "fringe": -0.47, "long": -0.62, "cap": -0.45}
HAIR_ARCS = {"short": 0.22, "fringe": 0.06, "long": 0.30, "cap": 0.12}
"""Height of the front hair's lower edge, and how much it is arched, by style."""


def draw_person(canvas: Canvas, person: Placed, rng: np.random.Generator) -> None:
    """Draw head and shoulders; `rng` draws only textures."""
    portrait = Portrait(canvas, Head(person, rng))
    portrait.hair_behind()
    portrait.shoulders()
    portrait.ears()
    portrait.face()
    portrait.beard()
    portrait.nose()
    portrait.mouth()
    for side in SIDES:
        portrait.eye(side)
        portrait.brow(side)
    portrait.hair_in_front()
    portrait.glasses()


class Portrait:
    """One person on one canvas; each method paints a part."""

    def __init__(self, canvas: Canvas, head: Head) -> None:
        self.canvas, self.head, self.traits = canvas, head, head.traits

    def hair_behind(self) -> None:
        """Paint the hair behind the head."""
        if self.traits.style == "long":
            x, y = self.head.outline(1.16).T
            lower = np.clip(y, 0.0, 1.0)
            shape = np.stack([x * (1.0 + 0.15 * np.sqrt(lower)), y * (1.0 + 0.25 * lower)], 1)
        elif self.traits.style in ("short", "fringe"):
            shape = ellipse(0.0, -0.33, 1.06 * self.traits.width, 0.76)
        else:
            return
        self._fill(self.head.flat(shape), self.head.hairy(self.traits.hair), soft=0.008)

    def shoulders(self) -> None:
        """Paint neck and shirt, which do not turn with the head."""
        neck = np.array([(-0.36, 0.55), (0.36, 0.55), (0.42, 1.5), (-0.42, 1.5)])
        across = np.linspace(-1.7, 1.7, 41)
        collar = 1.16 + 0.16 * np.abs(across) + 0.9 * np.clip(np.abs(across) - 0.9, 0.0, 1.0) ** 2
        body = np.concatenate([np.stack([across, collar], 1), [(1.75, 4.0), (-1.75, 4.0)]])

        def cloth(x: Pixels, y: Pixels) -> Pixels:
            base = np.asarray(self.traits.shirt, np.float32)
            shadow = 0.85 + 0.1 * self.traits.light[0] * (x - float(self.head.centre[0])) / self.head.unit
            return base * (shadow + 0.05 * self.head.textured(self.head.grain, x, y))[..., None]

        place = self.head.centre
        self._fill(place + self.head.unit * neck, self.head.lit(tuple(self.head.darker(0.82)), 0.02, 0.0))
        chin = ellipse(0.0, 1.02, 0.42, 0.2)
        self._fill(place + self.head.unit * chin, self.head.darker(0.45), opacity=0.55, soft=0.07)
        self._fill(place + self.head.unit * body, cloth, soft=0.012)

    def ears(self) -> None:
        """Paint the ears, unless long hair hides them."""
        for side in SIDES if self.traits.style != "long" else ():
            x = side * self.traits.width * 1.0 - 0.10 * np.sin(self.traits.yaw)
            self._fill(self.head.flat(ellipse(x, 0.02, 0.11, 0.20)), self.head.lit(self.traits.skin), soft=0.01)
            self._fill(self.head.flat(ellipse(x, 0.02, 0.05, 0.11)), self.head.darker(0.6), opacity=0.5, soft=0.02)

    def face(self) -> None:
        """Paint the skin with its eye sockets, cheeks, folds and chin."""
        self._fill(self.head.flat(self.head.outline()), self.head.lit(self.traits.skin), soft=0.006)
        for side in SIDES:
            self._shadow(ellipse(side * self.traits.eye_distance, EYE_LINE - 0.03, 0.20, 0.13), 0.35, 0.05)
            cheek = ellipse(side * 0.40, 0.30, 0.15, 0.12)
            self._fill(self.head.surface(cheek), (0.80, 0.36, 0.32), opacity=0.10, soft=0.09)
            fold = np.array([(0.15, 0.30), (0.20, 0.36), (0.25, 0.43), (0.27, 0.50)]) * (side, 1.0)
            self._stroke(self.head.surface(fold), 0.035, self.head.darker(0.55), opacity=0.35, soft=0.02)
        self._shadow(ellipse(0.0, 0.80, 0.16, 0.04), 0.25, 0.04)

    def beard(self) -> None:
        """Paint the beard, as dense as the person's."""
        if self.traits.beard < 0.05:
            return
        lower = self.head.outline(0.985)
        lower = lower[lower[:, 1] > 0.28]
        lower = lower[np.argsort(np.arctan2(lower[:, 1] - 0.2, -lower[:, 0]))]
        upper = arc(0.0, 0.44, float(np.abs(lower[:, 0]).max()) * 0.97, 0.10)
        shape = np.concatenate([lower, upper[::1] if lower[-1, 0] < 0 else upper[::-1]])
        hair = self.head.hairy(self.traits.hair)
        self._fill(self.head.flat(shape), hair, opacity=self.traits.beard, soft=0.05)

    def nose(self) -> None:
        """Paint the bridge, the nostrils and the wings."""
        tip, lit_side = self.traits.nose_length, np.sign(self.traits.light[0]) or 1.0
        bridge = np.array([(-0.07, EYE_LINE), (-0.16, tip), (-0.04, tip), (-0.03, EYE_LINE)]) * (lit_side, 1.0)
        self._shadow(bridge, 0.42, 0.025)
        ridge = self.head.surface(ellipse(lit_side * 0.02, 0.5 * tip, 0.022, 0.16))
        self._fill(ridge, (1.0, 0.97, 0.93), opacity=0.22, soft=0.02)
        self._shadow(ellipse(0.0, tip + 0.045, 0.14, 0.035), 0.55, 0.02)
        for side in SIDES:
            nostril = self.head.surface(ellipse(side * 0.07, tip + 0.02, 0.037, 0.020))
            self._fill(nostril, self.head.darker(0.18), opacity=0.85, soft=0.006)
            wing = np.array([(0.125, tip - 0.07), (0.155, tip - 0.02), (0.15, tip + 0.03), (0.11, tip + 0.05)])
            wing = self.head.surface(wing * (side, 1.0))
            self._stroke(wing, 0.025, self.head.darker(0.4), opacity=0.6, soft=0.008)

    def mouth(self) -> None:
        """Paint the lips, and the teeth of an open mouth."""
        half, smile, opening = self.traits.mouth_width, self.traits.smile, self.traits.opening
        line = arc(0.0, MOUTH_LINE, half, -smile)
        line[:, 1] -= smile
        shape = [
            (-1.0, 0.0),
            (-0.45, -0.055),
            (-0.12, -0.075),
            (0.0, -0.06),
            (0.12, -0.075),
            (0.45, -0.055),
            (1.0, 0.0),
        ]
        upper = np.array(shape) * (half, 1.0) + (0.0, MOUTH_LINE - smile * 0.6)
        lower = arc(0.0, MOUTH_LINE - smile, 0.92 * half, -(smile + opening + 0.10))
        shaded = self.head.lit(tuple(0.86 * np.asarray(self.traits.lips)), 0.02, 0.02)
        self._fill(self.head.surface(np.concatenate([upper, line[::-1]])), shaded, soft=0.006)
        lips = self.head.lit(self.traits.lips, 0.02, 0.16)
        self._fill(self.head.surface(np.concatenate([line, lower[::-1]])), lips, soft=0.006)
        if opening > 0.02:
            inside = arc(0.0, MOUTH_LINE - smile, 0.8 * half, -(smile + opening))
            self._fill(self.head.surface(np.concatenate([line[2:-2], inside[::-1]])), (0.22, 0.07, 0.07))
            teeth = arc(0.0, MOUTH_LINE - smile, 0.66 * half, -(smile + 0.55 * opening))
            shape_of_teeth = np.concatenate([line[3:-3], teeth[::-1]])
            self._fill(self.head.surface(shape_of_teeth), (0.90, 0.88, 0.83), opacity=0.9)
        else:
            self._stroke(self.head.surface(line), 0.028, (0.25, 0.09, 0.09), opacity=0.85)
        self._shadow(ellipse(0.0, MOUTH_LINE + 0.15 + opening, 0.13, 0.025), 0.35, 0.025)

    def eye(self, side: float) -> None:
        """Paint one eye with its lids."""
        x, half = side * self.traits.eye_distance, self.traits.eye_size
        upper, lower = arc(x, EYE_LINE, half, 0.56 * half), arc(x, EYE_LINE, half, -0.40 * half)
        white = self.head.lit((0.93, 0.91, 0.89), 0.0, 0.0)
        self._fill(self.head.surface(np.concatenate([upper, lower[::-1]])), white)
        gaze = x + 0.12 * half * float(np.sin(self.traits.yaw))
        for radius, colour in ((0.47, self.traits.iris), (0.24, (0.03, 0.03, 0.03))):
            disc = ellipse(gaze, EYE_LINE - 0.05 * half, radius * half, radius * half)
            fall = np.clip(1.0 - ((disc[:, 0] - x) / half) ** 2, 0.0, 1.0)
            between_lids = np.clip(disc[:, 1], EYE_LINE - 0.56 * half * fall, EYE_LINE + 0.40 * half * fall)
            self._fill(self.head.surface(np.stack([disc[:, 0], between_lids], 1)), colour, soft=0.003)
        spark = ellipse(gaze + 0.16 * half, EYE_LINE - 0.2 * half, 0.09 * half, 0.09 * half, 12)
        self._fill(self.head.surface(spark), (1.0, 1.0, 1.0), opacity=0.9)
        self._stroke(self.head.surface(upper), 0.05, (0.07, 0.05, 0.05), opacity=0.9, soft=0.003)
        self._stroke(self.head.surface(lower), 0.016, self.head.darker(0.4), opacity=0.7)
        crease = self.head.surface(upper - (0.0, 0.05))
        self._stroke(crease, 0.02, self.head.darker(0.45), opacity=0.6, soft=0.004)

    def brow(self, side: float) -> None:
        """Paint one brow."""
        x, half = side * self.traits.eye_distance, self.traits.eye_size * 1.25
        line = arc(x, BROW_LINE + 0.03, half, 0.055)
        line[:, 1] -= side * self.traits.brow_tilt * (line[:, 0] - x) / half
        hair = self.head.hairy(tuple(np.asarray(self.traits.hair) * 0.75))
        self._stroke(self.head.surface(line), 0.075, hair, opacity=0.9, soft=0.008)

    def hair_in_front(self) -> None:
        """Paint the hair over the forehead, or a cap."""
        style = self.traits.style
        if style == "bald":
            return
        crown = self.head.outline(1.07)
        crown = crown[crown[:, 1] < HAIRLINES[style] + 0.22]
        crown = crown[np.argsort(np.arctan2(crown[:, 0], -crown[:, 1]))]
        edge = arc(0.0, HAIRLINES[style] + 0.24, float(np.abs(crown[:, 0]).max()), HAIR_ARCS[style])
        shape = self.head.flat(np.concatenate([crown, edge[::-1]]))
        if style == "cap":
            self._fill(shape, self.head.lit(self.traits.shirt, 0.04, 0.05), soft=0.006)
            self._stroke(self.head.flat(edge), 0.10, 0.6 * np.asarray(self.traits.shirt), opacity=0.9)
        else:
            self._fill(shape, self.head.hairy(self.traits.hair), soft=0.012)

    def glasses(self) -> None:
        """Paint the glasses, if the person wears some."""
        for side in SIDES if self.traits.glasses else ():
            x = side * self.traits.eye_distance
            self._rim(ellipse(x, EYE_LINE + 0.01, 0.235, 0.19, 40), closed=True)
            self._rim([(x + side * 0.235, EYE_LINE - 0.03), (side * self.traits.width, EYE_LINE - 0.05)])
            glint = self.head.surface(ellipse(x + 0.06, EYE_LINE - 0.06, 0.05, 0.03))
            self._fill(glint, (1.0, 1.0, 1.0), opacity=0.18, soft=0.02)
        if self.traits.glasses:
            self._rim(arc(0.0, EYE_LINE + 0.0, self.traits.eye_distance - 0.22, 0.04))

    def _rim(self, line: ArrayLike, *, closed: bool = False) -> None:
        points = self.head.surface(line)
        colour = 0.3 * np.asarray(self.traits.hair)
        ends = np.roll(points, -1, axis=0) if closed else points[1:]
        for start, end in zip(points if closed else points[:-1], ends, strict=True):
            along = (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
            across = np.array([-along[1], along[0]]) * 0.016 * self.head.unit
            self._fill([start + across, end + across, end - across, start - across], colour)

    def _shadow(self, shape: Points, opacity: float, soft: float) -> None:
        self._fill(self.head.surface(shape), self.head.darker(0.5), opacity=opacity, soft=soft)

    def _fill(self, points: ArrayLike, paint: Paint, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Paint a polygon in pixels; `soft` is a length on the head."""
        self.canvas.fill(points, paint, opacity=opacity, soft=soft * self.head.unit)

    def _stroke(
        self, points: ArrayLike, width: float, paint: Paint, *, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        """Paint a line in pixels; `width` and `soft` are lengths on the head."""
        self.canvas.stroke(points, width * self.head.unit, paint, opacity=opacity, soft=soft * self.head.unit)
