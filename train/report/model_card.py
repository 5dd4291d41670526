"""The card that lies beside a checkpoint: what it was made from, what it can do, and what it can not."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.model.contract import DEMO_NOTICE, LABELS, ModelContract
from train.data.build import SPLITS, Catalog
from train.evaluation.evaluation import Evaluation
from train.evaluation.metrics import FIGURE_NAMES
from train.learning.recipes import Recipe
from train.report.evaluation import DECIDED
from train.report.html import figure_text

LIMITS = (
    "It is not proof. A score is evidence about pixels; people decide what it means.",
    "It knows the generators that it was trained on. On faces of other generators it may be no better than chance, and "
    "diffusion models are the usual case.",
    "Compression, scaling, filters and filming from a screen take away what it looks for; see the robustness grid.",
    "It may do better or worse for groups of people that are rare in its data. This was not measured here.",
    "Whoever knows the model can change a picture so that it errs.",
)


def write_model_card(
    path: Path, contract: ModelContract, recipe: Recipe, catalog: Catalog, evaluation: Evaluation, licence: str
) -> None:
    """Write the card as Markdown; `licence` is what is known of the rights to the data."""
    sources = sorted({face.source for face in catalog.records if face.source})
    generators = sorted({face.generator for face in catalog.records if face.generator})
    lines = [
        f"# {contract.architecture} {contract.version}",
        "",
        *([f"**This is a {DEMO_NOTICE}.**", ""] if contract.demo else []),
        "Tells AI-generated faces from photographs: real, fake or uncertain.",
        "",
        "## Data",
        "",
        *_counts(catalog),
        "",
        f"- sources: {', '.join(sources) or 'not stated'}",
        f"- generators of the fakes: {', '.join(generators) or 'not stated'}",
        f"- rights to the data: {licence or 'not stated'}",
        f"- fingerprint: `{contract.data}`",
        "",
        "## Training",
        "",
        *(f"- {name}: {value}" for name, value in recipe.to_dict().items()),
        "",
        "## Figures",
        "",
        f"On the {evaluation.data['split']} split ({evaluation.data['faces']} faces), at the balanced threshold, with "
        f"intervals of 95 %. {recipe.chosen.capitalize()} were chosen on the validation split: figures on it are "
        "the best on validation, not what to expect: measure another split with evaluate-detector.",
        "",
        "| figure | value |",
        "| --- | ---: |",
        *(f"| {name} | {figure_text(evaluation.figures[key])} |" for key, name in FIGURE_NAMES.items()),
        *(f"| {name} | {figure_text(evaluation.decided[key])} |" for key, name in DECIDED.items()),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")


def _counts(catalog: Catalog) -> Sequence[str]:
    rows = ["| split | real | fake |", "| --- | ---: | ---: |"]
    for split in SPLITS:
        counts = Counter(face.label for face in catalog.split(split))
        rows.append(f"| {split} | " + " | ".join(str(counts[label]) for label in range(len(LABELS))) + " |")
    return rows
