"""Services with a tiny model whose verdict follows the colour of a face, the real face detector, drawn faces."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from helpers.jpegs import file_of
from openvino import opset13 as ops
from PIL import Image
from starlette.testclient import TestClient

from benchmarks.studies.small import SIZE, write_small_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import PictureError, SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, Framing, ModelContract, PixelRecipe
from edge_runtime.sources import Frame, Gap
from edge_runtime.web.app import create_app
from edge_runtime.web.server import bind, http_server
from edge_runtime.web.settings import Settings
from train.sample_faces import draw_face, draw_scene


def colour_network() -> ov.Model:
    """Return a network [1, 3, 32, 32] → logits [1, 2], saliency_map [1, 2, 8, 8]; red is fake, blue is real."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    features = ops.avg_pool(pixels, [4, 4], [0, 0], [0, 0], [4, 4], True)
    weights = np.array([[-3, 0, 3], [3, 0, -3]], np.float32).reshape(2, 3, 1, 1)
    saliency = ops.convolution(features, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    logits = ops.reduce_mean(saliency, ops.constant(np.array([2, 3])), keep_dims=False)
    for node, name in ((logits, "logits"), (saliency, "saliency_map")):
        node.output(0).get_tensor().set_names({name})
    return ov.Model([logits, saliency], [pixels], "colour")


def colour_contract(**changes: object) -> ModelContract:
    """Return the contract of the colour network."""
    calibration = Calibration(temperature=1.0, low=0.3, high=0.7, fitted=True)
    contract = ModelContract(
        "colour",
        version="1.4.0",
        input_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        scale=(0.5, 0.5, 0.5),
        framing=Framing.DETECTED,
        pixels=PixelRecipe(resize_to=SIZE),
        calibrations={"fp32": calibration},
        metrics={"fp32": {"auc": {"value": 0.99, "low": 0.98, "high": 1.0}}},
    )
    return contract.replace(**changes)


def write_colour_bundle(
    folder: Path, face_model: Path | None, contract: ModelContract, network: ov.Model | None = None
) -> Path:
    """Write a bundle with the colour network (or `network`), and the face model if there is one."""
    return write_small_bundle(folder, contract, ("fp32",), face_model, network or colour_network())


@pytest.fixture(scope="session")
def make_colour_bundle(face_model: Path) -> Callable[..., Path]:
    """Writes a bundle that finds faces into a folder: folder, contract changes by name."""

    def make(folder: Path, **changes: object) -> Path:
        return write_colour_bundle(folder, face_model, colour_contract(**changes))

    return make


@pytest.fixture(scope="session")
def colour_bundle(make_colour_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds faces."""
    return make_colour_bundle(tmp_path_factory.mktemp("colour") / "detector")


@pytest.fixture(scope="session")
def detector(colour_bundle: Path) -> Detector:
    return Detector(Bundle.open(colour_bundle))


@pytest.fixture
def demo_detector(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Detector:
    """The same as a demonstration model."""
    manifest = replace(detector.bundle.manifest, contract=colour_contract(demo=True))
    demo = replace(detector.bundle, manifest=manifest)
    monkeypatch.setattr(detector, "bundle", demo)
    monkeypatch.setattr(detector.engine, "bundle", demo)
    return detector


@pytest.fixture(scope="session")
def whole_detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A detector that takes the whole picture as the face."""
    folder = tmp_path_factory.mktemp("whole") / "detector"
    return Detector(Bundle.open(write_colour_bundle(folder, None, colour_contract(framing=Framing.WHOLE))))


@pytest.fixture
def held(whole_detector: Detector, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Make the detector wait; two events: that it was asked, and that it may answer."""
    asked, released = threading.Event(), threading.Event()
    original = whole_detector.engine.answer

    def answer(pixels: np.ndarray) -> object:
        asked.set()
        released.wait(60)
        return original(pixels)

    monkeypatch.setattr(whole_detector.engine, "answer", answer)
    return asked, released


@contextmanager
def client_of(detector: Detector, settings: Settings | None = None, **options: object) -> Iterator[TestClient]:
    """Yield a client of a service without a server."""
    app = create_app(detector, settings or Settings())
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False, **options) as client:
        yield client


@contextmanager
def serving(detector: Detector, settings: Settings | None = None) -> Iterator[tuple[str, int]]:
    """Run a real server on a free port of loopback; yields host and port."""
    settings = settings or Settings()
    app = create_app(detector, settings)
    server = http_server(app)
    with bind("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="session")
def opened() -> Callable[..., AbstractContextManager[TestClient]]:
    return client_of


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[tuple[str, int]]]:
    return serving


@pytest.fixture(scope="module")
def client(detector: Detector) -> Iterator[TestClient]:
    """A client of a service that finds faces."""
    with client_of(detector) as client:
        yield client


@pytest.fixture(scope="module")
def plain(whole_detector: Detector) -> Iterator[TestClient]:
    """A client of a service that takes the whole picture as the face."""
    with client_of(whole_detector) as client:
        yield client


def tinted(pixels: np.ndarray, red: float, blue: float) -> np.ndarray:
    """Return `pixels`, uint8 RGB, moved towards red or blue."""
    moved = pixels.astype(np.float32) + np.array([red, 0, blue], np.float32)
    return moved.clip(0, 255).astype(np.uint8)


FAKE, REAL, UNCERTAIN = (60, -90), (-110, 70), (-20, 18)
"""Tints of a drawn face that make the colour network give these verdicts."""


@pytest.fixture(scope="session")
def face() -> Callable[..., bytes]:
    """A JPEG of one drawn face, tinted."""

    def make(tint: tuple[float, float] = FAKE, seed: int = 3, size: int = 384) -> bytes:
        return file_of(Image.fromarray(tinted(draw_face(seed, size), *tint)), quality=92)

    return make


@pytest.fixture(scope="session")
def three_faces() -> bytes:
    """A JPEG of three drawn faces from left to right: fake, real and uncertain."""
    pixels, _ = draw_scene(5, 960, 640, 3)
    thirds = [slice(0, 320), slice(320, 640), slice(640, 960)]
    for third, tint in zip(thirds, (FAKE, REAL, UNCERTAIN), strict=True):
        pixels[:, third] = tinted(pixels[:, third], *tint)
    return file_of(Image.fromarray(pixels), quality=92)


@pytest.fixture(scope="session")
def no_face() -> bytes:
    """A JPEG without a face."""
    sky = np.linspace((90, 140, 220), (225, 230, 235), 480)
    pixels = np.repeat(sky[:, None], 640, axis=1) + np.random.default_rng(1).normal(0, 4, (480, 640, 3))
    return file_of(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


class Camera:
    """A camera that repeats one picture and counts how often it was opened and closed."""

    name, live, still, endless = "camera", True, False, True

    def __init__(self, data: bytes, every_s: float = 0.02) -> None:
        self.picture = Image.open(io.BytesIO(data)).convert("RGB")
        self.every_s = every_s
        self.opened = self.closed = self.frames_given = 0
        self.missing = self.lost = self.broken = False

    def open(self) -> "Camera":
        if self.missing:
            raise SourceError("camera 0: not found; check the cable")
        self.opened += 1
        return self

    def load(self) -> Image.Image:
        if self.broken:
            raise PictureError("the picture: broken or cut off")
        return self.picture

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        try:
            while not stop.wait(self.every_s):
                if self.lost:
                    yield Gap("camera", SourceState.LOST, "camera: no frame for 5 s")
                else:
                    yield Frame("camera", self.frames_given, self.load)
                    self.frames_given += 1
        finally:
            self.closed += 1


@pytest.fixture
def camera(three_faces) -> Camera:
    """A camera that shows three faces."""
    return Camera(three_faces)
