"""Data sets by address."""

import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from helpers.bucket import use_bucket

from edge_runtime.errors import DataError, SourceError, UsageError
from train.commands.prepare import PrepareOptions, find_pictures
from train.commands.shards import write_shards
from train.data.build import load_data
from train.data.remote import fetched

PORT = 7777
"""Where kagglehub looks for its server if KAGGLE_API_ENVIRONMENT is TEST."""


class _Kaggle(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, dict]]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        name = self.path.rpartition("/")[2]
        self.asked.append((name, asked))
        if name == "GetDataset":
            data = json.dumps({"currentVersionNumber": 2}).encode()
        else:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr("real/a.png", f"version {asked['datasetVersionNumber']}")
            data = packed.getvalue()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.mark.slow
def test_a_data_set_of_kaggle_is_fetched_once(tmp_path):
    pytest.importorskip("kagglehub", reason="needs kagglehub (Python 3.11 or newer)")
    handler = type("Handler", (_Kaggle,), {"asked": []})
    try:
        server = http.server.ThreadingHTTPServer(("localhost", PORT), handler)
    except OSError:
        pytest.skip(f"needs port {PORT}")
    own = {"KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k", "HOME": str(tmp_path)}
    environment = {**os.environ, **own, "XDG_CACHE_HOME": str(tmp_path)}
    script = (
        "from pathlib import Path; from train.data.remote import fetched; import sys\n"
        "for place in sys.argv[1:]: print(fetched(Path(place)))"
    )
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        places = ["kaggle://owner/faces", "kaggle://owner/faces@1", "kaggle://owner/faces@1"]
        done = subprocess.run(
            [sys.executable, "-c", script, *places], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    latest, first, again = (line for line in done.stdout.splitlines() if line.startswith(str(tmp_path)))
    assert Path(latest).name == Path(first).name == "faces"
    assert Path(latest, "real/a.png").read_text() == "version 2"
    assert Path(again, "real/a.png").read_text() == "version 1"
    assert [name for name, _ in handler.asked] == ["GetDataset", "DownloadDataset", "DownloadDataset"]


def test_other_places_stay_and_bad_addresses_are_named(tmp_path):
    assert fetched(tmp_path) == tmp_path
    for place, says in (("kaggle://owner", "kaggle://owner/name"), ("hf://user/name", "hf://datasets/user/name")):
        with pytest.raises(UsageError, match=says):
            fetched(Path(place))


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_catalog_that_cant_be_read_is_named(make_faces, tmp_path, monkeypatch, error):
    from edge_runtime.bulk import storage

    address = use_bucket(tmp_path / "bucket", monkeypatch)
    write_shards(load_data(make_faces()), tmp_path / "bucket")

    def refuse(name):
        raise error(f"{name}: refused")

    monkeypatch.setattr(storage, "_open", refuse)
    with pytest.raises(SourceError, match=r"bucket/catalog\.csv: refused.*; check name and credentials"):
        fetched(Path(address))


def test_prepared_shards_are_not_prepared_again(make_faces, tmp_path, monkeypatch):
    address = use_bucket(tmp_path / "bucket", monkeypatch)
    write_shards(load_data(make_faces()), tmp_path / "bucket")
    with pytest.raises(DataError, match="was prepared already; give it to train-detector as it is"):
        find_pictures([Path(address)], PrepareOptions())
