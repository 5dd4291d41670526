"""Drawn faces for demos and tests, since no photographs are shipped.

The same drawn face goes once through a model of a camera (real) and once through a model of a generator (fake): see
`capture`. A detector can learn from them only the traces that forensics knows. They show that every step works, and
say nothing about photographs.
"""

from train.sample_faces.capture import camera, encode, generator
from train.sample_faces.drawing import draw_face, draw_scene
from train.sample_faces.files import half_and_half, make_clip, make_samples, sample_face, sample_jpeg

__all__ = [
    "camera",
    "draw_face",
    "draw_scene",
    "encode",
    "generator",
    "half_and_half",
    "make_clip",
    "make_samples",
    "sample_face",
    "sample_jpeg",
]
