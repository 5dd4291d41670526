from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_runtime.errors import DataError, UsageError
from edge_runtime.judging.decide import fake_scores
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.logits import checkpoint_logits
from train.evaluation.metrics import auc
from train.learning.recipes import PRESETS
from train.learning.trainer import Trainer
from train.sample_faces import camera, draw_scene, generator, make_clip, make_samples, sample_face
from train.sample_faces.files import DETAIL_STEPS

PAIRS, SIZE = 80, 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """The samples' folder, and the pictures given to the camera and to the generator, in turn."""
    folder, handed = tmp_path_factory.mktemp("samples"), {"camera": [], "generator": []}

    def watch(name, step):
        def watched(picture, *given):
            handed[name].append(picture.copy())
            return step(picture, *given)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for name, step in (("camera", camera), ("generator", generator)):
            patch.setattr(f"train.sample_faces.files.{name}", watch(name, step))
        make_samples(folder, PAIRS, size=SIZE)
    # The generator is run several times on each face, to match the length of the camera's file.
    pairs = zip(handed["camera"], handed["generator"][::DETAIL_STEPS], strict=True)
    return folder, [picture for pair in pairs for picture in pair]


@pytest.fixture(scope="module")
def samples(made) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def files(samples: Path) -> list[Path]:
    """Real and fake pictures of the same drawn face in turn."""
    return [samples / kind / f"{index:05d}.jpg" for index in range(PAIRS) for kind in ("real", "fake")]


LABELS = np.tile([0, 1], PAIRS)
FACES = np.repeat(np.arange(PAIRS), 2)


def separability(features: np.ndarray, labels: np.ndarray = LABELS) -> float:
    """AUC of a linear model, cross-validated by drawn faces."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    scores = cross_val_predict(model, features, labels, groups=FACES, cv=GroupKFold(5), method="decision_function")
    return float(roc_auc_score(labels, scores))


def chance_within() -> float:
    """Three standard deviations of the AUC of random scores (Hanley and McNeil 1982)."""
    return 3.0 * float(np.sqrt((2 * PAIRS + 1) / (12.0 * PAIRS * PAIRS)))


def spectrum(picture: Image.Image) -> np.ndarray:
    """Log power of the grey picture in 12×12 frequency bands."""
    grey = np.asarray(picture.convert("L"), np.float32)
    power = np.log(np.abs(np.fft.rfft2(grey - cv2.GaussianBlur(grey, (0, 0), 1.5))) + 1.0)
    return cv2.resize(power[: SIZE // 2, : SIZE // 2], (12, 12), interpolation=cv2.INTER_AREA).ravel()


def metadata(path: Path) -> list[float]:
    with Image.open(path) as picture:
        tables = [value for table in picture.quantization.values() for value in table]
        return [path.stat().st_size / (picture.width * picture.height), *picture.size, *tables]


def thumbnail(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BOX)).ravel()


def test_spectra_tell_the_classes_apart(files):
    features, random = np.array([spectrum(Image.open(path)) for path in files]), np.random.default_rng(0)
    assert separability(features) >= 0.9
    shuffled = [separability(features, random.permutation(LABELS)) for _ in range(8)]
    assert abs(np.mean(shuffled) - 0.5) < chance_within()


@pytest.mark.parametrize("features", [metadata, thumbnail])
def test_nothing_else_tells_them_apart(files, features):
    assert abs(separability(np.array([features(path) for path in files])) - 0.5) < chance_within()


def test_both_ways_start_from_alike_pictures(made):
    drawn = np.array([spectrum(Image.fromarray(picture)) for picture in made[1]])
    assert abs(separability(drawn) - 0.5) < chance_within()


def test_a_pair_differs_in_nothing_obvious(files):
    lengths = np.array([path.stat().st_size for path in files]).reshape(-1, 2)
    assert np.abs(lengths[:, 1] / lengths[:, 0] - 1.0).mean() < 0.03
    assert 0.3 < (lengths[:, 1] > lengths[:, 0]).mean() < 0.7
    small = [np.asarray(Image.open(path).convert("L").resize((16, 16), Image.Resampling.BOX), float) for path in files]
    pairs = zip(small[::2], small[1::2], strict=True)
    assert min(np.corrcoef(real.ravel(), fake.ravel())[0, 1] for real, fake in pairs) > 0.95
    with_format = {(p.format, p.size, p.mode, str(p.quantization)) for p in map(Image.open, files)}
    assert len(with_format) == 1
    assert not any(Image.open(path).getexif() for path in files)


RECIPE = replace(PRESETS["demo"], input_size=64, epochs=9, batch=16)


def learned_auc(catalog: Catalog, out: Path) -> float:
    """AUC on the test split of a network trained with the demo's recipe."""
    best = Trainer(catalog, "resnet18", RECIPE, out, workers=0, precision="no", device="cpu").run()
    test = catalog.split("test")
    return auc([face.label for face in test], fake_scores(checkpoint_logits(best, test)))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Samples that a small network learns in half a minute."""
    folder = tmp_path_factory.mktemp("few")
    make_samples(folder, 150, size=64)
    return load_data(folder, split="60/8/32")


@pytest.mark.slow
def test_the_demos_recipe_learns_the_samples(few, tmp_path):
    assert learned_auc(few, tmp_path) >= 0.9


@pytest.mark.slow
def test_shuffled_labels_are_not_learned(few, tmp_path):
    labels = np.random.default_rng(0).permutation([face.label for face in few.records])
    faces = (replace(face, label=int(label)) for face, label in zip(few.records, labels, strict=True))
    assert 0.35 <= learned_auc(Catalog(tuple(faces)), tmp_path) <= 0.65


def test_samples_depend_only_on_the_seed(samples, tmp_path):
    make_samples(tmp_path / "again", 2, size=SIZE, workers=2)
    make_samples(tmp_path / "other", 2, size=SIZE, seed=7)
    for name in ("real/00001.jpg", "fake/00001.jpg"):
        assert (tmp_path / "again" / name).read_bytes() == (samples / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (samples / name).read_bytes()


def test_existing_samples_are_kept(tmp_path):
    first = make_samples(tmp_path, 1, size=64)
    stamps = [path.stat().st_mtime_ns for path in first]
    seen: list[int] = []
    both = make_samples(tmp_path, 2, size=64, progress=seen.append)
    assert [path.stat().st_mtime_ns for path in both[:2]] == stamps
    assert len(both) == 4
    assert sum(seen) == 2


@pytest.mark.parametrize("size", [31, 65, 16])
def test_impossible_sizes_are_refused(tmp_path, size):
    with pytest.raises(UsageError, match=f"{size} pixels"):
        make_samples(tmp_path, 1, size=size)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unwritable_folder_is_named(tmp_path, workers):
    (tmp_path / "real" / ".00000.jpg.partial").mkdir(parents=True)
    with pytest.raises(DataError, match=r"can't be written to \(Is a directory\)"):
        make_samples(tmp_path, 2, size=64, workers=workers)


def test_a_sample_face_is_a_picture():
    face = sample_face(5, "fake", 64)
    assert (face.size, face.mode) == ((64, 64), "RGB")


def test_camera_noise_and_generator_traces_differ():
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert camera(flat, np.random.default_rng(0)).std() > 1.0
    made = generator(flat, np.random.default_rng(0), detail=0.0)
    assert made[::2, ::2].std() == 0.0
    means = [made.astype(float)[down::2, across::2].mean() for down in (0, 1) for across in (0, 1)]
    assert 1.0 <= np.ptp(means) < 3.0


def test_people_are_drawn_side_by_side():
    picture, people = draw_scene(5, 640, 360, people=3)
    assert picture.shape == (360, 640, 3)
    lefts = [person.box[0] for person in people]
    assert lefts == sorted(lefts)
    assert all(0 <= person.box[1] < person.box[3] <= 360 for person in people)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_clip_is_a_video(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}", seconds=0.4, fps=10, size=(160, 120))
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 4
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5
    with pytest.raises(UsageError, match=r"\.mp4 or \.avi"):
        make_clip(tmp_path / "clip.webm")
