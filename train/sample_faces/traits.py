"""The look of a drawn face: everything that the seed decides before drawing."""

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]
"""RGB, gamma encoded, each in [0, 1]."""

SKINS: tuple[Colour, ...] = (
    (0.96, 0.82, 0.73),
    (0.91, 0.73, 0.61),
    (0.84, 0.64, 0.50),
    (0.73, 0.53, 0.39),
    (0.60, 0.42, 0.30),
    (0.47, 0.32, 0.23),
)
HAIRS: tuple[Colour, ...] = (
    (0.08, 0.07, 0.07),
    (0.20, 0.13, 0.09),
    (0.38, 0.24, 0.13),
    (0.55, 0.31, 0.15),
    (0.76, 0.61, 0.36),
    (0.62, 0.61, 0.60),
)
IRISES: tuple[Colour, ...] = ((0.22, 0.13, 0.07), (0.36, 0.24, 0.12), (0.25, 0.38, 0.22), (0.28, 0.45, 0.62))
LIPS: tuple[Colour, ...] = ((0.72, 0.38, 0.36), (0.62, 0.28, 0.28), (0.80, 0.45, 0.42))
STYLES = ("short", "fringe", "long", "bald", "cap")


@dataclass(frozen=True)
class Traits:
    """One person. Lengths are in halves of the head's height, angles in radians.

    `width` is half the head's width, `jaw` how much it narrows towards the chin, `light` a direction (right, down,
    towards the viewer) of length 1.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    shirt: Colour
    style: str
    width: float
    jaw: float
    eye_distance: float
    eye_size: float
    brow_tilt: float
    nose_length: float
    mouth_width: float
    smile: float
    opening: float
    beard: float
    glasses: bool
    yaw: float
    pitch: float
    roll: float
    light: Colour
    ambient: float

    def turned(self, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> "Traits":
        """Return the same person with the head turned further."""
        return replace(self, yaw=self.yaw + yaw, pitch=self.pitch + pitch, roll=self.roll + roll)


def sample_traits(rng: np.random.Generator) -> Traits:
    """Return a person drawn from `rng`."""
    return Traits(
        skin=_near(rng, _choose(rng, SKINS), 0.03),
        hair=_near(rng, _choose(rng, HAIRS), 0.03),
        iris=_near(rng, _choose(rng, IRISES), 0.03),
        lips=_near(rng, _choose(rng, LIPS), 0.04),
        shirt=muted(rng),
        style=STYLES[int(rng.choice(len(STYLES), p=(0.32, 0.22, 0.28, 0.10, 0.08)))],
        width=rng.uniform(0.68, 0.80),
        jaw=rng.uniform(0.12, 0.34),
        eye_distance=rng.uniform(0.29, 0.35),
        eye_size=rng.uniform(0.115, 0.15),
        brow_tilt=rng.uniform(-0.05, 0.06),
        nose_length=rng.uniform(0.30, 0.40),
        mouth_width=rng.uniform(0.22, 0.33),
        smile=rng.uniform(-0.02, 0.09),
        opening=max(0.0, rng.uniform(-0.06, 0.07)),
        beard=max(0.0, rng.uniform(-1.2, 0.8)),
        glasses=bool(rng.random() < 0.25),
        yaw=rng.uniform(-0.34, 0.34),
        pitch=rng.uniform(-0.14, 0.16),
        roll=rng.uniform(-0.22, 0.22),
        light=_direction(rng),
        ambient=rng.uniform(0.50, 0.72),
    )


def muted(rng: np.random.Generator, low: float = 0.1, high: float = 0.9) -> Colour:
    """Return a colour of any hue, mostly unsaturated, with a brightness of about [low, high]."""
    grey, hue = rng.uniform(low, high), rng.uniform(-1.0, 1.0, 3)
    red, green, blue = np.clip(grey + rng.uniform(0.0, 0.28) * (hue - hue.mean()), 0.02, 0.98)
    return (float(red), float(green), float(blue))


def _choose(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    brighter = rng.normal(0.0, spread)
    red, green, blue = np.clip(np.asarray(colour) + brighter + rng.normal(0.0, 0.3 * spread, 3), 0.02, 0.98)
    return (float(red), float(green), float(blue))


def _direction(rng: np.random.Generator) -> Colour:
    across, down = rng.uniform(-0.7, 0.7), rng.uniform(-0.75, 0.1)
    length = float(np.sqrt(across**2 + down**2 + 0.8**2))
    return (across / length, down / length, 0.8 / length)
