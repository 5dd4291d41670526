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
from train.evaluation.metrics import auc
from train.learning.recipes import PRESETS
from train.learning.trainer import Trainer
from train.sample_faces import camera, draw_scene, generator, make_clip, make_samples, sample_face
from train.sample_faces.files import DETAIL_STEPS

PAIRS, SIZE = 80, 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """The samples' folder, and what was handed to the camera and to the generator for them, in turn."""
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
    # The generator is tried several times on each face, until its file is as long as the camera's.
    pairs = zip(handed["camera"], handed["generator"][::DETAIL_STEPS], strict=True)
    return folder, [picture for pair in pairs for picture in pair]


@pytest.fixture(scope="module")
def samples(made) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def files(samples: Path) -> list[Path]:
    """Real and fake of the same drawn face side by side."""
    return [samples / kind / f"{index:05d}.jpg" for index in range(PAIRS) for kind in ("real", "fake")]


LABELS = np.tile([0, 1], PAIRS)
FACES = np.repeat(np.arange(PAIRS), 2)


def separability(features: np.ndarray, labels: np.ndarray = LABELS) -> float:
    """AUC of a linear model on faces that it has not seen, in either class."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    scores = cross_val_predict(model, features, labels, groups=FACES, cv=GroupKFold(5), method="decision_function")
    return float(roc_auc_score(labels, scores))


def chance_within() -> float:
    """Three standard deviations of an AUC that is 0.5 by chance (Hanley and McNeil 1982), for so many pictures."""
    return 3.0 * float(np.sqrt((2 * PAIRS + 1) / (12.0 * PAIRS * PAIRS)))


def spectrum(picture: Image.Image) -> np.ndarray:
    """Log power of the grey picture in 12×12 bands of frequency."""
    grey = np.asarray(picture.convert("L"), np.float32)
    power = np.log(np.abs(np.fft.rfft2(grey - cv2.GaussianBlur(grey, (0, 0), 1.5))) + 1.0)
    return cv2.resize(power[: SIZE // 2, : SIZE // 2], (12, 12), interpolation=cv2.INTER_AREA).ravel()


def metadata(path: Path) -> list[float]:
    with Image.open(path) as picture:
        tables = [value for table in picture.quantization.values() for value in table]
        return [path.stat().st_size / (picture.width * picture.height), *picture.size, *tables]


def test_what_the_two_ways_left_in_the_pictures_tells_them_apart(files):
    assert separability(np.array([spectrum(Image.open(path)) for path in files])) >= 0.9


def test_shuffled_labels_can_t_be_learnt(files):
    features, random = np.array([spectrum(Image.open(path)) for path in files]), np.random.default_rng(0)
    shuffled = [separability(features, random.permutation(LABELS)) for _ in range(8)]
    assert abs(np.mean(shuffled) - 0.5) < chance_within()


RECIPE = replace(PRESETS["demo"], input_size=64, epochs=9, batch=16)


def learnt(catalog: Catalog, out: Path) -> float:
    """AUC of a network that learns by the demo's recipe, on the test split."""
    run = Trainer(catalog, "resnet18", RECIPE, out, workers=0, precision="no", device="cpu")
    run.run()
    test = catalog.split("test")
    return auc([face.label for face in test], fake_scores(run.judge(run._judged(), test)))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Samples that a small network learns in half a minute."""
    folder = tmp_path_factory.mktemp("few")
    make_samples(folder, 150, size=64)
    return load_data(folder, split="60/8/32")


@pytest.mark.slow
def test_the_demos_recipe_learns_the_samples(few, tmp_path):
    assert learnt(few, tmp_path) >= 0.9


@pytest.mark.slow
def test_the_demos_recipe_learns_nothing_from_shuffled_labels(few, tmp_path):
    labels = np.random.default_rng(0).permutation([face.label for face in few.records])
    faces = (replace(face, label=int(label)) for face, label in zip(few.records, labels, strict=True))
    assert 0.35 <= learnt(Catalog(tuple(faces)), tmp_path) <= 0.65


def test_metadata_alone_tells_nothing(files):
    assert abs(separability(np.array([metadata(path) for path in files])) - 0.5) < chance_within()


def test_files_of_a_pair_are_of_about_the_same_length(files):
    lengths = np.array([path.stat().st_size for path in files]).reshape(-1, 2)
    assert np.abs(lengths[:, 1] / lengths[:, 0] - 1.0).mean() < 0.03
    assert 0.3 < (lengths[:, 1] > lengths[:, 0]).mean() < 0.7


def test_what_is_handed_to_the_camera_and_to_the_generator_tells_nothing(made):
    drawn = np.array([spectrum(Image.fromarray(picture)) for picture in made[1]])
    assert abs(separability(drawn) - 0.5) < chance_within()


def test_thumbnails_tell_nothing(files):
    thumbnails = [np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BOX)).ravel() for path in files]
    assert abs(separability(np.array(thumbnails)) - 0.5) < chance_within()


def test_a_pair_is_one_drawn_face_seen_twice(files):
    blurred = [
        np.asarray(Image.open(path).convert("L").resize((16, 16), Image.Resampling.BOX), float) for path in files
    ]
    pairs = [
        np.corrcoef(real.ravel(), fake.ravel())[0, 1] for real, fake in zip(blurred[::2], blurred[1::2], strict=True)
    ]
    assert min(pairs) > 0.95


def test_all_samples_have_one_format(files):
    with_format = {(p.format, p.size, p.mode, str(p.quantization)) for p in map(Image.open, files)}
    assert len(with_format) == 1
    assert not any(Image.open(path).getexif() for path in files)


def test_a_seed_gives_the_same_faces_again_and_another_seed_others(samples, tmp_path):
    make_samples(tmp_path / "again", 2, size=SIZE)
    make_samples(tmp_path / "other", 2, size=SIZE, seed=7)
    for kind in ("real", "fake"):
        name = f"{kind}/00001.jpg"
        assert (tmp_path / "again" / name).read_bytes() == (samples / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (samples / name).read_bytes()


def test_processes_draw_the_same_faces(samples, tmp_path):
    made = make_samples(tmp_path, 3, size=SIZE, workers=2)
    for path in made:
        assert path.read_bytes() == (samples / path.parent.name / path.name).read_bytes()


def test_a_folder_that_processes_can_t_write_is_named(tmp_path):
    (tmp_path / "real" / "00000.part").mkdir(parents=True)
    with pytest.raises(DataError, match=r"can't be written there \(Is a directory\)"):
        make_samples(tmp_path, 2, size=64, workers=2)


def test_samples_that_are_there_are_left_as_they_are(tmp_path):
    first = make_samples(tmp_path, 1, size=64)
    stamps = [path.stat().st_mtime_ns for path in first]
    seen: list[int] = []
    both = make_samples(tmp_path, 2, size=64, progress=seen.append)
    assert [path.stat().st_mtime_ns for path in both[:2]] == stamps
    assert len(both) == 4
    assert sum(seen) == 2


@pytest.mark.parametrize("size", [31, 65, 16])
def test_a_size_that_can_t_be_made_is_refused(tmp_path, size):
    with pytest.raises(UsageError, match=f"{size} pixels"):
        make_samples(tmp_path, 1, size=size)


def test_a_folder_that_can_t_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="file"):
        make_samples(tmp_path / "file", 1, size=64)


def test_a_sample_face_is_what_its_file_would_hold():
    face = sample_face(5, "fake", 64)
    assert face.size == (64, 64)
    assert face.mode == "RGB"


def test_the_camera_leaves_noise_where_the_generator_leaves_none():
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert camera(flat, np.random.default_rng(0)).std() > 1.0
    made = generator(flat, np.random.default_rng(0), detail=0.0)
    assert made[::2, ::2].std() == 0.0


def test_the_generator_leaves_traces_that_repeat_every_two_pixels():
    made = generator(np.full((64, 64, 3), 128, np.uint8), np.random.default_rng(0), detail=0.0).astype(float)
    means = [made[down::2, across::2].mean() for down in (0, 1) for across in (0, 1)]
    assert 1.0 <= np.ptp(means) < 3.0


def test_several_people_are_drawn_side_by_side():
    picture, people = draw_scene(5, 640, 360, people=3)
    assert picture.shape == (360, 640, 3)
    lefts = [person.box[0] for person in people]
    assert lefts == sorted(lefts)
    assert all(0 <= person.box[1] < person.box[3] <= 360 for person in people)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_clip_can_be_read_frame_by_frame(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}", seconds=0.4, fps=10, size=(160, 120))
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 4
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5


def test_a_clip_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.mp4 or \.avi"):
        make_clip(tmp_path / "clip.webm")
