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
    driver_packages,
    find_profile,
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
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(module, "SERVICE_FOLDER", tmp_path / "service")
    return tmp_path


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "detector")


def make_bundle(folder: Path, name: str = "detector") -> Bundle:
    folder.mkdir()
    files = {f"{precision}/model.xml": "0" * 64 for precision in ("fp32", "int8")}
    (folder / "model.json").write_text(Manifest(ModelContract("resnet50"), files, name=name).to_json())
    return Bundle.open(folder)


def tuned(bundle: Bundle) -> Profile:
    return new_profile(bundle, "CPU", Precision.INT8, hint="THROUGHPUT", streams=2, fps=91.5, auc=0.98)


def test_without_a_profile_the_line_says_how_to_make_one(bundle, core):
    assert find_profile(bundle, core) == (None, "no profile; edge-benchmark --tune measures one")


def test_a_written_profile_is_in_force_and_shown(bundle, core):
    written = tuned(bundle)
    path = write_profile(written)

    found, line = find_profile(bundle, core)

    assert found == written
    assert line.startswith("INT8 on CPU, 2 streams (91.5 FPS on 20")
    assert line.endswith(str(path))
    assert found.properties() == {"NUM_STREAMS": 2}


def test_streams_left_to_openvino_set_no_property(bundle):
    assert dataclasses.replace(tuned(bundle), streams=0).properties() == {}


def test_a_profile_of_another_bundle_is_ignored(bundle, core, tmp_path):
    write_profile(tuned(make_bundle(tmp_path / "other", name="other")))
    found, line = find_profile(bundle, core)
    assert found is None
    assert "another bundle" in line


@pytest.mark.parametrize("part", ["processor", "device", "driver", "isa"])
def test_a_profile_of_other_hardware_or_driver_is_ignored_and_the_difference_told(bundle, core, part):
    made = tuned(bundle)
    elsewhere = dataclasses.replace(made.hardware, **{part: "something else"})
    write_profile(dataclasses.replace(made, hardware=elsewhere))

    found, line = find_profile(bundle, core)

    assert found is None
    assert f"{part}: something else, here {getattr(made.hardware, part)}" in line


def test_a_profile_of_a_device_that_is_gone_is_ignored(bundle, core):
    made = tuned(bundle)
    there = dataclasses.replace(made.hardware, device="Intel(R) UHD Graphics (iGPU)")
    write_profile(dataclasses.replace(made, device="GPU.7", hardware=there))
    found, line = find_profile(bundle, core)
    assert found is None
    assert "here missing" in line


def test_a_profile_made_under_a_cap_does_not_speak_for_the_uncapped_machine(bundle, core, monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA"):
        monkeypatch.setenv(name, "SSE41")
    write_profile(tuned(bundle))
    assert find_profile(bundle, core)[0] is not None
    for name in ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA"):
        monkeypatch.delenv(name)
    assert "isa: sse42, here native" in find_profile(bundle, core)[1]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 2}', "\x00", "[" * 100_000],
)
def test_a_broken_profile_is_ignored_with_its_path(bundle, core, text):
    path = write_profile(tuned(bundle))
    path.write_text(text)
    found, line = find_profile(bundle, core)
    assert found is None
    assert str(path) in line
    assert "can't be read" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("streams", -1), ("streams", "2"), ("hint", "FAST"), ("precision", "int4"), ("device", 3), ("fps", "9")],
)
def test_a_profile_with_an_impossible_value_is_no_profile(bundle, key, value):
    values = {**json.loads(tuned(bundle).to_json()), key: value}
    with pytest.raises(ValueError, match=r"\S"):
        Profile.from_json(json.dumps(values))


def test_the_users_own_profile_goes_before_the_services(bundle, core, home):
    write_profile(dataclasses.replace(tuned(bundle), fps=1.0), home / "service" / "profile.json")
    assert find_profile(bundle, core)[0].fps == 1.0
    write_profile(dataclasses.replace(tuned(bundle), fps=2.0))
    assert find_profile(bundle, core)[0].fps == 2.0


def test_a_systemd_service_keeps_its_profile_in_its_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "service"))
    assert profile_path() == tmp_path / "service" / "profile.json"


def test_a_profile_that_cannot_be_written_says_so_in_one_line(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't write the profile"):
        write_profile(tuned(bundle), tmp_path / "file" / "profile.json")


def test_the_processor_is_named_with_its_cores(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz\n")
    assert processor_name(info).startswith("Intel(R) Celeron(R) N5105 @ 2.00GHz (")
    assert "cores)" in processor_name(tmp_path / "missing")


def test_only_installed_driver_packages_are_named(tmp_path):
    status = tmp_path / "status"
    status.write_text(
        "Package: intel-opencl-icd-legacy1\nStatus: install ok installed\nVersion: 24.35.30872.36\n\n"
        "Package: intel-opencl-icd\nStatus: deinstall ok config-files\nVersion: 25.1\n\n"
        "Package: bash\nStatus: install ok installed\nVersion: 5.2\n"
    )
    assert driver_packages(status) == ["intel-opencl-icd-legacy1 24.35.30872.36"]
    assert driver_packages(tmp_path / "missing") == []


def test_hardware_of_the_same_machine_is_alike(core):
    assert Hardware.here("CPU", core).differences(Hardware.here("CPU", core)) == []
