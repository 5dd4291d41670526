"""What `leave-one-out` does: train without each group of sources and generators, and judge what was left out."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.atomic import write_atomic
from edge_runtime.command import INTERRUPTED
from edge_runtime.errors import CheckpointError, DataError, UsageError
from edge_runtime.model.contract import LABELS
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain
from train.commands.evaluate import EvaluationOptions, evaluate_detector
from train.commands.output import full_disk_reported, output_folder
from train.data.build import load_data
from train.data.catalog import CATALOG, Catalog, FaceRecord
from train.data.splits import group_faces
from train.evaluation.evaluation import judge_faces, open_subject
from train.evaluation.metrics import Figure, auc_figure
from train.evaluation.origins import ORIGIN_FIGURES, Pairs, across, parse_pairs
from train.evaluation.times_judged import count_judged
from train.parallel import progress_bar
from train.report.html import Section, Table, figure_text, write_report

PLAN, TABLE = "plan.json", "leave-one-out.json"
NONE: Figure = dict.fromkeys(("value", "low", "high"), float("nan"))
TRAIN = "from train.cli import train_detector_main; train_detector_main()"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LeaveOneOutOptions:
    """What is left out, and how the others are trained.

    Attributes:
        groups: the sources and generators to leave out together, by the group's name; empty: each one alone, where its
            class has several.
        pairs: `fake:real`, see train.evaluation.origins.
        training: options of train-detector.
    """

    groups: Mapping[str, Sequence[str]]
    pairs: Sequence[str] = ()
    training: Sequence[str] = ()
    bootstrap: int = 1000


def parse_groups(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `gan=progan,stylegan3`.

    Raises:
        UsageError: a text has another form, or a name can't be a folder's.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, members = text.partition("=")
        names = tuple(filter(None, (part.strip() for part in members.split(","))))
        if not names or name in ("", ".", "..", *groups) or "/" in name:
            raise UsageError(f"--group {text}: give a new name and what to leave out, as in gan=progan,stylegan3")
        groups[name] = names
    return groups


def leave_one_out(data: Sequence[Path], out: Path, options: LeaveOneOutOptions) -> list[Row]:
    """Return a row for each group so far, and write them into `out` as leave-one-out.json, .md and .html.

    For each group a detector is trained on the rest of `data` and judges the faces that were left out, against the
    test split of the other class. What is done already is kept; an interrupted training is resumed.

    Raises:
        UsageError: an option can't be used, or `out` holds another table.
        DataError: `data` can't be used, or a group has nothing to be judged against.
        CheckpointError: a training failed.
    """
    pairs, out = parse_pairs(options.pairs), output_folder(out)
    with full_disk_reported(out):
        catalog, groups = _planned(data, out, options, pairs)
        judged = {name: left_out_faces(catalog, names, pairs) for name, names in groups.items()}
        rows = _read_rows(out / TABLE)
        for name, names in groups.items():
            if "known_auc" not in rows.get(name, {}):  # else made by an earlier version
                best = _train(out / CATALOG, out / name / "run", names, options.training)
                figures = _judge(best, judged[name], pairs, options.bootstrap)
                known = _known_auc(best, catalog.leaving_out(names).split("test"), options.bootstrap)
                rows[name] = {"by": "group", "name": name, "left_out": list(names), **figures, "known_auc": known}
            _write(out, [*rows.values()])
    return [*rows.values()]


def _planned(
    data: Sequence[Path], out: Path, options: LeaveOneOutOptions, pairs: Pairs
) -> tuple[Catalog, Mapping[str, Sequence[str]]]:
    """Return the catalog of `data`, made once so that every training has the same splits, and the groups.

    Both are noted in `out`, so that a later run continues with the same.
    """
    plan: dict[str, Any] = {
        "data": [str(expand(path).resolve()) for path in data],
        "pairs": [*options.pairs],
        "training": [*options.training],
    }
    before: dict[str, Any] = {"groups": {}, **plan}
    if (out / PLAN).is_file():
        try:
            before = {"groups": {}, **json.loads((out / PLAN).read_text(encoding="utf-8"))}
        except (ValueError, TypeError):
            raise UsageError(f"--out {out}: {PLAN} is damaged; give another folder") from None
        catalog = Catalog.read(out / CATALOG)
    else:
        catalog = load_data(*data)
    groups = {name: list(names) for name, names in (options.groups or _alone(catalog)).items()}
    changed = [name for name, names in groups.items() if before["groups"].get(name, names) != names]
    if changed or plan != {key: before.get(key) for key in plan}:
        what = f"group {changed[0]}" if changed else "data or options"
        raise UsageError(f"--out {out}: holds a table with another {what}; give another folder")
    for names in groups.values():
        catalog.leaving_out(names)
    known = {face.origin for face in catalog.records}
    for name in {*pairs}.union(*pairs.values()) - known:
        listed = ", ".join(sorted(known))
        raise UsageError(f"--pairs: {name} is not a source or generator of the data; choose from {listed}")
    if not (out / PLAN).is_file():
        catalog.write(out / CATALOG)
    write_atomic(out / PLAN, json.dumps({**plan, "groups": before["groups"] | groups}, indent=2) + "\n")
    return catalog, groups


def _alone(catalog: Catalog) -> Mapping[str, Sequence[str]]:
    origins = [sorted({face.origin for face in catalog.records if face.label == label}) for label in range(len(LABELS))]
    alone: dict[str, Sequence[str]] = {name: (name,) for names in origins if len(names) > 1 for name in names if name}
    if not alone:
        raise DataError("no class has several sources or generators, so nothing can be left out")
    return alone


def left_out_faces(catalog: Catalog, names: Sequence[str], pairs: Pairs) -> list[FaceRecord]:
    """Return the faces of `names` that no training face belongs together with, and the test faces they are judged with.

    These are of the other class, and only of the sources or generators in `pairs`, if there are any.

    Raises:
        UsageError: the catalog has no such source or generator.
        DataError: there are none of the other class.
    """
    kept = {face.path for face in catalog.leaving_out(names).records}
    groups = dict(zip((face.path for face in catalog.records), group_faces(catalog.records), strict=True))
    trained = {groups[face.path] for face in catalog.records if face.path in kept and face.split != "test"}
    left = [face for face in catalog.records if face.path not in kept and groups[face.path] not in trained]
    labels = {face.label for face in left}
    paired = {real for name in names for real in pairs.get(name, ())}
    paired |= {fake for fake, reals in pairs.items() if reals & set(names)}
    others = [face for face in catalog.split("test") if face.path in kept and face.label not in labels]
    others = [face for face in others if not paired or face.origin in paired]
    if not left or (not others and len(labels) == 1):
        lacking = "left-out faces" if not left else "test faces of the other class"
        raise DataError(f"{', '.join(names)}: there are no {lacking} to judge; give more faces or other groups")
    return [replace(face, split="test") for face in (*left, *others)]


def _train(catalog: Path, run: Path, names: Iterable[str], training: Sequence[str]) -> Path:
    """Train without `names` in its own process, unless that is done, and return the best checkpoint."""
    if not (run / "MODEL_CARD.md").is_file():  # what a training writes last
        left_out = [word for name in names for word in ("--leave-out", name)]
        print(f"training without {', '.join(names)}", flush=True)
        command = [sys.executable, "-c", TRAIN, str(catalog), *training, *left_out, "--out", str(run)]
        with subprocess.Popen(command) as process:
            # Ctrl-C reaches the training too, which then saves its step.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                code = process.wait()
            finally:
                signal.signal(signal.SIGINT, before)
        if code in (INTERRUPTED, -signal.SIGINT):
            raise KeyboardInterrupt
        if not (run / "MODEL_CARD.md").is_file():
            raise CheckpointError(f"{run}: the training ended with {code}, see above; run the command again to resume")
    return run / "best.pth"


def _judge(best: Path, faces: Sequence[FaceRecord], pairs: Pairs, bootstrap: int) -> dict[str, Any]:
    folder = best.parent.parent
    Catalog(tuple(faces)).write(folder / CATALOG)
    origins = {face.origin for face in faces}
    used = [f"{fake}:{real}" for fake, reals in pairs.items() for real in reals if {fake, real} <= origins]
    judging = EvaluationOptions(split="test", pictures=False, bootstrap=bootstrap, by="source,generator", pairs=used)
    evaluation = evaluate_detector(best, folder / CATALOG, folder, judging)
    figures = {**evaluation.decided, **evaluation.figures}
    counts = {name: evaluation.data[name] for name in LABELS}
    return {**counts, **{name: figures[name] for name in ORIGIN_FIGURES}}


def _known_auc(best: Path, faces: Sequence[FaceRecord], bootstrap: int) -> Figure:
    """Return the AUC on test `faces` of sources that were trained on; NaN where there are none of a class."""
    if len({face.label for face in faces}) < 2:
        return NONE
    subject = open_subject(best)
    count_judged(faces, subject.name)
    with progress_bar("judging", len(faces)) as advance:
        judged = judge_faces(subject, faces, advance)
    return auc_figure(judged.labels, judged.scores, groups=judged.groups, bootstrap=bootstrap)


def _read_rows(path: Path) -> dict[str, Row]:
    """Return the rows of an earlier run by name; JSON has null where a figure was NaN."""
    if not path.is_file():
        return {}

    def numbers(found: dict[str, Any]) -> dict[str, Any]:
        return {key: float("nan") if value is None else value for key, value in found.items()}

    rows = json.loads(path.read_text(encoding="utf-8"), object_hook=numbers)["rows"]
    return {row["name"]: row for row in rows}


def _write(out: Path, rows: Sequence[Row]) -> None:
    text = json.dumps(plain({"rows": rows, **across(rows)}), indent=2, ensure_ascii=False)
    write_atomic(out / TABLE, text + "\n", errors="replace")
    note = (
        "Each group was left out of one training and judged against test faces of the other class. The last column is "
        "of test faces of the sources and generators that were trained on."
    )
    write_report(out / "leave-one-out.html", "Leave one out", [Section("Table", [note, table(rows)])])


def table(rows: Sequence[Row]) -> Table:
    """Return the table of `rows`, with their mean and worst."""
    head = ("group", "left out", "real faces", "fake faces", *ORIGIN_FIGURES.values(), "AUC on known sources")
    cells = [
        (*begin, *(figure_text(row[key]) for key in ORIGIN_FIGURES), figure_text(row.get("known_auc", NONE)))
        for row in rows
        for begin in [(row["name"], ", ".join(row["left_out"]), row["real"], row["fake"])]
    ]
    for name, by_kind in across(rows).items():
        cells.append((name, "", "", "", *(figure_text(by_kind["group"][key]) for key in ORIGIN_FIGURES), ""))
    return Table(head, cells)
