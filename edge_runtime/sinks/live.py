"""The live view on a terminal: for each source its state, rolling FPS, frame age and faces."""

from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FaceResult, FrameResult, SourceState
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.sinks.terminal import frame_lines, printable

STYLES = {Verdict.FAKE: "bold red", Verdict.REAL: "bold green", Verdict.UNCERTAIN: "yellow"}
STATES = {"ok": "green", "lost": "bold red", "ended": "dim"}
BAR = 20
"""Characters of a score's bar."""
PICTURES = ""
"""The place of all pictures in the view; no source has that name."""


@dataclass
class Seen:
    """What was said of a source last, and how fast frames come."""

    result: FrameResult
    rate: RollingRate = field(default_factory=RollingRate)


class LiveView:
    """A view that stays in its place; what a terminal has to keep (losses, failures) is printed above it.

    Args:
        console: where it is shown.
        title: what is running.
    """

    lost = 0

    def __init__(self, console: Console | None = None, title: str = "edge-detect") -> None:
        self._console = console or Console()
        self._title = title
        self._seen: dict[str, Seen] = {}
        self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=8, transient=True)

    def write(self, judged: Judged) -> None:
        """Take one result; the view is drawn again a few times a second."""
        result = judged.result
        # Pictures share one place: of a watched folder there would be more and more.
        seen = self._seen.setdefault(PICTURES if judged.still else result.source, Seen(result))
        seen.result = result
        if result.state == SourceState.OK and result.error is None:
            seen.rate.add()
        else:
            for line in frame_lines(result, 0.0):
                self._console.print(escape(line))

    def render(self) -> RenderableType:
        """Return the view."""
        parts: list[RenderableType] = [Text(self._title, "bold")]
        # Copied, since another thread draws.
        for seen in list(self._seen.values()):
            parts += [Text(), source_line(seen.result, seen.rate.per_second), faces_table(seen.result)]
        notices = {seen.result.notice for seen in list(self._seen.values()) if seen.result.notice}
        return Group(*parts, *(Text(notice, "bold yellow") for notice in notices))

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def source_line(result: FrameResult, rate: float) -> Text:
    """Return the line of a source: name, state, FPS, age, what was dropped, device and precision."""
    figures = (
        f"  {rate:.1f} FPS  {result.latency_ms:.0f} ms  age {result.age_ms:.0f} ms  frame {result.frame}"
        f"  dropped {result.dropped}  {result.device} {result.precision}"
    )
    line = Text(printable(result.source), "bold")
    line.append(f"  {result.state.value}", STATES[result.state])
    return (
        line.append(figures)
        if result.state == SourceState.OK
        else line.append(f"  {printable(result.error or '')}", "dim")
    )


def faces_table(result: FrameResult) -> RenderableType:
    """Return a row for each face."""
    if not result.faces:
        return Text("  no face", "dim")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for face in result.faces:
        table.add_row(*face_cells(face))
    return table


def face_cells(face: FaceResult) -> tuple[Text, ...]:
    """Return the cells of a face: its number, verdict, a bar of the score, the score, why it is uncertain."""
    score = face.score if face.track_score is None else face.track_score
    style = STYLES[face.verdict]
    bar = Text("·" * BAR, "dim") if score is None else _bar(score, style)
    number = "" if face.track is None else f"face {face.track}"
    return (
        Text(number),
        Text(face.verdict.value, style),
        bar,
        Text("" if score is None else f"{score:.3f}"),
        Text(face.reason or "", "dim"),
    )


def _bar(score: float, style: str) -> Text:
    filled = round(score * BAR)
    return Text("█" * filled, style).append("·" * (BAR - filled), "dim")
