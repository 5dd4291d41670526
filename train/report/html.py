"""The HTML shell of every report, one self-contained file for phone, dark mode and paper, and its Markdown twin."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from edge_runtime.atomic import write_atomic
from edge_runtime.paths import expand

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Table:
    """Rows under a head. The first column is left-aligned and the others are figures, unless all of it is `text`."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    text: bool = False


@dataclass(frozen=True)
class Picture:
    """A plot, or a photo (which keeps its colours in dark mode), as PNG, and the text to show instead of it."""

    png: bytes
    text: str
    photo: bool = False

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where there is room, else below one another."""

    pictures: Sequence[Picture]


Block = str | Table | Picture | Gallery
"""A paragraph of plain text, a table, or pictures."""


@dataclass(frozen=True)
class Section:
    """A heading and what follows it."""

    title: str
    blocks: Sequence[Block]


def write_report(path: Path | str, title: str, sections: Sequence[Section]) -> None:
    """Write a report as one HTML file, and the same text and tables as Markdown beside it (`.md`)."""
    path = expand(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shells = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    write_atomic(path, shells.get_template(TEMPLATE).render(title=title, sections=sections), errors="replace")
    parts = [f"# {_cell(title)}"]
    for section in sections:
        parts += [f"## {_cell(section.title)}", *(_markdown(block) for block in section.blocks)]
    write_atomic(path.with_suffix(".md"), "\n\n".join(parts) + "\n", errors="replace")


def _markdown(block: Block) -> str:
    if isinstance(block, str):
        return block.replace("<", "&lt;")
    if isinstance(block, Picture):
        return f"*({_cell(block.text)}: see the HTML report)*"
    if isinstance(block, Gallery):
        return "\n\n".join(map(_markdown, block.pictures))
    rule = ["---", *(["---"] if block.text else ["---:"]) * (len(block.head) - 1)]
    table = "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in (block.head, rule, *block.rows))
    return f"{_cell(block.caption)}\n\n{table}" if block.caption else table


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def figure_text(figure: dict[str, float], digits: int = 3) -> str:
    """Return a figure with its interval: `0.981 (0.975–0.987)`, `0 of 20 (at most 14 %)`, or `none` for NaN.

    With too few groups of faces it is `0.981 (bounds unknown: only 1 group)`.
    """
    if math.isnan(figure["value"]):
        return "none"
    if figure.get("of"):
        return f"0 of {figure['of']:.0f} (at most {100 * figure['high']:.2g} %)"
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    if few := figure.get("groups"):
        return f"{value} (bounds unknown: only {few:.0f} group{'s' * (few > 1)})"
    return value if low == high == value else f"{value} ({low}–{high})"
