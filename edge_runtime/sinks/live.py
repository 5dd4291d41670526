"""The live view on a terminal: for each source its state, frame rate, frame age and faces."""

from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edge_runtime.judging.decide import SHORT_MEANING
from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FaceResult, FrameResult, SourceState
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.printable import printable
from edge_runtime.sinks import Sink
from edge_runtime.sinks.terminal import frame_lines

VERDICT_STYLES = {Verdict.FAKE: "bold red", Verdict.REAL: "bold green", Verdict.UNCERTAIN: "yellow"}
STATE_STYLES = {SourceState.OK: "green", SourceState.LOST: "bold red", SourceState.ENDED: "dim"}

BAR = 20
"""Characters of a score's bar."""

PICTURES = ""
"""The view's entry for all pictures together; no source has that name."""


@dataclass
class _Entry:
    """The last result of a source and its frame rate."""

    result: FrameResult
    rate: RollingRate = field(default_factory=RollingRate)


class LiveView(Sink):
    """A view redrawn in place at the bottom of the terminal; losses and failures scroll by above it."""

    def __init__(self, console: Console | None = None, title: str = "edge-detect") -> None:
        super().__init__("the terminal")
        self._console, self._title = console or Console(), title
        self._entries: dict[str, _Entry] = {}
        self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=8, transient=True)

    def write(self, judged: Judged) -> None:
        """Take one result; the view is drawn a few times a second."""
        result = judged.result
        # All pictures share an entry: a watched folder would otherwise add one after the other.
        entry = self._entries.setdefault(PICTURES if judged.still else result.source, _Entry(result))
        entry.result = result
        if result.state is SourceState.OK and result.error is None:
            entry.rate.add()
        else:
            for line in frame_lines(result, 0.0):
                self._console.print(escape(line))

    def render(self) -> RenderableType:
        """Return the view."""
        parts: list[RenderableType] = [Text(self._title, "bold")]
        # A copy, since rich draws in another thread.
        entries = list(self._entries.values())
        for entry in entries:
            result = entry.result
            line = Text(printable(result.source), "bold").append(f"  {result.state.value}", STATE_STYLES[result.state])
            parts += [Text(), line]
            if result.state is SourceState.OK:
                line.append(
                    f"  {entry.rate.per_second:.1f} FPS  {result.latency_ms:.0f} ms  age {result.age_ms:.0f} ms"
                )
                line.append(f"  frame {result.frame}  dropped {result.dropped}  {result.device} {result.precision}")
            else:
                line.append(f"  {printable(result.error or '')}", "dim")
            table = Table(box=None, show_header=False, padding=(0, 1))
            for face in result.faces:
                table.add_row(*_face_cells(face))
            parts.append(table if result.faces else Text("  no face", "dim"))
        notices = {entry.result.notice for entry in entries if entry.result.notice}
        return Group(*parts, *(Text(notice, "bold yellow") for notice in notices))

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def close(self) -> None:
        """Remove the view."""
        self._live.stop()


def _face_cells(face: FaceResult) -> list[Text]:
    """Return a face's number, verdict, a bar of its score, the score, and what it means or why it is uncertain."""
    score = face.score if face.track_score is None else face.track_score
    style = VERDICT_STYLES[face.verdict]
    filled = 0 if score is None else round(score * BAR)
    return [
        Text("" if face.track is None else f"face {face.track}"),
        Text(face.verdict.value, style),
        Text("█" * filled, style).append("·" * (BAR - filled), "dim"),
        Text("" if score is None else f"{score:.3f}"),
        Text(face.reason or SHORT_MEANING[face.verdict], "dim"),
    ]
