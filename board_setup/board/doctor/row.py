"""One finding of the doctor, and how findings are printed."""

import enum
import json
from typing import List, NamedTuple

from board_setup.errors import printable


class State(enum.Enum):
    """How serious a finding is, from best to worst."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Row(NamedTuple):
    """One finding: what was looked at, its state, what was seen, and the command that fixes it ("" if none does)."""

    name: str
    state: State
    seen: str
    fix: str = ""


def worst(rows: List[Row]) -> State:
    """Return the state of the worst row."""
    order = list(State)
    return max((row.state for row in rows), key=order.index, default=State.OK)


def exit_code(rows: List[Row]) -> int:
    """Return 0 if all is well, 1 for a warning, 2 for a fault."""
    return list(State).index(worst(rows))


def as_text(rows: List[Row]) -> str:
    """Return the rows for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.state.value:<8} {row.name:<{width}}  {printable(row.seen)}")
        if row.fix:
            lines.append(f"{'':<8} {'':<{width}}  → {printable(row.fix)}")
    ok, warnings, faults = (sum(row.state is state for row in rows) for state in State)
    lines.append(f"{ok} ok, {warnings} to look at, {faults} at fault")
    return "\n".join(lines)


def as_json(rows: List[Row]) -> str:
    """Return the rows for a program."""
    # This field has been called `mend` since the first version; scripts may read it.
    told = [{"name": row.name, "state": row.state.value, "seen": row.seen, "mend": row.fix} for row in rows]
    return json.dumps({"worst": worst(rows).value, "rows": told}, indent=2)
