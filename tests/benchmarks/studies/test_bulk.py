"""The pictures that judge-pictures is measured with."""

from benchmarks.studies.bulk import link_pictures


def test_a_count_is_linked_once(tmp_path):
    """`--pictures 100000 --rate-pictures 10000` asks for 10,000 twice."""
    faces = tmp_path / "faces"
    faces.mkdir()
    (tmp_path / "scratch").mkdir()
    for number in range(3):
        (faces / f"{number}.jpg").write_bytes(b"%d" % number)
    first = link_pictures(tmp_path / "scratch", 7, faces)
    assert [path.read_bytes() for path in sorted(first.rglob("*.jpg"))] == [b"0", b"1", b"2", b"0", b"1", b"2", b"0"]
    assert link_pictures(tmp_path / "scratch", 7, faces) == first
    assert len(list(first.rglob("*.jpg"))) == 7
