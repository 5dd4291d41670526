"""What `evaluate-detector` does with videos."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from edge_runtime.atomic import atomic_write, write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import DEMO_NOTICE, LABELS, Calibration
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain
from train.commands.evaluate import EvaluationOptions
from train.commands.output import full_disk_reported, output_folder
from train.evaluation.method import contents, contents_fingerprint, method
from train.evaluation.metrics import FIGURE_NAMES, RANKING, Figure
from train.evaluation.videos import (
    JudgedVideos,
    fit_video_thresholds,
    fitted_text,
    judge_videos,
    list_videos,
    video_figures,
    video_rows,
    write_video_thresholds,
)
from train.parallel import progress_bar
from train.report.evaluation import DECIDED, method_section
from train.report.html import Section, Table, figure_text, write_report


@dataclass(frozen=True)
class VideoEvaluation:
    """Everything that was measured of a bundle on videos.

    `figures` are those of the highest score of each video's faces, `decided` those of its verdict; `fitted` holds new
    thresholds by precision, if any.
    """

    subject: Mapping[str, Any]
    data: Mapping[str, Any]
    calibration: Mapping[str, Any]
    figures: Mapping[str, Figure]
    decided: Mapping[str, Figure]
    fitted: Mapping[str, Any]
    notes: Sequence[str]
    videos: Sequence[Mapping[str, Any]]
    method: Mapping[str, Any]


def evaluate_videos(model: Path, data: Path, out: Path, options: EvaluationOptions) -> VideoEvaluation:
    """Judge the videos in `data`/real and `data`/fake with a bundle, and write figures and report into folder `out`.

    With `options.fit_video`, thresholds for videos are fitted for the given precision, else for each that the bundle
    holds, and written into the bundle.

    Raises:
        UsageError: an option can't be used, or a file can't be written.
        BundleError: `model` is not a bundle, or lacks the face model.
        DataError: there is nothing to judge, or not enough to fit to.
    """
    if options.attacks or options.by or options.pairs:
        raise UsageError("--attacks, --by and --pairs are for pictures; leave them out for videos")
    model, data = expand(model), expand(data)
    if model.is_file():
        raise UsageError(f"{model}: videos are judged as the board judges them; give a bundle (export-openvino)")
    bundle = Bundle.open(model)
    if options.fit_video and (bundle.shipped or bundle.address):
        raise UsageError(f"{bundle.origin}: is not changed; copy {bundle.path} (cp -rL) and name the copy")
    held = [precision.value for precision in bundle.precisions]
    precision = options.precision or (held[-1] if held else "int8")
    videos, out = list_videos(data), output_folder(out)
    fit = ([options.precision] if options.precision else held) if options.fit_video else []
    names = list(dict.fromkeys((precision, *fit)))
    # Before hours of judging, in which a video may vanish.
    hashes = {}
    with progress_bar("hashing videos", len(videos)) as advance:
        for video in videos:
            hashes[video.path] = contents(video.path)
            advance(1)
    judged = {}
    with progress_bar("judging videos", len(videos) * len(names)) as advance:
        for name in names:
            judged[name] = judge_videos(bundle, videos, precision=name, device=options.device, progress=advance)
    figures, decided = video_figures(judged[precision], options.bootstrap)
    fingerprint = contents_fingerprint((hashes[video.path], video.label) for video in judged[precision].videos)
    how = method(bundle.path, fingerprint, bootstrap=options.bootstrap, videos=True)
    fitted, notes = _fit(bundle, {name: judged[name] for name in fit})
    labels, scored = judged[precision].labels, judged[precision].scored
    evaluation = VideoEvaluation(
        subject={
            "name": f"{bundle.address or bundle.path.name} ({precision})",
            "architecture": bundle.contract.architecture,
            "version": bundle.contract.version,
            "precision": precision,
            "demo": bundle.contract.demo,
        },
        data={
            "path": str(data),
            **{name: int((labels == label).sum()) for label, name in enumerate(LABELS)},
            "unjudged": int((~scored).sum()),
            "unreadable": judged[precision].unreadable,
        },
        calibration=asdict(bundle.contract.calibration(precision).for_videos()),
        figures=figures,
        decided=decided,
        fitted={name: asdict(found) for name, found in fitted.items()},
        notes=notes,
        videos=video_rows(judged[precision]),
        method=how,
    )
    with full_disk_reported(out):
        _write(out, evaluation)
        if options.scores:
            _write_scores(expand(options.scores), evaluation.videos)
    return evaluation


def _fit(bundle: Bundle, judged: Mapping[str, JudgedVideos]) -> tuple[dict[str, Calibration], list[str]]:
    """Fit thresholds to the videos judged in each precision and write them into the bundle; say what they prove."""
    fitted = {name: fit_video_thresholds(bundle.contract.calibration(name), found) for name, found in judged.items()}
    notes = [fitted_text(name, found) for name, found in fitted.items()]
    if fitted and write_video_thresholds(bundle, fitted):
        notes.append(f"its signature no longer holds and was deleted; sign again with setup-board sign {bundle.path}")
    return fitted, notes


def _write(out: Path, evaluation: VideoEvaluation) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(evaluation), indent=2, ensure_ascii=False)
    write_atomic(out / "evaluation.json", text + "\n", errors="replace")
    subject, data, calibration = evaluation.subject, evaluation.data, evaluation.calibration
    what = [("model", subject["name"]), ("data", data["path"]), *((name, data[name]) for name in LABELS)]
    what += [("without a score", data["unjudged"]), ("unreadable", len(data["unreadable"]))]
    notes = [f"This is a {DEMO_NOTICE}."] if subject["demo"] else []
    figures = [(FIGURE_NAMES[name], figure_text(evaluation.figures[name])) for name in RANKING]
    verdicts = [(name, figure_text(evaluation.decided[key])) for key, name in DECIDED.items()]
    wrong = sorted(
        (row for row in evaluation.videos if row["verdict"] not in ("uncertain", row["label"])),
        key=lambda row: -abs(row["score"] - 0.5),
    )
    thresholds = f"A video is real up to {calibration['low']:.4f} and fake from {calibration['high']:.4f}."
    if evaluation.fitted:
        thresholds += " These were in force while the videos were judged; the new ones are below."
    sections = [
        Section("What was judged", [*notes, Table(("what", ""), what, text=True)]),
        Section(
            "Figures",
            [
                "Each video counts once, with the highest score of its faces. The positive class is fake. In brackets: "
                "95 % bootstrap intervals over videos.",
                Table(("figure", "value"), figures),
            ],
        ),
        Section("Verdicts", [thresholds, Table(("figure", "value"), verdicts)]),
    ]
    if evaluation.notes:
        sections.append(Section("Thresholds fitted to these videos", list(evaluation.notes)))
    if wrong:
        rows = [(row["path"], row["label"], f"{row['score']:.3f}", row["verdict"]) for row in wrong]
        sections.append(Section("Wrong verdicts", [Table(("video", "truth", "score", "verdict"), rows, text=True)]))
    sections.append(method_section(evaluation.method))
    write_report(out / "report.html", f"Evaluation of {subject['name']} on videos", sections)


def _write_scores(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        columns = ("path", "label", "frames", "score", "verdict", "reason")
        writer.writerow(("file", *columns[1:]))
        writer.writerows([row[name] for name in columns] for row in rows)


def tell_videos(evaluation: VideoEvaluation, out: Path) -> None:
    """Print the most important figures, the fitted thresholds, and where the report is."""
    console, data = Console(highlight=False), evaluation.data
    title = f"{evaluation.subject['name']} on {len(evaluation.videos)} videos"
    table = Grid("figure", "value (95 % interval)", title=title, title_justify="left")
    for name in RANKING:
        table.add_row(FIGURE_NAMES[name], figure_text(evaluation.figures[name]))
    for key, name in DECIDED.items():
        table.add_row(name, figure_text(evaluation.decided[key]))
    console.print(table)
    if data["unjudged"]:
        console.print(f"{data['unjudged']} without a score: no face was judged in 16 frames; they count as uncertain")
    for line in evaluation.notes:
        console.print(line, markup=False, soft_wrap=True)
    for path, reason in data["unreadable"].items():
        Console(stderr=True, highlight=False).print(f"left out: {path}: {reason}", markup=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)
