from benchmarks.studies.scan import scan_files, write_files


def test_stopped_scan_goes_on_from_its_notes(tmp_path):
    write_files(tmp_path / "faces", 60)
    assert len(list(tmp_path.rglob("*.jpg"))) == 60
    notes = tmp_path / "scan.jsonl"
    assert scan_files(tmp_path / "faces", notes, stop_after=30).files == 30
    noted = len(notes.read_text().splitlines())
    assert 30 <= noted < 60
    assert scan_files(tmp_path / "faces", notes).files == 60
    assert len(notes.read_text().splitlines()) == 60
