import dataclasses
import json
from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model import profile as module
from edge_runtime.model.bundle import Bundle, Manifest
from edge_runtime.model.contract import ModelContract, Precision
from edge_runtime.model.profile import (
    Hardware,
    Profile,
    ProfileState,
    driver_packages,
    find_profile,
    kept_device,
    new_profile,
    processor_name,
    profile_path,
    write_profile,
)


@pytest.fixture(scope="session")
def core():
    return openvino_core()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(module, "SERVICE_FOLDER", tmp_path / "service")
    return tmp_path


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(tmp_path / "detector")


def open_bundle(folder: Path, name: str = "detector") -> Bundle:
    folder.mkdir()
    files = {f"{precision}/model.xml": "0" * 64 for precision in ("fp32", "int8")}
    (folder / "model.json").write_text(Manifest(ModelContract("resnet50"), files, name=name).to_json())
    return Bundle.open(folder)


def tuned(bundle: Bundle, **changes: object) -> Profile:
    profile = new_profile(bundle, "CPU", Precision.INT8, hint="THROUGHPUT", streams=2, fps=91.5, auc=0.98)
    return dataclasses.replace(profile, **changes)


def unusable(bundle: Bundle, core) -> str:
    """Return why the profile in place can't be used."""
    found = find_profile(bundle, core)
    assert (found.state, found.profile) == (ProfileState.UNUSABLE, None)
    assert "\n" not in found.line
    return found.line


def test_there_may_be_no_profile(bundle, core):
    found = find_profile(bundle, core)
    assert (found.state, found.profile) == (ProfileState.MISSING, None)


def test_a_written_profile_is_in_force(bundle, core):
    path = write_profile(tuned(bundle))
    found = find_profile(bundle, core)
    assert (found.state, found.profile) == (ProfileState.IN_FORCE, tuned(bundle, made=found.profile.made))
    assert found.line.startswith("INT8 on CPU, 2 streams (91.5 FPS on 20")
    assert found.line.endswith(str(path))
    assert found.profile.properties() == {"NUM_STREAMS": 2}
    assert tuned(bundle, streams=0).properties() == {}


def test_another_bundles_profile_is_ignored(bundle, core, tmp_path):
    write_profile(tuned(open_bundle(tmp_path / "other", name="other")))
    assert "another bundle" in unusable(bundle, core)


def test_another_bundles_device_is_ignored(bundle, core, tmp_path):
    """The device must be that of the profile in force: a service starts without the GPU only if that one names it."""
    assert kept_device(bundle) is None
    write_profile(tuned(open_bundle(tmp_path / "other", name="other"), device="GPU"))
    assert kept_device(bundle) is None
    write_profile(tuned(bundle), module.SERVICE_FOLDER / module.PROFILE)
    assert kept_device(bundle) == find_profile(bundle, core).profile.device == "CPU"


@pytest.mark.parametrize("part", ["processor", "device", "driver", "isa"])
def test_another_machines_profile_is_ignored(bundle, core, part):
    made = tuned(bundle)
    write_profile(tuned(bundle, hardware=dataclasses.replace(made.hardware, **{part: "something else"})))
    assert f"{part}: something else, here {getattr(made.hardware, part)}" in unusable(bundle, core)


def test_a_missing_devices_profile_is_ignored(bundle, core):
    there = dataclasses.replace(tuned(bundle).hardware, device="Intel(R) UHD Graphics (iGPU)")
    write_profile(tuned(bundle, device="GPU.7", hardware=there))
    assert "here missing" in unusable(bundle, core)


def test_a_capped_profile_holds_only_under_the_cap(bundle, core, monkeypatch):
    names = ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA")
    for name in names:
        monkeypatch.setenv(name, "SSE41")
    write_profile(tuned(bundle))
    assert find_profile(bundle, core).state is ProfileState.IN_FORCE
    for name in names:
        monkeypatch.delenv(name)
    assert "isa: sse42, here native" in unusable(bundle, core)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 2}', "\x00", "[" * 100_000, "a folder"]
)
def test_a_broken_profile_is_ignored_by_name(bundle, core, text):
    path = write_profile(tuned(bundle))
    if text == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    line = unusable(bundle, core)
    assert str(path) in line
    assert "can't be read" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("streams", -1), ("streams", "2"), ("hint", "FAST"), ("precision", "int4"), ("device", 3), ("fps", "9")),
        *(("fps", 10**400), ("made", "\x1b[2J")),
    ],
)
def test_impossible_values_are_refused(bundle, key, value):
    values = {**json.loads(tuned(bundle).to_json()), key: value}
    with pytest.raises(ValueError, match=r"\S"):
        Profile.from_json(json.dumps(values))


def test_the_users_profile_comes_first(bundle, core, home):
    write_profile(tuned(bundle, fps=1.0), home / "service" / "profile.json")
    assert find_profile(bundle, core).profile.fps == 1.0
    write_profile(tuned(bundle, fps=2.0))
    assert find_profile(bundle, core).profile.fps == 2.0


def test_a_service_keeps_its_profile_in_its_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    assert profile_path() == tmp_path / "service" / "profile.json"


def test_an_unwritable_place_is_a_usage_error(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't write the profile"):
        write_profile(tuned(bundle), tmp_path / "file" / "profile.json")


def test_the_processor_is_named_with_its_cores(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz\n")
    assert processor_name(info).startswith("Intel(R) Celeron(R) N5105 @ 2.00GHz (")
    assert "cores)" in processor_name(tmp_path / "missing")


def test_only_installed_drivers_are_named(tmp_path):
    status = tmp_path / "status"
    status.write_text(
        "Package: intel-opencl-icd-legacy1\nStatus: install ok installed\nVersion: 24.35.30872.36\n\n"
        "Package: intel-opencl-icd\nStatus: deinstall ok config-files\nVersion: 25.1\n\n"
        "Package: bash\nStatus: install ok installed\nVersion: 5.2\n"
    )
    assert driver_packages(status) == ["intel-opencl-icd-legacy1 24.35.30872.36"]
    assert driver_packages(tmp_path / "missing") == []


def test_the_same_machine_has_no_differences(core):
    assert Hardware.here("CPU", core).differences(Hardware.here("CPU", core)) == []


def test_installations_profile_counts_where_the_own_is_for_another_bundle(bundle, core, home, tmp_path):
    write_profile(tuned(open_bundle(tmp_path / "other", name="other")))
    write_profile(tuned(bundle, fps=1.0), home / "service" / "profile.json")
    assert find_profile(bundle, core).profile.fps == 1.0
