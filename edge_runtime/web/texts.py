"""The page's words in English and Chinese, and which of the two a browser asks for."""

import json
from collections.abc import Mapping
from pathlib import Path

DEFAULT = "en"
FOLDER = Path(__file__).with_name("languages")

TEXTS: Mapping[str, Mapping[str, str]] = {
    code: json.loads((FOLDER / f"{code}.json").read_text(encoding="utf-8")) for code in ("en", "zh-Hans")
}
"""By language, then by key; both have the same keys."""

REASONS = {
    "between the thresholds": "reason_between",
    "face smaller than": "reason_small",
    "too dark": "reason_dark",
    "too blurred": "reason_blurred",
}
"""By how the runtime's reason begins, the page's words for it."""


def choose_language(accepted: str, asked: str | None = None) -> str:
    """Return `en` or `zh-Hans`: what was asked for, else what an Accept-Language header likes better."""
    if asked in TEXTS:
        return str(asked)
    liked = [(part.partition(";")[0].strip().lower(), _quality(part)) for part in accepted.split(",")]
    best = {code: max((q for name, q in liked if name.split("-")[0] == code[:2]), default=0.0) for code in TEXTS}
    chosen = max(best, key=lambda code: best[code])
    return chosen if best[chosen] > 0 else DEFAULT


def _quality(part: str) -> float:
    for parameter in part.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def reason_text(texts: Mapping[str, str], reason: str) -> str:
    """Return the page's words for the runtime's reason."""
    for beginning, key in REASONS.items():
        if reason.startswith(beginning):
            return texts[key]
    return texts["reason_other"].format(reason=reason)


def problem_text(texts: Mapping[str, str], name: str) -> str:
    """Return the page's words for a problem."""
    return texts.get(f"problem_{name}", texts["problem_other"])


def percent(score: float) -> str:
    """Return a score in [0, 1] as a person reads it; never 0 % or 100 %, which no model can promise."""
    if score < 0.001:
        return "< 0.1 %"
    if score > 0.999:
        return "> 99.9 %"
    return f"{100 * score:.1f} %"


def threshold_percent(threshold: float) -> str:
    """Return a threshold in [0, 1] as a person reads it."""
    return f"{100 * threshold:.3g} %"
