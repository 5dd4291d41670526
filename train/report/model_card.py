"""The model card next to a checkpoint: its data, training, figures and limits."""

from collections import Counter
from pathlib import Path

from edge_runtime.atomic import write_atomic
from edge_runtime.model.contract import DEMO_NOTICE, LABELS, ModelContract
from train.data.catalog import SPLITS, Catalog
from train.evaluation.calibrate import bounds_text
from train.evaluation.evaluation import Evaluation
from train.evaluation.metrics import FIGURE_NAMES
from train.learning.recipes import Recipe
from train.report.evaluation import DECIDED
from train.report.html import figure_text

LIMITS = (
    "It is not proof. A score is evidence about pixels; people decide what it means.",
    "It knows the generators that it was trained on. On faces of other generators it may be no better than chance, "
    "above all on diffusion models.",
    "Compression, scaling, filters and filming from a screen remove the traces that it looks for; see the robustness "
    "grid.",
    "It may do better or worse for groups of people that are rare in its data. This was not measured here.",
    "Whoever knows the model can change a picture so that it errs.",
)


def write_model_card(
    path: Path, contract: ModelContract, recipe: Recipe, catalog: Catalog, evaluation: Evaluation, licence: str
) -> None:
    """Write the card as Markdown; `licence` says what is known about the rights to the data."""
    counts = Counter((face.split, face.label) for face in catalog.records)
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
        f"| split | {' | '.join(LABELS)} |",
        "| --- | ---: | ---: |",
        *(f"| {split} | {counts[split, 0]} | {counts[split, 1]} |" for split in SPLITS),
        "",
        f"- sources: {', '.join(sources) or 'not stated'}",
        f"- generators of the fakes: {', '.join(generators) or 'not stated'}",
        *([f"- left out of training: {', '.join(catalog.left_out)}"] if catalog.left_out else []),
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
        f"intervals of 95 %. {recipe.chosen.capitalize()} were chosen on the validation split, so figures on it are "
        "the best on validation, not what to expect. Measure another split with evaluate-detector.",
        "",
        "| figure | value |",
        "| --- | ---: |",
        *(f"| {name} | {figure_text(evaluation.figures[key])} |" for key, name in FIGURE_NAMES.items()),
        *(f"| {name} | {figure_text(evaluation.decided[key])} |" for key, name in DECIDED.items()),
        "",
        bounds_text(evaluation.calibration),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    write_atomic(path, "\n".join(lines), errors="replace")
