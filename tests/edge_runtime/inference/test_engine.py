import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest
from helpers.golden import add_golden

from benchmarks.studies.small import write_small_bundle
from edge_runtime.errors import BundleError, DeviceError, MissingDeviceError, UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.engine import Choice, Engine, cache_properties, choose
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, Precision
from edge_runtime.model.golden import Golden
from edge_runtime.model.profile import new_profile, write_profile
from edge_runtime.pixels.preprocess import face_pixels

PIXELS = np.full((3, 32, 32, 3), 200, np.uint8)
GPU, CPU = Choice("GPU", Precision.FP16), Choice("CPU", Precision.INT8)


def answers_nan(pixels):
    return np.full((len(pixels), 2), np.nan, np.float32)


def failing(device, logits):
    """Make networks of which the second answer on `device` comes from `logits`; all devices are the CPU."""

    class Failing(Classifier):
        def __init__(self, path, contract, *, hint, **properties):
            super().__init__(path, contract, device="CPU", hint=hint)
            self.failing_now = False

        def logits(self, pixels):
            return logits(pixels) if getattr(self, "failing_now", False) else super().logits(pixels)

    networks = []

    def build(path, contract, *, device, **options):
        kind = Failing if device == broken else Classifier
        networks.append(kind(path, contract, device=device, **options))
        return networks[-1]

    broken = device
    return build, lambda: setattr(networks[-1], "failing_now", True)


@pytest.fixture
def two_faced(tmp_path, make_bundle):
    """A bundle whose FP16 and INT8 have thresholds of their own."""
    calibrations = {"fp16": Calibration(1.0, 0.4, 0.6, 0.5, True), "int8": Calibration(2.0, 0.1, 0.9, 0.5, True)}
    return Bundle.open(make_bundle(tmp_path / "detector", ("fp16", "int8"), calibrations=calibrations))


@pytest.mark.parametrize(("device", "precision"), [("AUTO", "int8"), ("CPU", "int8"), ("GPU", "fp16")])
def test_each_device_has_its_default_precision(two_faced, device, precision):
    choice = choose(two_faced, device)
    assert choice.precision.value == precision
    assert choice.on_cpu == (device != "GPU")


def test_a_missing_precision_is_refused(two_faced):
    with pytest.raises(UsageError, match=r"holds no fp32 \(it holds fp16, int8\)"):
        choose(two_faced, "CPU", "fp32")


def test_the_measured_profile_is_used(two_faced, caplog):
    path = write_profile(new_profile(two_faced, "CPU", Precision.FP16, hint="LATENCY", streams=1, fps=9.0, auc=None))
    choice = choose(two_faced)
    assert (choice.precision, choice.hint, choice.properties) == (Precision.FP16, "LATENCY", {"NUM_STREAMS": 1})
    assert choose(two_faced, "CPU").precision is Precision.INT8
    path.write_text("broken")
    with caplog.at_level(logging.WARNING, "edge_runtime"):
        assert choose(two_faced).precision is Precision.INT8
    assert str(path) in caplog.text


def test_a_gpu_that_fails_is_replaced_by_the_cpu(two_faced, caplog):
    def out_of_resources(pixels):
        raise DeviceError("CL_OUT_OF_RESOURCES")

    build, fail = failing("GPU", out_of_resources)
    engine = Engine(two_faced, GPU, build=build)
    before = engine.answer(PIXELS)
    assert (before.choice, before.calibration.low) == (GPU, 0.4)
    fail()
    with caplog.at_level(logging.WARNING, "edge_runtime"):
        after = engine.answer(PIXELS)
    assert (after.choice, after.calibration.low, engine.choice) == (CPU, 0.1, CPU)
    assert np.allclose(after.logits, before.logits, atol=1e-5)
    (record,) = caplog.records
    assert "CL_OUT_OF_RESOURCES" in record.getMessage()


def test_threads_replace_a_failed_gpu_once(two_faced, caplog):
    together = threading.Barrier(4)

    def fail_together(pixels):
        together.wait(30)
        raise DeviceError("CL_OUT_OF_RESOURCES")

    build, fail = failing("GPU", fail_together)
    engine = Engine(two_faced, GPU, build=build)
    fail()
    with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.WARNING, "edge_runtime"):
        answers = list(pool.map(engine.answer, [PIXELS] * 4))
    assert [answer.choice for answer in answers] == [CPU] * 4
    assert len(caplog.records) == 1


def test_nan_counts_as_a_failure(two_faced):
    build, fail = failing("GPU", answers_nan)
    engine = Engine(two_faced, GPU, build=build)
    fail()
    assert engine.answer(PIXELS).choice == CPU


def test_a_cpu_that_fails_is_an_error(two_faced):
    build, fail = failing("CPU", answers_nan)
    engine = Engine(two_faced, CPU, build=build)
    fail()
    with pytest.raises(DeviceError, match="NaN"):
        engine.answer(PIXELS)


def test_a_gpu_that_cannot_compile_is_replaced(two_faced, caplog):
    def build(path, contract, *, device, **options):
        if device == "GPU":
            raise DeviceError("GPU: can't run it")
        return Classifier(path, contract, device=device, **options)

    with caplog.at_level(logging.WARNING, "edge_runtime"):
        assert Engine(two_faced, GPU, build=build).choice == CPU
    assert len(caplog.records) == 1


def test_a_missing_device_is_refused(two_faced):
    with pytest.raises(MissingDeviceError, match=r"no device NPU \(devices here: .*CPU"):
        Engine(two_faced, Choice("NPU", Precision.FP16))


@pytest.mark.parametrize("answer", ["image", "three means", "as many as there are", "one of two inputs"])
def test_a_network_of_other_answers_is_refused(tmp_path, answer):
    given, other = (ov.opset13.parameter(shape, np.float32) for shape in ([1, 3, 32, 32], [1, 2]))
    answers = {
        "image": given,
        "three means": ov.opset13.reduce_mean(given, np.array([2, 3]), keep_dims=False),
        "as many as there are": ov.opset13.non_zero(given),
        "one of two inputs": other,
    }
    inputs = [given, other] if answer == "one of two inputs" else [given]
    path = write_small_bundle(tmp_path / "bundle", network=ov.Model([answers[answer]], inputs, "other"))
    with pytest.raises((BundleError, DeviceError), match=str(path)) as caught:
        Engine(Bundle.open(path), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_golden_pictures_are_checked_at_the_start(tmp_path, make_bundle, red, wrong):
    bundle = Bundle.open(make_bundle(tmp_path / "detector", ("int8",)))
    logits = Classifier(bundle.model("int8"), bundle.contract).logits(face_pixels(red, None, bundle.contract))
    answers, tolerances = {"native": (logits + wrong).tolist()}, {"CPU": 0.01, "GPU": 0.01}
    golden = Golden(["golden/a.png"], {"native": "here"}, {"int8": answers}, {"int8": tolerances})
    bundle = add_golden(bundle.path, golden, [red])
    if wrong:
        with pytest.raises(DeviceError, match="WRONG"):
            Engine(bundle, choose(bundle))
    else:
        assert Engine(bundle, choose(bundle)).choice == CPU


def test_a_changed_network_is_refused(tmp_path, make_bundle):
    path = make_bundle(tmp_path / "detector")
    with (path / "int8" / "model.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"int8/model.bin was changed"):
        Engine(Bundle.open(path), CPU)


def test_compiled_networks_are_cached(two_faced, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/service:{tmp_path}/other")
    logits = Engine(two_faced, CPU).logits(PIXELS)
    (blob,) = (tmp_path / "service").glob("*.blob")
    network = Classifier(two_faced.model("int8"), two_faced.contract, **cache_properties())
    assert network.compiled.get_property("LOADED_FROM_CACHE")
    blob.write_bytes(blob.read_bytes()[:1000])
    assert np.array_equal(Engine(two_faced, CPU).logits(PIXELS), logits)


def test_no_cache_is_used_where_none_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_properties() == {}


def test_many_faces_are_answered_in_order(two_faced):
    engine = Engine(two_faced, CPU)
    pixels = np.stack([np.full((32, 32, 3), (red, 120, 90), np.uint8) for red in range(0, 250, 5)])
    together = engine.logits(pixels)
    assert np.array_equal(together, np.concatenate([engine.logits(one[None]) for one in pixels]))
    assert (np.diff(together[:, 1]) > 0).all()
    assert engine.no_answer.logits.shape == (0, 2)


def test_threads_share_requests_without_a_deadlock(two_faced):
    engine = Engine(two_faced, CPU)
    pixels = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
    expected = engine.logits(pixels)
    with ThreadPoolExecutor(8) as pool:
        for logits in pool.map(lambda _: engine.logits(pixels), range(200)):
            assert np.array_equal(logits, expected)
