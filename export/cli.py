"""`export-openvino`: what its options are, and what it prints."""

from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from export.steps import Printed


def main() -> None:
    """Start the command."""
    run_command(export_openvino, "export-openvino")


def export_openvino(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.pth).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = Path("detector"),
    calibration: Annotated[
        Path | None,
        typer.Option(help="Catalog, or folder with real/ and fake/. Default: what the checkpoint was trained on."),
    ] = None,
    only: Annotated[str, typer.Option(help="Which parts: some of fp32,fp16,int8,onnx.")] = "fp32,fp16,int8,onnx",
    arch: Annotated[str | None, typer.Option(help="Of a bare state_dict: its backbone.")] = None,
    labels: Annotated[str | None, typer.Option(help="Of a bare state_dict: real,fake or fake,real.")] = None,
    preset: Annotated[
        str | None, typer.Option("--input", help="Of a bare state_dict: article, resize, native.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the bundle is called.")] = "detector",
    version: Annotated[str, typer.Option(help="The model's version, such as 1.4.0.")] = "",
    face_model: Annotated[Path | None, typer.Option(help="The face detector's model (.tflite).")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a bundle that is there already.")] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of faces.")] = 42,
) -> int:
    """Export a checkpoint as a verified bundle: ONNX, and OpenVINO in FP32, FP16 and INT8."""
    from export.pipeline import PARTS, Options, export_bundle
    from export.to_onnx import read_source

    parts = tuple(part.strip() for part in only.split(","))
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UsageError(f"--only {only}: {unknown[0]!r} is unknown; choose of {', '.join(PARTS)}")
    steps = Printed()
    source = read_source(
        checkpoint.expanduser(), arch=arch, labels=labels.split(",") if labels else None, preset=preset
    )
    options = Options(parts=parts, name=name, version=version, seed=seed, face_model=face_model, replace=replace)
    bundle = export_bundle(source, calibration, out, options=options, steps=steps)
    print(f"{bundle.path}: {', '.join(p.value for p in bundle.precisions)} in {steps.total_s:.0f} s")
    return 0
