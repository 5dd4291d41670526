import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.errors import BundleError, DeviceError, MissingDeviceError, UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.engine import Choice, Engine, cache_folder, cache_properties, choose
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, Precision

PIXELS = np.full((3, 32, 32, 3), 200, np.uint8)


class FakeGpu:
    """Stands in for a GPU: computes as the CPU does, until told to fail."""

    built = 0

    def __init__(self, path, contract, *, device, hint, **properties):
        FakeGpu.built += 1
        self._real = Classifier(path, contract, device="CPU", hint=hint)
        self.requests, self.fails, self.device = 2, False, device

    def logits(self, pixels):
        if self.fails:
            raise DeviceError("CL_OUT_OF_RESOURCES")
        return self._real.logits(pixels)


def build(path, contract, *, device, **options):
    return (FakeGpu if device == "GPU" else Classifier)(path, contract, device=device, **options)


@pytest.fixture
def two_faced(tmp_path, make_bundle):
    """A bundle whose FP16 and INT8 have thresholds of their own."""
    calibrations = {"fp16": Calibration(1.0, 0.4, 0.6, 0.5, True), "int8": Calibration(2.0, 0.1, 0.9, 0.5, True)}
    return Bundle.open(make_bundle(tmp_path / "detector", ("fp16", "int8"), calibrations=calibrations))


@pytest.mark.parametrize(("device", "precision"), [("AUTO", "int8"), ("CPU", "int8"), ("GPU", "fp16")])
def test_without_a_profile_it_is_int8_on_the_cpu_and_fp16_on_a_gpu(two_faced, device, precision):
    choice = choose(two_faced, device)
    assert choice.precision.value == precision
    assert choice.device == ("GPU" if device == "GPU" else "CPU")


def test_a_precision_that_the_bundle_lacks_is_refused_with_those_it_has(two_faced):
    with pytest.raises(UsageError, match=r"holds no fp32 \(it holds fp16, int8\)"):
        choose(two_faced, "CPU", "fp32")


def test_the_measured_profile_is_taken_where_it_fits(two_faced):
    from edge_runtime.model.profile import new_profile, write_profile

    write_profile(new_profile(two_faced, "CPU", Precision.FP16, hint="LATENCY", streams=1, fps=9.0, auc=None))
    choice = choose(two_faced)
    assert (choice.precision, choice.hint, choice.properties) == (Precision.FP16, "LATENCY", {"NUM_STREAMS": 1})
    assert choose(two_faced, "CPU").precision is Precision.INT8


def test_a_gpu_that_fails_in_mid_run_is_replaced_by_the_cpu_with_its_network_and_thresholds(two_faced, caplog):
    engine = Engine(two_faced, Choice("GPU", Precision.FP16), build=build)
    before = engine.answer(PIXELS)
    assert (before.choice.device, before.calibration.low) == ("GPU", 0.4)
    engine._network.fails = True
    with caplog.at_level(logging.WARNING, "edge_runtime"):
        after = engine.answer(PIXELS)
    assert (after.choice.device, after.choice.precision, after.calibration.low) == ("CPU", Precision.INT8, 0.1)
    assert np.allclose(after.logits, before.logits, atol=1e-5)
    assert engine.choice.device == "CPU"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "GPU is given up (CL_OUT_OF_RESOURCES); int8 on the CPU goes on" in line


def test_many_threads_that_see_the_gpu_fail_replace_it_once(two_faced, caplog):
    engine = Engine(two_faced, Choice("GPU", Precision.FP16), build=build)
    together = threading.Barrier(4)

    def fail(pixels):
        together.wait(30)
        raise DeviceError("CL_OUT_OF_RESOURCES")

    engine._network.logits = fail

    def ask(_):
        return engine.answer(PIXELS).choice.device

    with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.WARNING, "edge_runtime"):
        assert list(pool.map(ask, range(4))) == ["CPU"] * 4
    assert len(caplog.records) == 1


def test_answers_that_are_no_numbers_count_as_a_failure(two_faced):
    engine = Engine(two_faced, Choice("GPU", Precision.FP16), build=build)
    engine._network.logits = lambda pixels: np.full((len(pixels), 2), np.nan, np.float32)
    assert engine.answer(PIXELS).choice.device == "CPU"


def test_a_cpu_that_fails_is_an_error(two_faced):
    engine = Engine(two_faced, Choice("CPU", Precision.INT8))
    engine._network.logits = lambda pixels: np.full((len(pixels), 2), np.nan, np.float32)
    with pytest.raises(DeviceError, match="no number"):
        engine.answer(PIXELS)


def test_a_gpu_that_can_not_compile_is_replaced_at_the_start(two_faced, caplog):
    def broken(path, contract, *, device, **options):
        if device == "GPU":
            raise DeviceError("GPU: can't run it")
        return Classifier(path, contract, device=device, **options)

    with caplog.at_level(logging.WARNING, "edge_runtime"):
        engine = Engine(two_faced, Choice("GPU", Precision.FP16), build=broken)
    assert engine.choice == Choice("CPU", Precision.INT8)
    assert "given up" in caplog.text


def test_a_device_that_is_not_there_is_refused_with_those_that_are(two_faced):
    with pytest.raises(MissingDeviceError, match=r"no device NPU \(devices here: .*CPU"):
        Engine(two_faced, Choice("NPU", Precision.FP16))


def golden_bundle(path, red, tolerance, wrong=0.0):
    """Add a golden picture to a bundle, whose known answer is off by `wrong`."""
    import hashlib
    import json

    from edge_runtime.model.golden import Golden
    from edge_runtime.pixels.preprocess import face_pixels

    bundle = Bundle.open(path)
    (path / "golden").mkdir()
    red.save(path / "golden" / "a.png")
    logits = Classifier(bundle.model("int8"), bundle.contract).logits(face_pixels(red, None, bundle.contract))
    answers = {"native": (logits + wrong).tolist()}
    tolerances = {"CPU": tolerance, "GPU": tolerance}
    golden = Golden(["golden/a.png"], {"native": "here"}, {"int8": answers}, {"int8": tolerances})
    (path / "golden" / "golden.json").write_text(golden.to_json())
    manifest = json.loads((path / "model.json").read_text())
    for name in ("golden/a.png", "golden/golden.json"):
        manifest["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    (path / "model.json").write_text(json.dumps(manifest))
    return Bundle.open(path)


def test_a_device_that_gives_the_golden_answers_is_taken(tmp_path, make_bundle, red):
    bundle = golden_bundle(make_bundle(tmp_path / "detector", ("int8",)), red, 0.01)
    assert Engine(bundle, choose(bundle)).choice.precision is Precision.INT8


def test_a_device_that_gives_wrong_answers_is_refused(tmp_path, make_bundle, red):
    bundle = golden_bundle(make_bundle(tmp_path / "detector", ("int8",)), red, 0.01, wrong=1.0)
    with pytest.raises(DeviceError, match="WRONG"):
        Engine(bundle, choose(bundle))


def test_a_changed_network_is_refused(tmp_path, make_bundle):
    path = make_bundle(tmp_path / "detector")
    with (path / "int8" / "model.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"int8/model.bin was changed"):
        Engine(Bundle.open(path), Choice("CPU", Precision.INT8))


def test_compiled_networks_are_kept_in_the_users_cache(two_faced, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Engine(two_faced, choose(two_faced))
    assert list((tmp_path / "cache" / "deepfake-edge").glob("*.blob"))
    engine = Engine(two_faced, choose(two_faced))
    assert engine._network.compiled.get_property("LOADED_FROM_CACHE")


def test_a_broken_cache_does_not_keep_it_from_starting(two_faced, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    logits = Engine(two_faced, choose(two_faced)).logits(PIXELS)
    for blob in (tmp_path / "cache" / "deepfake-edge").glob("*.blob"):
        blob.write_bytes(blob.read_bytes()[:1000])
    assert np.array_equal(Engine(two_faced, choose(two_faced)).logits(PIXELS), logits)


def test_a_service_keeps_its_cache_in_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/service:{tmp_path}/other")
    assert cache_folder() == tmp_path / "service"


def test_a_cache_that_can_not_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_properties() == {}


def test_more_faces_than_requests_are_answered_in_order(two_faced, picture_of_colour):
    engine = Engine(two_faced, choose(two_faced))
    pixels = np.stack([np.full((32, 32, 3), (red, 120, 90), np.uint8) for red in range(0, 250, 5)])
    together = engine.logits(pixels)
    alone = np.concatenate([engine.logits(one[None]) for one in pixels])
    assert np.array_equal(together, alone)
    assert (np.diff(together[:, 1]) > 0).all()


def test_many_threads_share_the_requests_without_waiting_in_a_circle(two_faced):
    engine = Engine(two_faced, choose(two_faced))
    pixels = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
    expected = engine.logits(pixels)
    with ThreadPoolExecutor(8) as pool:
        for logits in pool.map(lambda _: engine.logits(pixels), range(200)):
            assert np.array_equal(logits, expected)
