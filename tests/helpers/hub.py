"""A stand-in for the Hugging Face Hub: the part of its HTTP interface that huggingface_hub calls."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote


class Hub:
    """Repositories, as files by name, commit and path; `main` is the last commit."""

    def __init__(self) -> None:
        self.address, self.token = "", "hf_test"
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files besides the ones before; return its id."""
        commits = self.commits.setdefault(name, {})
        before = next(reversed(commits.values()), {})
        digest = hashlib.sha1(f"{name}{len(commits)}".encode()).hexdigest()
        commits[digest] = before | files
        return digest

    def find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit and its files."""
        commits = self.commits.get(name, {})
        digest = next(reversed(commits), "") if revision == "main" else revision
        return (digest, commits[digest]) if digest in commits else None

    @property
    def environment(self) -> dict[str, str]:
        """What points huggingface_hub here."""
        return {"HF_ENDPOINT": self.address, "HF_TOKEN": self.token, "HF_HUB_DISABLE_XET": "1"}


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, body: object = None, code: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(?:revision|tree)/([^/]+)", path):
            name = ("datasets/" if found[1] == "datasets" else "") + found[2]
            if (commit := self.hub.find(name, found[3])) is None:
                return self._answer({}, 404, X_Error_Code="RepoNotFound")
            if "/tree/" in path:
                tree = [{"type": "file", "path": p, "size": len(d), "oid": _oid(d)} for p, d in commit[1].items()]
                return self._answer(tree, Content_Type="application/json")
            siblings = [{"rfilename": path} for path in commit[1]]
            return self._answer({"id": name, "sha": commit[0], "siblings": siblings}, Content_Type="application/json")
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit = self.hub.find(found[1], found[2])
            if commit is None:
                return self._answer({}, 404, X_Error_Code="RepoNotFound")
            if found[3] not in commit[1]:
                return self._answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit[0])
            data = commit[1][found[3]]
            return self._answer(data, ETag=f'"{_oid(data)}"', X_Repo_Commit=commit[0])
        return self._answer({}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        self.hub.large[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer({"error": "Invalid token"}, 401)
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.private[name] = asked["visibility"] == "private"
            return self._answer({"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        if "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".bin") else "regular"}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            files = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
            digest = self.hub.commit(found[1], files)
            url = f"{self.hub.address}/{found[1]}/commit/{digest}"
            return self._answer({"commitUrl": url, "commitOid": digest, "success": True})
        return self._answer({}, 404)


def _oid(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a hub on loopback."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
