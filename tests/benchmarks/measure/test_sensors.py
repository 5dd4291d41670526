import pytest

from benchmarks.measure.sensors import CpuTime, Reading, foreign_load, pace, read_cpu_time, read_sensors


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


def test_the_hottest_zone_the_mean_clock_and_all_throttling_are_read(board):
    reading = read_sensors(board)
    assert reading.temperature_c == 67.5
    assert reading.clock_mhz == 2400.0
    assert reading.throttled == 6


def test_energy_is_what_the_packages_took_their_parts_not_counted_twice(board):
    before = read_sensors(board)
    put(board, "class/powercap/intel-rapl:0/energy_uj", 7_500_000)
    assert read_sensors(board).energy_since(before) == 2.5


def test_an_energy_counter_that_began_anew_is_read_rightly(board):
    before = read_sensors(board)
    put(board, "class/powercap/intel-rapl:0/energy_uj", 999_999)
    assert read_sensors(board).energy_since(before) == pytest.approx(6.0)


def test_what_a_machine_does_not_show_is_missing_never_zero(tmp_path):
    reading = read_sensors(tmp_path)
    assert reading == Reading(None, None, None, None)
    assert reading.energy_since(reading) is None


def test_an_unreadable_energy_counter_is_missing(board):
    (board / "class/powercap/intel-rapl:0/energy_uj").unlink()
    assert read_sensors(board).energy_uj is None


def test_cpu_time_counts_work_and_what_other_machines_stole(tmp_path):
    put(tmp_path, "stat", "cpu  100 200 300 9999 50 10 20 70 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0")
    found = read_cpu_time(tmp_path)
    assert found.busy == pytest.approx(6.3)
    assert found.stolen == pytest.approx(0.7)
    assert read_cpu_time(tmp_path / "nowhere") is None


def test_foreign_load_is_what_others_used_of_all_cores():
    before, after = CpuTime(10.0, 1.0), CpuTime(15.0, 1.0)
    assert foreign_load(before, after, own_s=4.0, wall_s=5.0, cores=2) == pytest.approx(0.1)
    assert foreign_load(before, after, own_s=9.0, wall_s=5.0, cores=2) == 0.0
    assert foreign_load(None, after, own_s=0.0, wall_s=5.0, cores=2) is None


def test_the_machines_pace_is_a_number_above_zero():
    assert pace(0.001) > 0
