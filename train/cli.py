"""The commands `prepare-faces`, `train-detector`, `evaluate-detector` and `leave-one-out`."""

import functools
import json
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import Needs, run_command
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain
from train.choices import (
    Balance,
    Folders,
    FrontEnd,
    InputPreset,
    Keep,
    Preset,
    Robustness,
    StepPrecision,
    TrainingDevice,
)
from train.commands.console import tell_evaluation, tell_prepared, tell_table, tell_trained
from train.data.catalog import SEED, SHARES

_pictures, _faces, _reviewed, _network, _data, _training, _figures, _videos, _results = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ["Pictures", "Faces", "Reviewed faces", "Network", "Data", "Training", "Figures", "Videos", "Results"]
)


def prepare_faces(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of faces, in a known layout; also hf://datasets/user/name, kaggle://owner/name."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for catalog.csv and audit.html.")] = Path("prepared"),
    real: Annotated[list[Path] | None, _pictures(help="A folder of real faces; repeatable.")] = None,
    fake: Annotated[list[Path] | None, _pictures(help="A folder of fakes; repeatable.")] = None,
    layout: Annotated[str, _pictures(help="Name of the layout, if it is not recognized.")] = "",
    folders: Annotated[Folders, _pictures(help="What folders below real/ and fake/ are.")] = Folders.AUTO,
    split: Annotated[str, typer.Option(help="Shares of train, valid and test.")] = SHARES,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = SEED,
    min_quality: Annotated[float, _faces(min=0.0, help="Leave out blurred and dark faces; 10 is usual.")] = 0.0,
    crop: Annotated[bool, _faces("--crop", help="Find the face in each picture, as the board does.")] = False,
    face_model: Annotated[Path | None, _faces(help="The face detector's model file."), Needs(("crop",))] = None,
    harmonize: Annotated[int, _faces(min=0, help="Encode both classes alike, at this many pixels a side.")] = 0,
    reviewed: Annotated[
        Path | None,
        _reviewed(help="Add the faces of this review database to --base."),
        Needs(("base",), "the catalog to extend"),
    ] = None,
    base: Annotated[
        Path | None, _reviewed(help="The catalog to make a new version of."), Needs(("reviewed",), "a review database")
    ] = None,
    private_key: Annotated[
        Path | None, _reviewed(help="Opens reviewed pictures that are encrypted."), Needs(("reviewed",))
    ] = None,
    shards: Annotated[Path | None, typer.Option(help="Also copy the faces into tar shards in this folder.")] = None,
) -> int:
    """Make a catalog of faces: cleaned, split without leaks, audited for shortcuts.

    No picture is deleted; quarantine.csv lists those that are left out. Exits with 1 if the audit finds a fault
    or a split lacks a class.

    Examples:
    - `prepare-faces faces/ --out prepared   # faces/ holds real/ and fake/`
    - `prepare-faces iFakeFaceDB/ VGGFace2/ --crop --out prepared   # data sets of one class each`
    - `prepare-faces --real photos/ --fake generated/ --harmonize 256 --out prepared`
    - `prepare-faces --reviewed reviews.sqlite --base prepared --out reviewed   # add what people reviewed`
    """
    from train.commands.shards import shards_folder, write_shards

    packed = shards_folder(shards) if shards else None
    if reviewed and base:
        given = (sources, real, fake, layout, crop, face_model, harmonize, min_quality)
        if any(given) or folders is not Folders.AUTO:
            raise UsageError(
                "with --reviewed and --base, only --private-key, --split, --seed, --shards and --out can be given"
            )
        from train.commands.reviewed import prepare_reviewed

        version = prepare_reviewed(reviewed, base, out, split=split, seed=seed, private_key=private_key)
        if packed:
            write_shards(version.catalog, packed)
        return tell_prepared(version, expand(out))
    from train.commands.prepare import PrepareOptions
    from train.commands.prepare import prepare_faces as prepare

    options = PrepareOptions(
        real=real or (),
        fake=fake or (),
        layout=layout,
        folders=folders,
        split=split,
        seed=seed,
        min_quality=min_quality,
        crop=crop,
        face_model=face_model,
        harmonize=harmonize,
    )
    prepared = prepare(sources or (), out, options)
    if packed:
        write_shards(prepared.catalog, packed)
    return tell_prepared(prepared, expand(out))


def prepare_faces_main() -> None:
    """Start `prepare-faces`."""
    run_command(prepare_faces, "prepare-faces")


def train_detector(
    data: Annotated[
        list[Path], typer.Argument(help="A catalog.csv, shards, or a folder with real/ and fake/; several combine.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run, new or to resume.")] = Path("runs/detector"),
    arch: Annotated[str, _network(help="Name of the backbone.")] = "resnet50",
    preset: Annotated[Preset, typer.Option(metavar="NAME", help=f"The recipe: {', '.join(Preset)}.")] = Preset.DEFAULT,
    weights: Annotated[str | None, _network(help="Weights to start from: imagenet, none, or a file.")] = None,
    teacher: Annotated[Path | None, _network(help="A checkpoint to learn from, besides the labels.")] = None,
    epochs: Annotated[int | None, _training(min=1, help="Passes over the training faces.")] = None,
    batch: Annotated[int | None, _training(min=2, help="Faces per step.")] = None,
    learning_rate: Annotated[float | None, _training("--lr", min=0.0, help="Highest learning rate.")] = None,
    pixels: Annotated[
        InputPreset | None,
        _network("--input", metavar="NAME", help=f"Face to pixels: {', '.join(InputPreset)}."),
    ] = None,
    input_size: Annotated[int | None, _network(min=32, help="Pixels a side of the network's input.")] = None,
    without: Annotated[str, _data(help="Augmentations to leave out, separated by commas, or all.")] = "",
    clean_share: Annotated[
        float | None, _data(min=0, max=1, help="Share of faces without damaging augmentations.")
    ] = None,
    spared: Annotated[float | None, typer.Option(min=0, max=1, hidden=True, help="Its former name.")] = None,
    staged: Annotated[
        float | None, _training(min=0, max=1, help="Share of epochs that learn teacher maps alone.")
    ] = None,
    progressive: Annotated[str | None, _training(help="Growing crops, like 0.5:64,0.35:128.")] = None,
    patience: Annotated[int | None, _training(min=0, help="Epochs without a better AUC; 0: no limit.")] = None,
    keep: Annotated[Keep | None, _training(help="Keep the best epoch on validation, or the last.")] = None,
    framing: Annotated[
        Framing | None, _network(help="What the runtime judges: detected faces, or the whole picture.")
    ] = None,
    front_end: Annotated[FrontEnd | None, _network(help="A fixed high-pass filter in the network.")] = None,
    split: Annotated[str, _data(help="Shares of train, valid and test, for a folder.")] = SHARES,
    leave_out: Annotated[list[str] | None, _data(help="A source or generator to leave out; repeatable.")] = None,
    self_made: Annotated[bool, _data("--self-made", help="Add fakes: reals passed through autoencoders.")] = False,
    self_blended: Annotated[bool, _data("--self-blended", help="Add fakes: reals blended into themselves.")] = False,
    balance: Annotated[Balance | None, _data(help="Draw each source of a class equally often.")] = None,
    seed: Annotated[int, _training(help="Seed of all random draws.")] = SEED,
    workers: Annotated[int | None, _training(min=0, help="Processes that load pictures.")] = None,
    precision: Annotated[StepPrecision, _training(help="Precision of a training step.")] = StepPrecision.AUTO,
    device: Annotated[TrainingDevice, _training(help="Where to train.")] = TrainingDevice.AUTO,
    max_fpr: Annotated[float, _results(help="Share of real faces that may be called fake.")] = 0.01,
    max_fnr: Annotated[float, _results(help="Share of fakes that may be called real.")] = 0.01,
    licence: Annotated[str, _results(help="Rights to the data, for the model card.")] = "",
    no_pictures: Annotated[bool, _results("--no-pictures", help="Leave faces out of the report.")] = False,
    demo: Annotated[bool, _results("--demo", help="Mark the model: the faces are drawn samples.")] = False,
) -> int:
    """Train a detector on faces.

    Examples:
    - `train-detector prepared/ --out runs/resnet50   # fine-tune ResNet-50 from ImageNet weights`
    - `train-detector multi/ stylegan/train --arch efficientnet_lite0 --out runs/pool   # several data sets`
    - `train-detector prepared/ --preset taught --teacher runs/lite0/best.pth --out runs/resnet50   # offline`
    """
    from train.commands.train import TrainingOptions
    from train.commands.train import train_detector as train
    from train.learning.recipes import parse_progressive

    options = TrainingOptions(
        arch=arch,
        preset=preset,
        teacher=teacher,
        split=split,
        leave_out=leave_out or (),
        self_made=self_made,
        self_blended=self_blended,
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
        "input_size": input_size,
        "front_end": front_end,
        "framing": framing,
        "balance": balance,
        "clean_share": clean_share if spared is None else spared,
        "staged": staged,
        "progressive": parse_progressive(progressive) if progressive else None,
        "patience": patience,
        "keep": keep,
        "seed": seed,
    }
    trained = train(data, out, options, changes, without)
    return tell_trained(trained.best, trained.catalog, trained.evaluation)


def train_detector_main() -> None:
    """Start `train-detector`."""
    run_command(train_detector, "train-detector")


def evaluate_detector(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.pth) or a bundle.")],
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and report.html.")] = Path("evaluation"),
    split: Annotated[str, typer.Option(help="train, valid, test or all; auto is test where there is one.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="Precision of a bundle: fp32, fp16 or int8.")] = None,
    device: Annotated[str, typer.Option(help="Device for a bundle: CPU or GPU.")] = "CPU",
    robustness: Annotated[Robustness, _figures(help="Grid of damaged pictures.")] = Robustness.ONE,
    robustness_faces: Annotated[int, _figures(min=2, help="Faces per row of the robustness grid.")] = 400,
    no_pictures: Annotated[bool, _results("--no-pictures", help="Leave faces out of the report.")] = False,
    bootstrap: Annotated[int, _figures(min=0, help="Resamples for the intervals.")] = 1000,
    attacks: Annotated[
        bool, _figures("--attacks", help="Attack a checkpoint: FGSM, PGD, fakes through an autoencoder.")
    ] = False,
    by: Annotated[str, _figures(help="Figures by source, generator, or both: source,generator.")] = "",
    pairs: Annotated[list[str] | None, _figures(help="GENERATOR:SOURCE that belong together; repeatable.")] = None,
    scores: Annotated[Path | None, _results(help="Write one line per face or video to this CSV file.")] = None,
    videos: Annotated[
        bool, _videos("--videos", help="Judge videos: files, or folders of frames, in real/ and fake/.")
    ] = False,
    fit_video: Annotated[
        bool, _videos("--fit-video", help="Fit thresholds to these videos and write them into the bundle.")
    ] = False,
    as_json: Annotated[bool, _results("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Measure a detector on faces that it was not trained on.

    Examples:
    - `evaluate-detector runs/resnet50/best.pth prepared/ --out runs/resnet50/test`
    - `evaluate-detector detector/ multi/ --by source,generator --pairs dfdc_swap:dfdc   # figures across sources`
    - `evaluate-detector detector/ other_faces/ --precision int8 --no-pictures   # a report to share`
    - `evaluate-detector detector/ clips/ --fit-video   # videos in clips/real and clips/fake`
    """
    from train.commands.evaluate import EvaluationOptions
    from train.commands.evaluate import evaluate_detector as evaluate
    from train.evaluation.videos import has_video_files

    options = EvaluationOptions(
        split=split,
        precision=precision,
        device=device,
        robustness=robustness,
        robustness_faces=robustness_faces,
        pictures=not no_pictures,
        bootstrap=bootstrap,
        attacks=attacks,
        by=by,
        pairs=pairs or (),
        scores=scores,
        fit_video=fit_video,
    )
    if videos or fit_video or has_video_files(expand(data)):
        from train.commands.evaluate_videos import evaluate_videos, tell_videos

        judged = evaluate_videos(model, data, out, options)
        if as_json:
            print(json.dumps(plain(judged)))
        else:
            tell_videos(judged, expand(out))
        return 1 if judged.data["unreadable"] else 0
    evaluation = evaluate(model, data, out, options)
    if as_json:
        print(json.dumps(plain(evaluation)))
    else:
        tell_evaluation(evaluation, expand(out))
    return 1 if evaluation.data["unreadable"] or evaluation.data["broken"] else 0


def evaluate_detector_main() -> None:
    """Start `evaluate-detector`."""
    run_command(evaluate_detector, "evaluate-detector")


def leave_one_out(
    data: Annotated[list[str], typer.Argument(help="Data as for train-detector; after --, its options.")],
    out: Annotated[Path, typer.Option(help="Folder for the trainings and the table.")] = Path("leave-one-out"),
    group: Annotated[
        list[str] | None, typer.Option(help="NAME=SOURCE,GENERATOR to leave out together; repeatable.")
    ] = None,
    pairs: Annotated[list[str] | None, typer.Option(help="GENERATOR:SOURCE that belong together; repeatable.")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals.")] = 1000,
) -> int:
    """Train without each source and generator in turn, or without each --group, and judge what was left out.

    Run it again to resume. It writes leave-one-out.json, .md and .html.

    Examples:
    - `leave-one-out multi/ --group gan=progan,stylegan3 --out loo -- --arch efficientnet_lite0`
    """
    from train.commands.leave_one_out import LeaveOneOutOptions, parse_groups, table
    from train.commands.leave_one_out import leave_one_out as leave

    begin = next((place for place, word in enumerate(data) if word.startswith("-")), len(data))
    options = LeaveOneOutOptions(parse_groups(group or ()), pairs or (), data[begin:], bootstrap)
    rows = leave(list(map(Path, data[:begin])), out, options)
    tell_table(table(rows))
    print(f"table: {expand(out) / 'leave-one-out.md'}")
    return 0


def leave_one_out_main() -> None:
    """Start `leave-one-out`."""
    run_command(leave_one_out, "leave-one-out")
