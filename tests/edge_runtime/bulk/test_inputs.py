"""Every kind of input ends as the same rows."""

import io
import json
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.judge import UnreadableError, _Tables
from edge_runtime.bulk.listing import entries_of, expand_braces
from edge_runtime.bulk.rows import Unreadable
from edge_runtime.detector import Detector
from edge_runtime.errors import DataError, UsageError

READABLE = 12


def verdicts(rows):
    return [(row["verdict"], row["score"]) for row in rows if row["verdict"]]


def expected(pictures, bundle_path):
    detector = Detector(bundle_path)
    found = [detector.detect(path).faces[0] for path in sorted(pictures.rglob("*.png")) if path.name != "90.png"]
    return [(face.verdict.value, round(face.score, 6)) for face in found]


def test_a_folder_gives_a_row_for_each_picture(judge, pictures, bundle_path, rows_of, tmp_path):
    done = judge(pictures, "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert done.returncode == 0
    assert (done.pictures, done.rows, done.faces, done.without_face) == (14, 14, 12, 0)
    assert done.verdicts == {"fake": 4, "real": 4, "uncertain": 4}
    assert done.unreadable == {"broken": 1, "not_a_picture": 1}
    assert verdicts(rows) == expected(pictures, bundle_path)
    assert [row["picture"] for row in rows] == sorted(map(str, (p for p in pictures.rglob("*.*") if p.is_file())))
    broken = next(row for row in rows if row["picture"].endswith("90.png"))
    assert (broken["unreadable"], broken["face"], broken["score"]) == ("broken", None, None)
    assert "broken or cut off" in broken["error"]
    first = rows[0]
    assert (first["width"], first["height"], first["left"], first["right"], first["face"]) == (64, 64, 0, 64, 0)


def test_the_file_names_its_model(judge, pictures, bundle_path, tmp_path):
    from edge_runtime.model.bundle import sha256

    done = judge(pictures, "--out", tmp_path / "out")
    (part,) = (tmp_path / "out").glob("*.parquet")
    metadata = pq.read_metadata(part).metadata
    digest = sha256(bundle_path / "model.json")
    assert (metadata[b"model"], metadata[b"model_sha256"]) == (b"1.4.0", digest.encode())
    assert done.model_sha256 == digest
    assert json.loads(metadata[b"counts"])["pictures"] == 14


def test_a_list_names_files_shards_and_missing_ones(judge, pictures, rows_of, tmp_path):
    listed = [*sorted(pictures.rglob("*.png")), tmp_path / "gone.jpg"]
    (tmp_path / "all.txt").write_text("\n".join(map(str, listed)) + "\n\n")
    done = judge(tmp_path / "all.txt", "--out", tmp_path / "out")
    assert done.pictures == READABLE + 2
    assert done.unreadable == {"broken": 1, "missing": 1}
    assert len(rows_of(tmp_path / "out")) == len(listed)


def test_shards_give_what_the_files_give(judge, pictures, bundle_path, rows_of, tmp_path):
    files = sorted(path for path in pictures.rglob("*.png") if path.name != "90.png")
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in files[number * 6 :][:6]:
                tar.add(path, arcname=path.relative_to(pictures))
                label = tarfile.TarInfo(f"{path.stem}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(b"1"))
    done = judge(f"{tmp_path}/{{0..1}}.tar", "--out", tmp_path / "out", "--part-size", "5")
    rows = rows_of(tmp_path / "out")
    assert (done.pictures, done.parts["total"]) == (12, 3)
    assert verdicts(rows) == expected(pictures, bundle_path)
    assert rows[0]["member"] == files[0].relative_to(pictures).as_posix()


def test_a_shard_that_is_cut_off_says_so(judge, pictures, rows_of, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("00.png", "02.png", "04.png"):
            tar.add(pictures / name, arcname=name)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: 2 * (512 + 12288)])
    done = judge(tmp_path / "a.tar", "--out", tmp_path / "out")
    assert done.unreadable["not_listed"] == 1
    assert done.faces >= 1
    assert "cut off" in rows_of(tmp_path / "out")[-1]["error"] + rows_of(tmp_path / "out")[0]["error"]


@pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
def test_parquet_with_bytes_or_paths(judge, pictures, bundle_path, rows_of, tmp_path, kind):
    files = sorted(path for path in pictures.rglob("*.png") if path.name != "90.png")
    columns = {"paths": [str(path) for path in files], "bytes": [path.read_bytes() for path in files]}
    columns["struct"] = [{"bytes": data, "path": "x"} for data in columns["bytes"]]
    table = pa.table({"label": [1] * 12, "path" if kind == "paths" else "image": columns[kind]})
    pq.write_table(table, tmp_path / "faces.parquet", row_group_size=5)
    done = judge(tmp_path / "faces.parquet", "--out", tmp_path / "out", "--part-size", "7")
    rows = sorted(rows_of(tmp_path / "out"), key=lambda row: (row["picture"], int(row["member"] or 0)))
    assert (done.pictures, done.parts["total"]) == (12, 2)
    assert verdicts(rows) == expected(pictures, bundle_path)


def test_rows_are_found_in_any_row_group(tmp_path):
    path, schema = tmp_path / "many.parquet", pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, 60, 3):
            writer.write_table(pa.table({"image": [b"%d" % row for row in range(first, first + 3)]}, schema))
            # An empty group in between.
            writer.write_table(pa.table({"image": []}, schema))
    tables = _Tables()
    for row in (0, 1, 5, 59, 2, 30, 31, 45):
        assert tables.read(Entry(str(path), row=row, column="image")) == b"%d" % row
    with pytest.raises(UnreadableError, match="can't be read") as broken:
        tables.read(Entry(str(path), row=60, column="image"))
    assert broken.value.kind is Unreadable.BROKEN


def test_parquet_without_pictures_is_refused(judge, tmp_path):
    pq.write_table(pa.table({"label": [1], "name": ["x"]}), tmp_path / "faces.parquet")
    done = judge(tmp_path / "faces.parquet", "--out", tmp_path / "out")
    assert (done.returncode, len(done.err.splitlines())) == (2, 1)
    assert "--column" in done.err
    assert "label, name" in done.err


class Pages(BaseHTTPRequestHandler):
    """Serves files of the class's folder; some addresses fail."""

    folder, asked = None, []

    def do_GET(self):
        self.asked.append(self.path)
        # The first request for each picture is refused for a moment.
        busy = self.path.startswith("/busy") and self.asked.count(self.path) < 3
        name = self.path.removeprefix("/busy").lstrip("/")
        code = 503 if busy else 403 if name.startswith("secret") else 200 if (self.folder / name).is_file() else 404
        self.send_response(code)
        data = (self.folder / name).read_bytes() if code == 200 else b""
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def test_web_addresses_are_asked_again_when_busy(judge, pictures, rows_of, tmp_path, monkeypatch):
    monkeypatch.setattr(Pages, "folder", pictures)
    monkeypatch.setattr(Pages, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "all.txt").write_text(f"{home}/00.png\n{home}/busy/02.png\n{home}/gone.png\n{home}/secret.png\n")
    done = judge(tmp_path / "all.txt", "--out", tmp_path / "out")
    server.shutdown()
    assert done.unreadable == {"missing": 1, "denied": 1}
    assert (done.faces, Pages.asked.count("/busy/02.png")) == (2, 3)
    assert [row["verdict"] for row in rows_of(tmp_path / "out")] == ["fake", "uncertain", None, None]


def test_a_line_holds_any_name(tmp_path):
    names = ["/a b.jpg", "/{x}.jpg", "/new\nline.jpg", os.fsdecode(b"/\xff.jpg"), "{x", " /x"]
    for entry in (
        *map(Entry, names),
        Entry("/a.tar", member="b\t.png", offset=512, size=9),
        Entry("/p", row=0, column="i"),
    ):
        assert "\n" not in entry.line()
        assert Entry.from_line(entry.line()) == entry
    for line in ('{"path": 3}', '{"path": "a", "size": -1}', "{}", "{"):
        with pytest.raises(DataError):
            Entry.from_line(line)


def test_braces_and_missing_inputs(tmp_path):
    assert list(expand_braces("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    for name in ("gone", "gone.txt", "gone.tar", "gone.parquet", "nope://x"):
        with pytest.raises(UsageError):
            list(entries_of([name if "://" in name else str(tmp_path / name)]))
