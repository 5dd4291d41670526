"""Kits with a small stand-in for the runtime, which install quickly."""

import base64
import ensurepip
import functools
import hashlib
import io
import json
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from board_setup.board import kit as kits
from board_setup.workstation.pack import make_tool

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CHECK = """
import json, os, pathlib, sys
if __name__ != "__main__":
    raise ImportError
if "--measure" in sys.argv:
    pathlib.Path(os.environ["STATE_DIRECTORY"], "profile.json").write_text("FP16 on GPU")
    print(json.dumps({"error": None, "fastest": "FP16 on GPU"}))
    sys.exit()
text = (pathlib.Path(sys.argv[sys.argv.index("--model") + 1]) / "golden" / "golden.json").read_text()
print(json.dumps({"error": "CPU int8: WRONG, logits within 3 of AVX2" if text == "wrong" else None}, indent=2))
sys.exit(2 if text == "wrong" else 0)
"""
DETECT = "def main():\n    print('detecting')\n"


def runtime_wheel(detect: str) -> tuple[str, bytes]:
    """A wheel that is named like the runtime and checks a bundle by one word in it."""
    info = "deepfake_edge-0.1.0.dist-info/"
    files = {
        "edge_runtime/__init__.py": "",
        "edge_runtime/model/check.py": CHECK,
        "edge_runtime/cli.py": detect,
        info + "METADATA": "Metadata-Version: 2.1\nName: deepfake-edge\nVersion: 0.1.0\n",
        info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "entry_points.txt": "[console_scripts]\nedge-detect = edge_runtime.cli:main\n",
    }
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in files.items()}
    digests64 = {name: base64.urlsafe_b64encode(digest).decode().rstrip("=") for name, digest in digests.items()}
    rows = [f"{name},sha256={digests64[name]},{len(text)}" for name, text in files.items()]
    files[info + "RECORD"] = "\n".join([*rows, info + "RECORD,,"]) + "\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            # With a fixed date, so that kits with the same runtime share its virtual environment.
            archive.writestr(zipfile.ZipInfo(name), text)
    return "wheels/deepfake_edge-0.1.0-py3-none-any.whl", data.getvalue()


def pip_wheel() -> tuple[str, bytes]:
    # Debian keeps the wheel in a folder of its own.
    folder = sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).parent / "_bundled"
    bundled = next(Path(folder).glob("pip-*.whl"))
    return "wheels/" + bundled.name, bundled.read_bytes()


@functools.cache
def tool() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        make_tool(f"{folder}/tool")
        return Path(folder, "tool").read_bytes()


def make_kit(
    path: Path,
    version: str,
    golden: str = "right",
    detect: str = DETECT,
    contents: dict[str, bytes] | None = None,
    **changes: object,
) -> Path:
    """Write a kit whose check passes unless `golden` is "wrong" and whose edge-detect runs `detect`.

    `contents` are further files; `changes` replace fields of its manifest.
    """
    digest = hashlib.sha256(golden.encode()).hexdigest()
    model = {"contract": {"version": version}, "files": {"golden/golden.json": digest}, "name": "x"}
    bundle = {"bundle/golden/golden.json": golden.encode(), "bundle/model.json": json.dumps(model).encode()}
    wheels = dict([runtime_wheel(detect), pip_wheel()])
    archive = next((name for name in contents or {} if name.startswith("python/")), "")
    manifest = {"id": version + "-aa", "python": PYTHON, "archive": archive, "requirement": "deepfake-edge==0.1.0"}
    return write_tar(path, {**wheels, **bundle, kits.TOOL: tool(), **(contents or {})}, **{**manifest, **changes})


def write_tar(path: Path, contents: dict[str, bytes], **fields: object) -> Path:
    """Write a tar with a kit's manifest of these fields and these files."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = {"format": kits.FORMAT, "files": files, **fields}
    with tarfile.open(path, "w") as tar:
        for name, data in {kits.MANIFEST: json.dumps(manifest).encode(), **contents}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
