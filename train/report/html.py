"""The one HTML shell of every report: self-contained, for phone, dark and paper; and its Markdown twin."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first column is left-aligned, the others are figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture (PNG) with the words that stand for it where it can't be seen."""

    png: bytes
    text: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


Block = str | Table | Picture
"""A paragraph of plain text, a table or a picture."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --line: #d8dce2; --soft: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #16191d; --line: #3a4048; --soft: #20252b; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.table { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; padding-bottom: .3rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: .3rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { background: var(--soft); }
td { border-top: 1px solid var(--line); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media print { body { max-width: none; } h2 { break-after: avoid; } table, img { break-inside: avoid; } }
</style></head><body><h1>{{ title }}</h1>
{% for section in sections %}<section><h2>{{ section.title }}</h2>
{% for block in section.blocks %}{% if block is string %}<p>{{ block }}</p>
{% elif block.png is defined %}<p><img src="{{ block.uri }}" alt="{{ block.text }}"></p>
{% else %}<div class="table"><table>{% if block.caption %}<caption><span>{{ block.caption }}</span></caption>{% endif %}
<thead><tr>{% for cell in block.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for row in block.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}{% endfor %}</section>
{% endfor %}</body></html>
"""


def write_report(path: Path | str, title: str, sections: Sequence[Section]) -> None:
    """Write a report as one HTML file, and the same words and tables as Markdown beside it (`.md`)."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    page = Environment(autoescape=True).from_string(TEMPLATE).render(title=title, sections=sections)
    path.write_text(page, encoding="utf-8", errors="replace")
    path.with_suffix(".md").write_text(_markdown(title, sections), encoding="utf-8", errors="replace")


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {_cell(title)}"]
    for section in sections:
        parts += [f"## {_cell(section.title)}", *(_markdown_block(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    if isinstance(block, str):
        return block.replace("<", "&lt;")
    if isinstance(block, Picture):
        return f"*({_cell(block.text)}: see the HTML report)*"
    rows = [block.head, ["---", *["---:"] * (len(block.head) - 1)], *block.rows]
    table = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)
    return f"{_cell(block.caption)}\n\n{table}" if block.caption else table


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def plot(figure: "Figure", text: str) -> Picture:
    """Return a matplotlib figure as a picture of a report."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return Picture(buffer.getvalue(), text)


def figure_text(figure: dict[str, float], digits: int = 3) -> str:
    """Return a figure with its interval: `0.981 (0.975–0.987)`."""
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return value if low == high == value else f"{value} ({low}–{high})"


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: numbers that are none become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
