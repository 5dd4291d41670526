"""The fleet on one screen: 200 boards in 24 lines of 80 columns."""

from collections import Counter
from typing import Dict, List, Union

from board_setup.errors import printable
from board_setup.workstation.deploy import DeployError
from board_setup.workstation.fleet.limits import Health, drifts

WIDTH = 80
GROUP, GROUPS = 10, 5
DETAILS = 12
"""How many boards that need attention get a line."""

Answers = Dict[str, Union[Health, DeployError]]

LEGEND = ". ok  o older  c clock  w watch  d drift  r restarts  x not running  ? away"
CLOCK_S = 3600.0
"""A clock that is further off is wrong: kits expire by it, and dates mean nothing."""


def letter(found: Union[Health, DeployError], newest: str) -> str:
    """Return one letter for the state of a board, the worst first; see LEGEND."""
    if isinstance(found, DeployError):
        return "?"
    if not found["version"] or (found["camera"] and found.get("service") not in ("active", None)):
        return "x"
    if drifts(found):
        return "d"
    if found["camera"] and found["restarts"]:
        return "r"
    if (found.get("drift") or {}).get("state") == "watch":
        return "w"
    if has_wrong_clock(found):
        return "c"
    return "." if found["version"] == newest else "o"


def told(found: Union[Health, DeployError], state: str) -> str:
    """Return what is wrong with a board, in words."""
    if isinstance(found, DeployError):
        return str(found)
    drift = found.get("drift") or {}
    words = {
        "x": f"{found['version'] or 'no version'}, service {found.get('service') or 'not installed'}",
        "d": f"drift since {drift.get('since', '?')}: {drift.get('reason', '')}",
        "w": f"watch since {drift.get('since', '?')}: {drift.get('reason', '')}",
        "r": f"{found['restarts']} restarts",
        "c": f"its clock is {abs(found.get('clock_ahead_s', 0)) / 86400:.1f} days "
        f"{'ahead' if found.get('clock_ahead_s', 0) > 0 else 'behind'}; set it",
    }
    return words.get(state, str(found["version"]))


def has_wrong_clock(found: Health) -> bool:
    """Return whether a board's clock is more than CLOCK_S off."""
    return abs(found.get("clock_ahead_s", 0.0)) > CLOCK_S


def _is_dated_ahead(found: Health) -> bool:
    """Return whether a board's version dates from its future, since its clock was ahead at that time."""
    return "time" in found and str(found.get("since")) > str(found["time"])


def draw(answers: Answers) -> str:
    """Return the screen: counts by version, a letter for each board, and a line for those that need attention.

    The newest version is the one whose boards got it last. Boards whose clock is wrong, or was ahead then, have no say
    if others answer.
    """
    known = [found for found in answers.values() if not isinstance(found, DeployError) and found["version"]]
    dated = [found for found in known if not has_wrong_clock(found) and not _is_dated_ahead(found)] or known
    newest = max(dated, key=lambda found: str(found.get("since")))["version"] if known else ""
    letters = {name: letter(found, newest) for name, found in answers.items()}
    by_version = Counter(found["version"] for found in known)
    signed = sum(bool(found.get("signed_by")) for found in known)
    counts = ", ".join(f"{count} on {version}" for version, count in by_version.most_common(3))
    others = f", {len(by_version) - 3} other versions" if len(by_version) > 3 else ""
    lines = [f"{len(answers)} boards: {counts or 'none answers'}{others}; {signed} signed"[:WIDTH], LEGEND, ""]
    names = list(answers)
    for start in range(0, len(names), GROUP * GROUPS):
        row = names[start : start + GROUP * GROUPS]
        groups = ["".join(letters[name] for name in row[at : at + GROUP]) for at in range(0, len(row), GROUP)]
        lines.append(f"{row[0][:22]:<22}  {' '.join(groups)}")
    return "\n".join([*lines, *_details(answers, letters)])


def _details(answers: Answers, letters: Dict[str, str]) -> List[str]:
    """Return a line for each board that needs attention, the worst first, as many as fit."""
    bad = sorted(
        (name for name in answers if letters[name] not in ".o"), key=lambda name: "x?drwc".index(letters[name])
    )
    lines = [printable(f"{letters[name]} {name}: {told(answers[name], letters[name])}") for name in bad[:DETAILS]]
    more = [f"and {len(bad) - DETAILS} more"] if len(bad) > DETAILS else []
    cut = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]
    return ["", *cut, *more] if bad else []
