import pytest

from benchmarks.studies import cold
from benchmarks.studies.small import write_small_bundle
from edge_runtime.errors import DeviceError


@pytest.mark.slow
def test_starts_are_measured_and_failures_raised(tmp_path, capsys):
    bundle = write_small_bundle(tmp_path / "bundle")
    assert cold.measure_cold(bundle, times=2, faces="off") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["wall-clock time", "CPU time", "peak memory"]
    assert 50 < float(lines[2].split(": ")[1].split()[0]) < 500
    with pytest.raises(DeviceError, match="no-such-bundle"):
        cold.start_once(["x.jpg", "--model", str(tmp_path / "no-such-bundle")], tmp_path)
