"""Draws faces and rooms from a seed, before they go through a camera or a generator."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from train.sample_faces.canvas import OVERSAMPLING, Canvas, cloud, ellipse
from train.sample_faces.head import Placed
from train.sample_faces.portrait import draw_person
from train.sample_faces.traits import muted, sample_traits


def draw_face(seed: int, size: int = 256) -> NDArray[np.uint8]:
    """Return the drawn face of `seed`, RGB uint8 [size, size, 3]."""
    rng = np.random.default_rng([seed, 1])
    traits = sample_traits(rng)
    half = size * rng.uniform(0.33, 0.39)
    place = Placed(traits, size * rng.uniform(0.46, 0.54), size * rng.uniform(0.48, 0.54), half)
    return draw_people((place,), size, size, rng)


def draw_scene(
    seed: int, width: int = 1280, height: int = 720, people: int = 3
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Return a drawn room with `people` side by side, uint8 [height, width, 3], and their places from left to right."""
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
    """Yield `frames` pictures, uint8 [height, width, 3], of one room with people who sway and turn their heads."""
    rng = np.random.default_rng([seed, 2])
    room = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
    placed = place_people(rng, width, height, people)
    draw_room(room, rng)
    paces = rng.uniform(0.5, 1.0, people)
    for index in range(frames):
        canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
        canvas.pixels[:] = room.pixels
        for number, (person, pace) in enumerate(zip(placed, paces, strict=True)):
            sine, cosine = (float(wave(2.0 * np.pi * pace * index / 30.0)) for wave in (np.sin, np.cos))
            traits = person.traits.turned(yaw=0.2 * cosine, roll=0.05 * sine)
            moved = replace(person, traits=traits, x=person.x + 0.35 * person.half_height * sine)
            draw_person(canvas, moved, np.random.default_rng([seed, 6, number]))
        yield finish(canvas)


def draw_people(people: Sequence[Placed], width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a room drawn from `rng` with `people` in it, uint8 [height, width, 3]."""
    canvas = Canvas(width * OVERSAMPLING, height * OVERSAMPLING)
    draw_room(canvas, rng)
    for person in people:
        draw_person(canvas, person, rng)
    return finish(canvas)


def finish(canvas: Canvas) -> NDArray[np.uint8]:
    """Return the canvas averaged down to the picture's size, uint8."""
    height, width = (side // OVERSAMPLING for side in canvas.pixels.shape[:2])
    small = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.round(np.clip(small, 0.0, 1.0) * 255.0).astype(np.uint8)


def draw_room(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the canvas with a wall, some objects out of focus and a texture."""
    height, width = canvas.pixels.shape[:2]
    top, bottom = np.asarray(muted(rng, 0.2, 0.85)), np.asarray(muted(rng, 0.2, 0.85))
    slope = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    canvas.pixels[:] = top + slope * (bottom - top)
    for _ in range(int(rng.integers(2, 9))):
        x, y = rng.uniform(0.0, width), rng.uniform(0.0, height)
        across, down = rng.uniform(0.03, 0.25, 2) * min(width, height)
        if rng.random() < 0.5:
            shape = ellipse(x, y, across, across)
        else:
            shape = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (across, 2.0 * down) + (x, y)
        soft = rng.uniform(0.002, 0.03) * min(width, height)
        canvas.fill(shape, muted(rng, 0.05, 0.95), opacity=rng.uniform(0.3, 0.9), soft=soft)
    texture = cloud(rng, width, height, coarsest=min(width, height) // 4, falloff=rng.uniform(0.55, 0.8))
    canvas.pixels += rng.uniform(0.01, 0.06) * texture[..., None]
