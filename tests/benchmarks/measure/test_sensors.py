import psutil
import pytest

from benchmarks.measure.sensors import LoadMeter, SensorReading, pace, read_sensors


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def board(tmp_path):
    put(tmp_path, "class/thermal/thermal_zone0/temp", 41000)
    put(tmp_path, "class/thermal/thermal_zone1/temp", 67500)
    for core in (0, 1):
        put(tmp_path, f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", 2000000 + core * 800000)
        put(tmp_path, f"devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", 3)
    put(tmp_path, "class/powercap/intel-rapl:0/energy_uj", 5_000_000)
    put(tmp_path, "class/powercap/intel-rapl:0/max_energy_range_uj", 10_000_000)
    put(tmp_path, "class/powercap/intel-rapl:0:0/energy_uj", 4_000_000)
    return tmp_path


def test_temperature_clock_and_throttling_are_read(board):
    reading = read_sensors(board)
    assert (reading.temperature_c, reading.clock_mhz, reading.throttled) == (67.5, 2400.0, 6)


@pytest.mark.parametrize(("counter", "joules"), [(7_500_000, 2.5), (999_999, 6.0)])
def test_energy_counts_packages_and_wraps_around(board, counter, joules):
    before = read_sensors(board)
    put(board, "class/powercap/intel-rapl:0/energy_uj", counter)
    assert read_sensors(board).energy_since(before) == pytest.approx(joules)


def test_missing_sensors_are_none(board, tmp_path):
    (board / "class/powercap/intel-rapl:0/energy_uj").unlink()
    assert read_sensors(board).energy_uj is None
    nothing = read_sensors(tmp_path / "nowhere")
    assert nothing == SensorReading(None, None, None, None)
    assert nothing.energy_since(nothing) is None


def test_load_of_others_is_a_share_of_all_cores(monkeypatch):
    times = psutil.cpu_times()
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times._replace(user=now * 0.1, steal=now * 0.1))
    meter = LoadMeter()
    now = 10.0
    assert meter.read() == pytest.approx(0.1, abs=0.01)


def test_pace_is_positive():
    assert pace(0.001) > 0
