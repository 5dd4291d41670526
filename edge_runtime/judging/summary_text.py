"""What a terminal says at the end: a table for each video, and how many files got which verdict."""

import textwrap
from collections import Counter
from collections.abc import Iterator

from rich.cells import cell_len

from edge_runtime.judging.decide import MEANING
from edge_runtime.judging.summary import COUNTED, FileVerdicts, VideoVerdict
from edge_runtime.printable import printable

COLUMNS = 80

MOST_ROWS = 30
"""At most this many faces of a video are printed, those with the highest scores; JSON has all."""


def summary_text(files: FileVerdicts, *, by_folder: bool = False) -> str:
    """Return the verdicts on videos, and the counts if there are several files, in lines of at most COLUMNS."""
    lines = [line for video in files.videos() for line in video_lines(video)]
    folders = files.counts()
    total = sum(folders.values(), Counter())
    if by_folder:
        lines.append("".join(f"{kind:>12}" for kind in COUNTED) + "  folder")
        for folder in sorted(folders):
            counts = "".join(f"{folders[folder][kind]:12}" for kind in COUNTED)
            lines.append(f"{counts}  {shortened(folder, COLUMNS - len(counts) - 2)}")
    if total.total() > 1:
        without = f", {total['no face']} without a face" if total["no face"] else ""
        lines.append(", ".join(f"{total[kind]} {kind}" for kind in COUNTED[:4]) + without)
        lines += [f"{kind.value}: {meaning}" for kind, meaning in MEANING.items() if total[kind.value]]
    return "\n".join(lines)


def video_lines(video: VideoVerdict) -> Iterator[str]:
    """Yield the verdict on a video, what parts of it are fake, and a table of its faces."""
    yield shortened(video.source, COLUMNS)
    score = "" if video.score is None else f" (highest score {video.score:.3f})"
    yield from wrapped(f"  {video.verdict.value}: {video.reason or MEANING.get(video.verdict)}{score}")
    for begin, end in video.fake_s:
        yield f"  fake from {clock(begin)} to {clock(end)}"
    judged = {face.track: face.score for face in video.faces if face.score is not None}
    shown = sorted(judged, key=lambda track: -judged[track])[:MOST_ROWS]
    if judged:
        yield "  face      from        to  frames  judged  median  verdict"
    for face in (face for face in video.faces if face.track in shown):
        row = f"  {face.track:4} {clock(face.from_s):>9} {clock(face.to_s):>9} {face.frames:7} {face.judged:7}"
        row += f" {face.median:7.3f}  {face.verdict.value}"
        yield from wrapped(f"{row}, {face.reason}" if face.reason else row)
    if len(shown) < len(judged):
        yield f"  {len(judged) - len(shown)} more faces with lower scores"
    if others := len(video.faces) - len(judged):
        noun = "other face" if judged else "face"
        yield f"  {others} {noun}{'s' if others > 1 else ''}: too few frames could be judged"


def wrapped(line: str) -> list[str]:
    """Return a line as lines of at most COLUMNS, the others indented."""
    return textwrap.wrap(line, COLUMNS, subsequent_indent=" " * 12)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(round(seconds, 1), 60.0)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def shortened(text: str, columns: int) -> str:
    """Return a path made printable, with its beginning cut off if it is too long."""
    clean = printable(text)
    if cell_len(clean) <= columns:
        return clean
    while cell_len(clean) >= columns:
        clean = clean[1:]
    return "…" + clean
