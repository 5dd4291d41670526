"""How a board is doing, as one JSON object for programs: its version, its service, and what its faces look like."""

import json
import os
import time
from typing import Any, Dict, Iterator

from board_setup.board import service, signing, versions
from board_setup.board.disk import has_shape, read_text
from board_setup.board.doctor.system import System
from board_setup.board.layout import Layout

READ_BYTES = 1 << 25
"""How much of the newest results is read; a small board takes a second for it."""

VERDICTS = ("real", "fake", "uncertain")


def health(layout: Layout) -> Dict[str, Any]:
    """Return what a program asks a board for.

    The keys are `version` (empty without one), `since`, `time` (the board's clock; both UTC), `good`, `signed_by` (null
    if unsigned), `service` (null without systemd), `camera`, `restarts`, `drift` (null without a monitor), and
    `verdicts`: how many faces got which one from this version since it was installed, each track once an hour.
    """
    system = System(layout.root)
    now = versions.current_version(layout)
    entry = next((entry for entry in versions.history(layout) if entry.id == now), None)
    since = entry.when if entry else ""
    clock = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    seen = service.status(lambda command: system.run(command).out)
    return {
        "version": now,
        "since": since,
        "time": clock,
        "good": entry.good if entry else False,
        "signed_by": signing.signer(layout, now) or None,
        "service": seen.active or None,
        "restarts": seen.restarts,
        "camera": bool(system.glob("/dev/video*")),
        "drift": _drift(layout),
        "verdicts": count_verdicts(layout.at(service.RESULTS), since if since <= clock else "", now),
    }


def _drift(layout: Layout) -> Any:
    try:
        found = json.loads(read_text(layout.at(service.MONITOR + "/status.json")))
    except (ValueError, RecursionError):
        return None
    return {key: found.get(key) for key in ("state", "since", "reason")} if has_shape(found, {"state": str}) else None


def count_verdicts(path: str, since: str, version: str = "") -> Dict[str, int]:
    """Return how many faces got which verdict in the results file since a time (UTC, ISO 8601).

    Frames whose `model` is not that of `version`, such as 1.4.0 for 1.4.0-3f2a91c0, are left out. A face that is
    tracked counts once an hour, with its last verdict. Only the newest READ_BYTES are read, without damaged lines.
    """
    tracked: Dict[Any, str] = {}
    counts = dict.fromkeys(VERDICTS, 0)
    for line in _newest_lines(path):
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not has_shape(frame, {"time": str, "source": str, "faces": [{"verdict": str}]}) or frame["time"] < since:
            continue
        if version and not f"{version}-".startswith(f"{frame.get('model', version)}-"):
            continue
        for face in frame["faces"]:
            if face["verdict"] not in counts:
                continue
            if face.get("track") is None:
                counts[face["verdict"]] += 1
            else:
                tracked[frame["source"], frame["time"][:13], str(face["track"])] = face["verdict"]
    for verdict in tracked.values():
        counts[verdict] += 1
    return counts


def _newest_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of the newest READ_BYTES of a results file and those it was rotated to, oldest first."""
    left, parts = READ_BYTES, []
    stem, suffix = os.path.splitext(path)
    for name in [path, *(f"{stem}.{number}{suffix}" for number in range(1, 6))]:
        try:
            with open(name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - left))
                parts.append(file.read(left))
        except OSError:
            break
        left -= len(parts[-1])
        if left <= 0:
            break
    for part in reversed(parts):
        yield from part.split(b"\n")
