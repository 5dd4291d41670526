from benchmarks.studies.scan import Scan, scan_files, write_files


def test_files_are_scanned_stopped_half_way_and_scanned_on(tmp_path):
    write_files(tmp_path / "faces", 60)
    assert len(list(tmp_path.rglob("*.jpg"))) == 60
    notes = tmp_path / "scan.jsonl"
    assert scan_files(tmp_path / "faces", notes, stop_after=30).files == 30
    noted = len(notes.read_text().splitlines())
    assert 30 <= noted < 60
    assert scan_files(tmp_path / "faces", notes).files == 60
    assert len(notes.read_text().splitlines()) == 60


def test_a_scan_tells_its_speed_and_what_a_file_takes_of_memory():
    said = str(Scan(files=1000, seconds=2.0, cpu_s=1.0, before_mb=100.0, after_mb=102.0))
    assert said == "1000 files, 500 a second, 1.00 ms of core time each; 100 → 102 MB, 2000 bytes a file"
