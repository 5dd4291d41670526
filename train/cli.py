"""The commands of training: `prepare-faces`, `train-detector`, `evaluate-detector`. They parse and print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import run_command
from train.commands.console import tell_evaluation, tell_prepared, tell_trained
from train.data.catalog import SEED, SHARES
from train.report.html import plain


def prepare_faces(
    sources: Annotated[list[Path] | None, typer.Argument(help="Folders of faces, in a layout that is known.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for catalog.csv and audit.html.")] = Path("prepared"),
    real: Annotated[list[Path] | None, typer.Option(help="A folder of real faces; may be repeated.")] = None,
    fake: Annotated[list[Path] | None, typer.Option(help="A folder of fakes; may be repeated.")] = None,
    layout: Annotated[str, typer.Option(help="The layout's name, where it isn't recognized.")] = "",
    split: Annotated[str, typer.Option(help="Shares of train, valid and test.")] = SHARES,
    seed: Annotated[int, typer.Option()] = SEED,
    min_quality: Annotated[float, typer.Option(min=0.0, help="Leave out blurred (10 is usual) and dark faces.")] = 0.0,
    crop: Annotated[bool, typer.Option("--crop", help="Find the face in each picture, as the board does.")] = False,
    face_model: Annotated[Path | None, typer.Option(help="The face stage's model.")] = None,
    harmonize: Annotated[int, typer.Option(min=0, help="Encode both classes alike, so many pixels a side.")] = 0,
) -> int:
    """Make a catalog of faces: cleaned, split without leaks, audited for shortcuts.

    Nothing is deleted: what is left out is named in quarantine.csv. Ends with 1 where the audit finds a
    fault or a split lacks a class.

    **Examples**

    `prepare-faces faces/ --out prepared` where faces/ holds real/ and fake/.

    `prepare-faces iFakeFaceDB/ VGGFace2/ --crop --out prepared` for data sets of one class each.

    `prepare-faces --real photos/ --fake generated/ --harmonize 256 --out prepared`
    """
    from train.commands.prepare import PrepareOptions
    from train.commands.prepare import prepare_faces as prepare

    options = PrepareOptions(real or (), fake or (), layout, split, seed, min_quality, crop, face_model, harmonize)
    prepared = prepare(sources or (), out, options)
    return tell_prepared(prepared, out.expanduser())


def prepare_faces_main() -> None:
    """Start `prepare-faces`."""
    run_command(prepare_faces, "prepare-faces")


def train_detector(
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was stopped goes on.")] = Path("runs/detector"),
    arch: Annotated[str, typer.Option(help="The backbone.")] = "resnet50",
    preset: Annotated[str, typer.Option(help="default, taught, scratch, article, article-vit or quick.")] = "default",
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a file.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="A checkpoint whose scores are learnt too.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=2)] = None,
    learning_rate: Annotated[float | None, typer.Option("--lr", min=0.0)] = None,
    pixels: Annotated[str | None, typer.Option("--input", help="article, resize, native or native5.")] = None,
    without: Annotated[str, typer.Option(help="Augmentations to leave out, by comma; or all.")] = "",
    spared: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the faces that augmentations leave as they are.")
    ] = None,
    staged: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the epochs for a teacher's maps, one by one.")
    ] = None,
    progressive: Annotated[str | None, typer.Option(help="Crops that grow: 0.5:64,0.35:128.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without a better AUC before it stops; 0 goes to the end.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="The best epoch on validation, or the last.")] = None,
    split: Annotated[str, typer.Option(help="Shares of train, valid and test, for a folder.")] = SHARES,
    seed: Annotated[int, typer.Option()] = SEED,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that load pictures.")] = None,
    precision: Annotated[str, typer.Option(help="auto, bf16, fp16 or no.")] = "auto",
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    max_fpr: Annotated[float, typer.Option(help="Share of reals that may be called fake.")] = 0.01,
    max_fnr: Annotated[float, typer.Option(help="Share of fakes that may be called real.")] = 0.01,
    licence: Annotated[str, typer.Option(help="What is known of the rights to the data, for the model card.")] = "",
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Leave faces out of the report.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="The faces are made samples: mark the model.")] = False,
) -> int:
    """Train a detector on faces.

    **Examples**

    `train-detector faces/ --out runs/resnet50` fine-tunes ResNet-50 from ImageNet weights.

    `train-detector faces/ --preset taught --teacher runs/lite0/best.pth --out runs/resnet50` needs no network.
    """
    from train.commands.train import TrainingOptions
    from train.commands.train import train_detector as train
    from train.learning.recipes import parse_progressive

    options = TrainingOptions(
        arch=arch,
        preset=preset,
        teacher=teacher,
        split=split,
        workers=workers,
        precision=precision,
        device=device,
        max_fpr=max_fpr,
        max_fnr=max_fnr,
        demo=demo,
        licence=licence,
        pictures=not no_pictures,
    )
    changes = {
        "weights": weights,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "pixels": pixels,
        "spared": spared,
        "staged": staged,
        "progressive": parse_progressive(progressive) if progressive else None,
        "patience": patience,
        "keep": keep,
        "seed": seed,
    }
    return tell_trained(train(data, out, options, changes, without))


def train_detector_main() -> None:
    """Start `train-detector`."""
    run_command(train_detector, "train-detector")


def evaluate_detector(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pth) or a bundle.")],
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and report.html.")] = Path("evaluation"),
    split: Annotated[str, typer.Option(help="train, valid, test or all; auto is test where there is one.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="Of a bundle: fp32, fp16 or int8.")] = None,
    device: Annotated[str, typer.Option(help="Of a bundle: CPU or GPU.")] = "CPU",
    robustness: Annotated[str, typer.Option(help="off, one (cause at a time) or crossed.")] = "one",
    robustness_faces: Annotated[int, typer.Option(min=2, help="Faces a row of the grid.")] = 400,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Leave faces out of the report.")] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")] = 1000,
    attacks: Annotated[bool, typer.Option("--attacks", help="Attack a checkpoint: FGSM, PGD, washed fakes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Measure a detector on faces that it was not trained on.

    **Examples**

    `evaluate-detector runs/resnet50/best.pth faces/catalog.csv --out runs/resnet50/test`

    `evaluate-detector detector/ other_faces/ --precision int8 --no-pictures` for a bundle and a report to share.
    """
    from train.commands.evaluate import EvaluationOptions
    from train.commands.evaluate import evaluate_detector as evaluate

    options = EvaluationOptions(
        split, precision, device, robustness, robustness_faces, not no_pictures, bootstrap, attacks
    )
    evaluation = evaluate(model, data, out, options)
    if as_json:
        print(json.dumps(plain(evaluation.to_dict())))
    else:
        tell_evaluation(evaluation, out.expanduser())
    return 1 if evaluation.data["unreadable"] or evaluation.data["broken"] else 0


def evaluate_detector_main() -> None:
    """Start `evaluate-detector`."""
    run_command(evaluate_detector, "evaluate-detector")
