"""The page's texts in English and Chinese, and the choice between them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

DEFAULT = "en"
FOLDER = Path(__file__).with_name("languages")

Texts = Mapping[str, str]

TEXTS: Mapping[str, Texts] = {
    code: json.loads((FOLDER / f"{code}.json").read_text(encoding="utf-8")) for code in ("en", "zh-Hans")
}
"""By language, then by key. Both languages have the same keys."""


def choose_language(accepted: str, requested: str | None = None) -> str:
    """Return the language `requested` if there is such a one, else the one an Accept-Language header prefers."""
    if requested in TEXTS:
        return str(requested)
    quality = dict.fromkeys(TEXTS, 0.0)
    for part in accepted.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        try:
            value = next((float(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        except ValueError:
            value = 0.0
        for code in TEXTS:
            if name.lower().split("-")[0] == code[:2]:
                quality[code] = max(quality[code], value)
    best = max(quality, key=lambda code: quality[code])
    return best if quality[best] > 0 else DEFAULT


def problem_texts(texts: Texts, *, files: int, formats: Iterable[str]) -> dict[str, str]:
    """Return the texts for the kinds of problem; `files` is the most pictures in one request."""
    values = {"files": files, "formats": ", ".join(formats)}
    prefix = "problem_"
    return {key.removeprefix(prefix): text.format(**values) for key, text in texts.items() if key.startswith(prefix)}


def score_text(score: float) -> str:
    """Format a score in [0, 1]; never as 0 or 1, since no model is certain."""
    if score < 0.001:
        return "< 0.001"
    return "> 0.999" if score > 0.999 else f"{score:.3f}"


def threshold_text(threshold: float) -> str:
    """Format a threshold in [0, 1]."""
    return f"{threshold:.4f}".rstrip("0").rstrip(".")
