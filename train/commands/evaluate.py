"""What `evaluate-detector` does, as a function to call from a notebook. Torch is imported only for checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError, UsageError
from edge_runtime.model.contract import CHECKPOINT
from edge_runtime.paths import expand
from train.commands.output import full_disk_reported, output_folder
from train.data.build import has_splits, load_data
from train.data.remote import fetched
from train.data.sample import pick_faces
from train.evaluation.evaluation import Evaluation, choose_split, judge_faces, open_subject, summarize
from train.evaluation.origins import KINDS, origin_figures, parse_kinds, parse_pairs
from train.evaluation.robustness import GRIDS, robustness_rows
from train.evaluation.times_judged import count_judged
from train.evaluation.training_faces import among
from train.parallel import progress_bar
from train.report.evaluation import write_evaluation, write_scores


@dataclass(frozen=True)
class EvaluationOptions:
    """How a detector is evaluated.

    `by` and `pairs` are read by train.evaluation.origins; `scores` is the file for one line per face or video;
    `fit_video` writes thresholds for videos into the bundle.
    """

    split: str = "auto"
    precision: str | None = None
    device: str = "CPU"
    robustness: str = "off"
    robustness_faces: int = 400
    pictures: bool = True
    bootstrap: int = 1000
    attacks: bool = False
    by: str = ""
    pairs: Sequence[str] = ()
    scores: Path | None = None
    fit_video: bool = False


def evaluate_detector(model: Path, data: Path, out: Path, options: EvaluationOptions) -> Evaluation:
    """Judge the faces of `data` with a checkpoint or bundle, and write figures and report into folder `out`.

    Raises:
        UsageError: an option can't be used, or `out` can't be written to.
        DataError: there is nothing to judge.
    """
    if options.robustness not in GRIDS:
        raise UsageError(f"--robustness {options.robustness}: unknown; choose one of {', '.join(GRIDS)}")
    subject = open_subject(model, precision=options.precision, device=options.device)
    if options.attacks and subject.precision != CHECKPOINT:
        raise UsageError("--attacks needs a checkpoint: a bundle has no gradients")
    kinds, pairs = parse_kinds(options.by), parse_pairs(options.pairs)
    if pairs and not kinds:
        kinds = KINDS
    if options.scores:
        scores = expand(options.scores)
        if scores.is_dir():
            raise UsageError(f"--scores {scores}: is a directory; give a file")
        output_folder(scores.parent, "--scores")
    out = output_folder(out)
    with full_disk_reported(out):
        place = fetched(expand(data))
        catalog = load_data(place)
        split = choose_split(place, catalog, options.split)
        faces = catalog.split(split)
        if not faces:
            raise DataError(f"{data}: the {split} split holds no faces; choose another --split")
        with progress_bar("judging", len(faces)) as advance:
            judged = judge_faces(subject, faces, advance)
        described = {
            "path": str(data),
            "split": split,
            "looks": count_judged(faces, subject.name),
            "left_out": {str(file.path): file.reason for file in catalog.quarantine},
            "broken": [str(file.path) for file in catalog.quarantine if file.broken],
        }
        origins = origin_figures(judged, kinds, pairs, options.bootstrap) if kinds else {}
        rows = robustness_rows(
            subject, judged.faces, GRIDS[options.robustness], options.robustness_faces, options.bootstrap
        )
        if options.attacks:
            from train.evaluation.attacks import attack_rows

            rows += attack_rows(subject, catalog, pick_faces(judged.faces, options.robustness_faces), options.bootstrap)
        alarms = []
        if seen := among(subject.trained, judged.faces):
            alarms.append(
                f"{len(seen)} of the {len(judged.faces)} judged faces were trained on, so the figures are too good "
                f"(e.g. {seen[0].path})"
            )
        if split == "valid":
            alarms.append(
                "the checkpoint and its thresholds were chosen on validation faces: expect lower figures on others"
            )
        evaluation = summarize(
            subject,
            judged,
            described,
            bootstrap=options.bootstrap,
            robustness=rows,
            alarms=alarms,
            origins=origins,
        )
        if options.scores:
            write_scores(scores, judged, splits=has_splits(place))
        write_evaluation(out, evaluation, judged, pictures=options.pictures)
        return evaluation
