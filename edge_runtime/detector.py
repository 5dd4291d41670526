"""The runtime in one object: pictures, videos and cameras in, verdicts out."""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.defaults import WINDOW
from edge_runtime.errors import BundleError, EdgeError, PictureError, UsageError
from edge_runtime.inference.engine import Choice, Engine, cache_properties, choose, free_threads
from edge_runtime.judging.results import FrameResult
from edge_runtime.judging.scorer import FaceFinder, FrameScorer, ScoredFrame, Verdicts
from edge_runtime.judging.tracking import TrackNumbers
from edge_runtime.model.bundle import Bundle, find_bundle
from edge_runtime.model.contract import DEMO_NOTICE, Framing
from edge_runtime.model.profile import kept_device
from edge_runtime.pipeline import Pipeline
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.provenance import picture_provenance
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits
from edge_runtime.sources import DEFAULT_OPTIONS, Frame, Source, SourceOptions, open_sources

log = logging.getLogger("edge_runtime")

FACES = ("auto", "off", "tiled")

WHOLE_PICTURES = (
    "each picture was judged as one face, since this model was trained on pictures of single faces; for whole scenes "
    "give --faces tiled, or train on faces cut out by prepare-faces --crop"
)

Picture = Image.Image | NDArray[np.uint8] | bytes | str | Path


class Detector:
    """Judges whether faces are real, fake or uncertain.

    Args:
        bundle: folder of a bundle, or an opened one; None searches where `edge-detect` searches.
        device: `AUTO`, `CPU` or `GPU`.
        precision: `auto`, `fp32`, `fp16` or `int8`.
        faces: `auto` finds faces in video, and in pictures if the contract says so; `off` takes the whole picture as
            the face; `tiled` also finds distant faces.
        limits: faces below these are not judged.
        window: how many of a face's last judged frames its verdict uses.
        careful: judge slightly changed copies of each face too, and give no verdict where they disagree; four times the
            classifications.
        always: search and judge every frame of live sources too, see `edge_runtime.judging.live`.
        hint: `THROUGHPUT` for many frames, `LATENCY` for one at a time.
        safe_start: start on the CPU also where this machine's profile names another device; `tune` switches to it.
        threads: CPU threads of each network, not bound to cores, for several processes side by side; None leaves it to
            OpenVINO.

    Raises:
        BundleError: there is no bundle, it was changed, or it lacks the face model it needs.
        DeviceError: the device is missing, or gives wrong answers.
        UsageError: the bundle lacks the precision.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str | None = None,
        *,
        device: str = "AUTO",
        precision: str = "auto",
        faces: str = "auto",
        limits: QualityLimits = DEFAULT_LIMITS,
        window: int = WINDOW,
        careful: bool = False,
        always: bool = False,
        hint: str = "THROUGHPUT",
        safe_start: bool = False,
        threads: int | None = None,
    ) -> None:
        if faces not in FACES:
            raise UsageError(f"faces is {faces!r}; choose one of {', '.join(FACES)}")
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        self._threads = threads
        self._left_open = device == "AUTO" and precision == "auto"
        self._started_safely = self._left_open and safe_start and kept_device(self.bundle) not in (None, "CPU")
        choice = choose(self.bundle, "CPU" if self._started_safely else device, precision, hint)
        if threads is not None and choice.on_cpu:
            choice = replace(choice, properties={**choice.properties, **free_threads(threads)})
        self.engine = Engine(self.bundle, choice)
        self.limits, self.window, self.careful, self.always, self._faces = limits, window, careful, always, faces
        framed = self.bundle.contract.framing is Framing.DETECTED
        finder = self._face_detector() if framed or faces == "tiled" else None
        self.scorer = self._scorer(finder, finder)

    @property
    def notice(self) -> str | None:
        """What must be shown with every verdict: that the model is a demonstration; else None."""
        return DEMO_NOTICE if self.bundle.contract.demo else None

    @property
    def faces(self) -> FaceFinder | None:
        """The face detector for still pictures; None if the whole picture is the face."""
        return self.scorer.still_faces

    def tune(self, *, again: bool = False, measure: bool = True) -> None:
        """Find the fastest device and precision at the first start on this machine; with `again`, at a later one too.

        Nothing is measured if one was chosen, if there is only the CPU, or without `measure` unless `again`. A systemd
        service does this while it works.

        Raises:
            UsageError: `again`, although a device or precision was chosen.
        """
        if self._left_open:
            from edge_runtime.inference.tuning import tune_at_first_start

            options = {"again": again, "measure": measure, "started_safely": self._started_safely}
            tune_at_first_start(self.engine, **options)
        elif again:
            raise UsageError("--tune-again finds device and precision by itself; remove --device and --precision")

    def advice(self, sources: Sequence[Source]) -> str | None:
        """Return a notice if still pictures are judged as whole faces although the user did not ask for that, else
        None.
        """
        whole = self._faces == "auto" and self.faces is None and any(source.still for source in sources)
        return WHOLE_PICTURES if whole else None

    @property
    def choice(self) -> Choice:
        """The device and precision in use."""
        return self.engine.choice

    def moving_faces(self) -> FaceFinder | None:
        """Return the face detector for video, loaded at the first call; None if `faces` is `off`.

        Raises:
            BundleError: the bundle has no face model.
        """
        if self.scorer.moving_faces is None:
            self.scorer = self._scorer(self.faces, self._face_detector())
        return self.scorer.moving_faces

    def _scorer(self, still_faces: FaceFinder | None, moving_faces: FaceFinder | None) -> FrameScorer:
        found = {"still_faces": still_faces, "moving_faces": moving_faces}
        return FrameScorer(self.engine, **found, limits=self.limits, careful=self.careful)

    def _face_detector(self) -> FaceFinder | None:
        if self._faces == "off":
            return None
        from edge_runtime.inference.faces import FACE_MODEL, FaceDetector

        if FACE_MODEL not in self.bundle.manifest.files:
            # Taking the whole picture instead would judge an empty room as a face.
            raise BundleError(
                f"{self.bundle.path}: holds no face model; export it again with --face-model, "
                "or give --faces off, which takes the whole picture as the face"
            )
        properties: dict[str, Any] = {**cache_properties(), "PERFORMANCE_HINT": "THROUGHPUT"}
        if self._threads is not None:
            properties |= free_threads(self._threads)
        return FaceDetector(self.bundle.file(FACE_MODEL), tiled=self._faces == "tiled", properties=properties)

    def detect(self, image: Picture) -> FrameResult:
        """Judge one picture: a path, the bytes of a file, a Pillow image, or RGB as uint8 [H, W, 3].

        Raises:
            PictureError: it can't be read.
        """
        name = str(image) if isinstance(image, (str, Path)) else "picture"
        says = functools.partial(picture_provenance, image) if isinstance(image, (str, Path, bytes)) else None
        frame = Frame(name, 0, lambda: as_picture(image), still=True, provenance=says)
        result = Verdicts(self.bundle.contract, limits=self.limits).of_frame(self.scorer(frame))
        if result.error is not None:
            raise PictureError(result.error)
        return result

    def watch(self, *sources: str | Path | Source, options: SourceOptions = DEFAULT_OPTIONS) -> Iterator[FrameResult]:
        """Yield a result for every frame of `sources`: paths, addresses, device files, or opened sources.

        Raises:
            SourceError: none of them can be opened.
        """
        names = [str(source) for source in sources if isinstance(source, (str, Path))]
        opened = [source for source in sources if not isinstance(source, (str, Path))]
        pipeline = self.pipeline([*open_sources(names, options), *opened])
        yield from (judged.result for judged in pipeline.results())

    def pipeline(self, sources: Sequence[Source], numbers: TrackNumbers | None = None) -> Pipeline:
        """Return a pipeline over opened `sources`, to get the pictures too or to stop it from another thread.

        Tracks get the next `numbers` of their source; None begins with 1.

        Raises:
            BundleError: faces must be found in video, and the bundle has no face model.
        """
        live = sum(source.live for source in sources)
        cores = 0 if self.choice.on_cpu else len(os.sched_getaffinity(0))
        # While a GPU computes, each core works on a further frame; of a live source only one, because waiting frames go
        # stale.
        ahead = min(cores, 1) if live else max(cores, 2)
        workers = self.engine.parallel + ahead
        if live and not self.always:
            # Of each live source, one frame is looked at while another waits for the device.
            workers = max(2 * live, self.engine.parallel if live < len(sources) else 0)
        return Pipeline(sources, *self.judges(sources, numbers), workers=workers)

    def judges(
        self, sources: Sequence[Source], numbers: TrackNumbers | None = None
    ) -> tuple[Callable[[Frame], ScoredFrame], Verdicts]:
        """Return what a pipeline over opened `sources` judges with; detectors that follow each other share `numbers`.

        Raises:
            BundleError: faces must be found in video, and the bundle has no face model.
        """
        if not all(source.still for source in sources):
            self.moving_faces()
        score: Callable[[Frame], ScoredFrame] = self.scorer
        if any(source.live for source in sources) and not self.always:
            from edge_runtime.judging.live import LiveScorer

            score = LiveScorer(self.scorer, window=self.window, numbers=numbers)
        return score, Verdicts(self.bundle.contract, window=self.window, limits=self.limits, numbers=numbers)

    @property
    def title(self) -> str:
        """The model, its precision and its device in a few words."""
        contract, choice = self.bundle.contract, self.choice
        return f"{contract.architecture} {contract.version}, {choice.precision.value} on {choice.device}"


def renew(load: Callable[[], Detector], use: Callable[[Detector], None]) -> Bundle | None:
    """Load a detector, `use` it instead of the one before, and return its bundle.

    If it can't be loaded, or fails its golden pictures, nothing changes, a line in the log says why, and None is
    returned.
    """
    try:
        detector = load()
        use(detector)
    except (EdgeError, OSError, RuntimeError) as error:
        log.warning(f"the new bundle is refused, the old one stays in use: {error}")
        return None
    log.info(f"now judging with {detector.title}, detector: {detector.bundle.origin}")
    return detector.bundle


def as_picture(image: Picture) -> Image.Image:
    """Return any kind of picture as RGB.

    Raises:
        PictureError: it can't be read, or has the wrong shape or type.
    """
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise PictureError(f"an array of {image.dtype} {image.shape} is not a picture; give RGB as uint8 [H, W, 3]")
        return Image.fromarray(image)
    return read_picture(image)
