"""The first start, with a stand-in GPU that computes on the CPU: as fast, slow or broken as a test wants it."""

import json
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from helpers.golden import add_true_golden
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from edge_runtime import detector as detectors
from edge_runtime.cli import edge_detect
from edge_runtime.command import command_app
from edge_runtime.errors import DeviceError
from edge_runtime.inference import attempts, tuning
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.engine import Choice, Engine, choose
from edge_runtime.inference.tuning import Trial, choose_device, tune, tune_at_first_start
from edge_runtime.model import check
from edge_runtime.model import profile as profiles
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.model.profile import ProfileState, find_profile, new_profile, write_profile
from edge_runtime.web.app import create_app
from edge_runtime.web.settings import Settings

DEVICES = ["CPU", "GPU"]
SAFE, FAST = Choice("CPU", Precision.INT8), Choice("GPU", Precision.FP16)
PIXELS = np.zeros((1, 32, 32, 3), np.uint8)

STAND_IN = """
import os, sys, time
from edge_runtime.errors import DeviceError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.tuning import work

class StandIn(Classifier):
    def __init__(self, path, contract, *, device, **options):
        super().__init__(path, contract, device="CPU", **options)
        self.device, self.path = device, path

    def logits(self, pixels):
        device = getattr(self, "device", None)
        time.sleep(0.01 if device == "CPU" else 0.0)
        if device == "GPU":
            {gpu}
        return super().logits(pixels)

work(StandIn, seconds=0.2)
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Sets the code that the stand-in GPU executes before it answers."""

    def set_gpu(gpu: str = "pass") -> None:
        monkeypatch.setattr(tuning, "WORKER", STAND_IN.format(gpu=gpu))

    set_gpu()
    monkeypatch.setattr(tuning, "devices_here", lambda: DEVICES)
    return set_gpu


def on_cpu(path, contract, *, device, **options):
    return Classifier(path, contract, device="CPU", **options)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_bundle) -> Bundle:
    """A bundle in two precisions with a golden picture."""
    return add_true_golden(make_bundle(tmp_path_factory.mktemp("tuning") / "detector", ("fp16", "int8")))


@pytest.fixture
def engine(bundle) -> Engine:
    return Engine(bundle, SAFE, build=on_cpu)


def test_first_start_finds_the_fastest_and_keeps_it(engine, stand_in, caplog):
    stand_in("time.sleep(0.1 if 'int8' in str(self.path) else 0)")
    with caplog.at_level(logging.INFO, "edge_runtime"):
        tune(engine)
        assert engine.answer(PIXELS).choice == FAST
        assert sum("fastest" in record.message for record in caplog.records) == 1
        # The second start measures nothing.
        stand_in("raise DeviceError('lost')")
        tune(engine)
    assert choose(engine.bundle) == FAST
    assert len([record for record in caplog.records if "measuring" in record.message]) == 1
    tune(engine, again=True, measure=False)
    assert choose(engine.bundle).device == engine.choice.device == "CPU"


def test_installation_measures_and_keeps_the_fastest(bundle, stand_in, monkeypatch, capsys):
    stand_in("time.sleep(0.1 if 'int8' in str(self.path) else 0)")
    monkeypatch.setattr(check, "devices_here", lambda: list(DEVICES))
    assert check.check(str(bundle.path), measure=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fastest"].startswith("FP16 on GPU (")
    assert find_profile(bundle).line.startswith(found["fastest"])
    monkeypatch.setattr(check, "devices_here", lambda: ["CPU"])
    check.check(str(bundle.path), measure=True)
    assert json.loads(capsys.readouterr().out)["fastest"] == "CPU, the only device that OpenVINO finds"


def test_ties_go_to_the_more_accurate_precision(bundle, monkeypatch):
    trials = [
        Trial("CPU", Precision.INT8, 100.0),
        Trial("CPU", Precision.FP16, 98.0),
        Trial("CPU", Precision.FP32, 90.0),
    ]
    monkeypatch.setattr(tuning, "try_apart", lambda *_: trials)
    found = choose_device(bundle, ["CPU"])
    assert (found.precision, found.fps) == (Precision.FP16, 98.0)


@pytest.mark.parametrize(
    "gpu",
    [
        "return super().logits(pixels) + 1.0",
        "raise DeviceError('out of resources')",
        "os.abort()",
        pytest.param("time.sleep(600)", marks=pytest.mark.slow),
    ],
)
def test_broken_device_is_given_up_until_its_driver_changes(engine, stand_in, monkeypatch, gpu):
    monkeypatch.setattr(tuning, "TRIAL_TIMEOUT_S", 10.0)
    stand_in(gpu)
    tune(engine)
    found = find_profile(engine.bundle)
    assert (found.state, found.profile.device) == (ProfileState.IN_FORCE, "CPU")
    assert list(found.profile.given_up) == ["GPU"]
    assert engine.answer(PIXELS).choice.device == "CPU"
    monkeypatch.setattr(profiles, "driver_packages", lambda: ["intel-opencl-icd 99"])
    assert find_profile(engine.bundle).state is ProfileState.UNUSABLE


def test_device_that_takes_the_machine_down_is_given_up(engine, stand_in, monkeypatch):
    """Three starts end while the GPU is tried; the fourth leaves it alone, and only --tune-again tries it again."""
    try_apart, tried = tuning.try_apart, []

    def power_cut(bundle, device):
        tried.append(device)
        if device == "GPU":
            raise SystemExit
        return try_apart(bundle, device)

    monkeypatch.setattr(tuning, "try_apart", power_cut)
    for _ in range(tuning.MOST_ATTEMPTS):
        with pytest.raises(SystemExit):
            tune(engine)
    tune(engine)
    assert tried.count("GPU") == tuning.MOST_ATTEMPTS
    assert list(find_profile(engine.bundle).profile.given_up) == ["GPU"]
    # Nor is it tried for another bundle.
    profiles.profile_path().unlink()
    tune(engine)
    assert tried.count("GPU") == tuning.MOST_ATTEMPTS
    assert list(find_profile(engine.bundle).profile.given_up) == ["GPU"]
    monkeypatch.setattr(tuning, "try_apart", try_apart)
    tune(engine, again=True)
    assert engine.choice.device == "GPU"


def test_disk_that_keeps_nothing_is_not_measured_for(engine, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tuning, "devices_here", lambda: DEVICES)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(tuning, "choose_device", lambda *_: pytest.fail("measured"))
    with caplog.at_level(logging.INFO, "edge_runtime"):
        tune(engine)
    assert str(tmp_path / "file") in caplog.records[-1].message
    assert engine.choice == SAFE


def test_one_device_is_not_measured(engine, tmp_path, monkeypatch, caplog):
    """Without a GPU's device file, OpenVINO isn't even asked; a file alone, such as another maker's, is no GPU."""
    started = []
    run_apart = tuning._run_apart
    monkeypatch.setattr(tuning, "_run_apart", lambda code, *a, **b: started.append(code) or run_apart(code, *a, **b))
    monkeypatch.setattr(tuning, "DEV", tmp_path)
    with caplog.at_level(logging.INFO, "edge_runtime"):
        tune_at_first_start(engine)
        assert (engine.choice, started) == (SAFE, [])
        (tmp_path / "dri").mkdir()
        (tmp_path / "dri" / "renderD128").touch()
        tune_at_first_start(engine)
    assert (engine.choice, started, caplog.records) == (SAFE, [tuning.LISTER], [])


@pytest.mark.parametrize("lister", ["import time; time.sleep(600)", "import os; os.abort()"])
def test_driver_that_hangs_when_it_is_loaded_delays_no_service(engine, tmp_path, monkeypatch, lister):
    """It is given up like one that hangs later, and from then on never loaded."""
    monkeypatch.setattr(tuning, "WORKER", STAND_IN.format(gpu="os.abort()"))
    monkeypatch.setattr(tuning, "LISTER", lister)
    monkeypatch.setattr(tuning, "LISTING_TIMEOUT_S", 2.0)
    monkeypatch.setattr(tuning, "DEV", tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()
    began = time.monotonic()
    tune_at_first_start(engine)
    assert time.monotonic() - began < 1.5
    wait_until(lambda: find_profile(engine.bundle).profile)

    class Driver:
        available_devices = property(lambda self: pytest.fail("loaded"))

        def get_property(self, device, name):
            return openvino_core().get_property(device, name)

    found = find_profile(engine.bundle, Driver())
    assert (found.profile.device, list(found.profile.given_up)) == ("CPU", ["GPU"])


@pytest.mark.parametrize("service", [True, False])
def test_service_judges_while_it_measures(engine, stand_in, monkeypatch, service):
    """A service starts on the safe choice and switches later; a command measures first."""
    if service:
        monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    seen = []
    tune_at_first_start(engine)
    end = time.monotonic() + 60
    while "GPU" not in seen and time.monotonic() < end:
        seen.append(engine.answer(PIXELS).choice.device)
    assert seen[0] == ("CPU" if service else "GPU")
    assert seen[-1] == "GPU"


SERVICE = """
import os, sys, time
import numpy as np
from edge_runtime import Detector, detector
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.engine import Engine

class StandIn(Classifier):
    def __init__(self, path, contract, *, device, **options):
        if device == "GPU":
            {driver}
        super().__init__(path, contract, device="CPU", **options)
        self.device = device

    def logits(self, pixels):
        if getattr(self, "device", None) == "GPU" and judging:
            {answer}
        return super().logits(pixels)

judging = False
detector.Engine = lambda bundle, choice: Engine(bundle, choice, build=StandIn)
started = Detector(sys.argv[1], faces="off", safe_start=True)
started.tune(measure=False)
print(started.choice.device, flush=True)
for _ in range(100):
    time.sleep(0.02)
    if started.choice.device == "GPU":
        break
print(started.choice.device)
judging = True
started.engine.answer(np.zeros((1, 32, 32, 3), np.uint8))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "answer", "printed"),
    [
        ("time.sleep(0.5)", "pass", [["CPU", "GPU"]] * 4),
        ("time.sleep(600)", "pass", [["CPU", "CPU"]] * 5),
        # It crashes the process as soon as it is loaded, or soon after, until it is given up.
        ("os._exit(139)", "pass", [None] * 3 + [["CPU", "CPU"]] * 2),
        ("pass", "os._exit(139)", [None] * 3 + [["CPU", "CPU"]] * 2),
    ],
    ids=["good", "hangs", "crashes", "crashes later"],
)
def test_service_whose_profile_names_a_gpu_starts_without_it(bundle, monkeypatch, driver, answer, printed):
    write_profile(new_profile(bundle, "GPU", Precision.FP16, hint="THROUGHPUT", streams=0, fps=9.0, auc=None))
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    command = [sys.executable, "-c", SERVICE.format(driver=driver, answer=answer), str(bundle.path)]
    for words in printed:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.stdout.split() if done.returncode == 0 else None) == words, done.stderr
    assert ("GPU is left out" in done.stderr) == (printed[-1] == ["CPU", "CPU"])


def test_a_start_is_forgotten_once_the_gpu_has_settled(bundle, monkeypatch):
    """A reload before that is no further start."""
    monkeypatch.setattr(attempts, "SETTLED_S", 2.0)
    write_profile(new_profile(bundle, "GPU", Precision.FP16, hint="THROUGHPUT", streams=0, fps=9.0, auc=None))
    engines = [Engine(bundle, SAFE, build=on_cpu) for _ in range(2)]
    for engine in engines:
        tune(engine, measure=False, started_safely=True)
        assert engine.choice == FAST
        assert list(json.loads(attempts.attempts_path().read_text()).values()) == [1]
    wait_until(lambda: json.loads(attempts.attempts_path().read_text()) == {})


def test_a_web_service_that_is_stopped_has_ended_cleanly(bundle):
    """Signals end uvicorn's process before atexit."""
    write_profile(new_profile(bundle, "GPU", Precision.FP16, hint="THROUGHPUT", streams=0, fps=9.0, auc=None))
    detector = detectors.Detector(bundle, device="CPU", faces="off")
    with TestClient(create_app(detector, Settings())):
        tune(Engine(bundle, SAFE, build=on_cpu), measure=False, started_safely=True)
        assert list(json.loads(attempts.attempts_path().read_text()).values()) == [1]
    assert json.loads(attempts.attempts_path().read_text()) == {}


def test_a_gpu_that_hangs_never_settles(bundle, monkeypatch):
    engine, hangs = Engine(bundle, SAFE, build=on_cpu), threading.Event()
    monkeypatch.setattr(attempts, "SETTLED_S", 0.1)
    monkeypatch.setattr(engine, "answer", lambda pixels: hangs.wait(30))
    write_profile(new_profile(bundle, "GPU", Precision.FP16, hint="THROUGHPUT", streams=0, fps=9.0, auc=None))
    tune(engine, measure=False, started_safely=True)
    time.sleep(0.5)
    assert list(json.loads(attempts.attempts_path().read_text()).values()) == [1]
    hangs.set()
    wait_until(lambda: json.loads(attempts.attempts_path().read_text()) == {})


@pytest.mark.parametrize("safe", [False, True])
def test_gpu_that_fails_is_started_once(bundle, monkeypatch, caplog, safe):
    """A command starts it at once, a service later."""
    started = []

    def build(path, contract, *, device, **options):
        started.append(device)
        if device == "GPU":
            raise DeviceError("out of resources")
        return on_cpu(path, contract, device=device, **options)

    write_profile(new_profile(bundle, "GPU", Precision.FP16, hint="THROUGHPUT", streams=0, fps=9.0, auc=None))
    monkeypatch.setattr(detectors, "Engine", lambda bundle, choice: Engine(bundle, choice, build=build))
    detector = detectors.Detector(bundle, faces="off", safe_start=safe)
    detector.tune(measure=False)
    assert (started.count("GPU"), detector.choice.device) == (1, "CPU")
    assert caplog.text.count("out of resources") == 1


@pytest.mark.parametrize(
    ("words", "measured"),
    [
        ((), [(True, False)]),
        (("--tune-again",), [(True, True)]),
        (("--no-tune",), [(False, False)]),
        (("--device", "CPU"), []),
        (("--precision", "int8"), []),
        (("--tune-again", "--device", "CPU"), None),
    ],
)
def test_options_say_whether_to_measure(bundle, tmp_path, monkeypatch, words, measured):
    calls = []
    monkeypatch.setattr(
        tuning, "tune_at_first_start", lambda engine, *, again, measure, **_: calls.append((measure, again))
    )
    Image.new("RGB", (64, 64), (200, 80, 40)).save(tmp_path / "face.png")
    command = [str(tmp_path / "face.png"), "--model", str(bundle.path), *words]
    done = CliRunner().invoke(command_app(edge_detect), command)
    assert (done.exit_code, calls) == ((2, []) if measured is None else (0, measured))


def test_worker_leaves_with_its_parent(bundle, tmp_path):
    """A command that is killed while it measures leaves no process behind that holds the device."""
    began = tmp_path / "began"
    worker = f"""
import os, pathlib, time
from edge_runtime.inference import tuning
def hang(path):
    pathlib.Path({str(began)!r}).write_text(str(os.getpid()))
    time.sleep(600)
tuning.Bundle.open = hang
tuning.work()
"""
    parent = f"""
from edge_runtime.inference import tuning
from edge_runtime.model.bundle import Bundle
tuning.WORKER = {worker!r}
tuning.try_apart(Bundle.open({str(bundle.path)!r}), "GPU")
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        wait_until(lambda: began.is_file() and began.read_text())
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not psutil.pid_exists(int(began.read_text())))


def wait_until(happened) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
