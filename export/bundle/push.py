"""Publishes a bundle with its card as one commit of a repository on the Hugging Face Hub."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from edge_runtime.errors import UsageError
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.model.bundle import BUNDLE_SIGNATURE, MANIFEST, Bundle
from edge_runtime.model.contract import DEMO_NOTICE, LABELS
from edge_runtime.model.hub import HubAddress, hub_address, hub_errors, hub_library
from train.evaluation.calibrate import bounds_text
from train.evaluation.metrics import FIGURE_NAMES
from train.report.html import figure_text
from train.report.model_card import LIMITS

CARD = "README.md"
FIGURES = ("auc", "eer", "tpr_at_1_fpr", "balanced_accuracy", "ece")


def push_target(text: str) -> HubAddress:
    """Return the address of `--push`, after a check that one can log in there.

    Raises:
        UsageError: it is not a repository of models, or there is no token.
    """
    address = hub_address(text)
    if address is None or address.is_dataset:
        raise UsageError(f"--push {text}: give hf://user/name, or hf://user/name@branch")
    if hub_library().get_token() is None:
        raise UsageError(f"--push {text}: no token; run hf auth login, or set HF_TOKEN")
    return address


def push_bundle(bundle: Bundle, address: HubAddress, licence: str) -> str:
    """Publish the files of `bundle`, its signature if it has one, and its card; return the address with the commit.

    A repository that does not exist yet is made private. Files from earlier bundles stay in it, but are never pulled.

    Raises:
        BundleError: a file was changed.
        SourceError: the hub refuses, or can't be reached.
    """
    bundle.check()
    hub = hub_library()
    files = {name: str(bundle.path / name) for name in (MANIFEST, *bundle.manifest.files)}
    if (signature := bundle.path / BUNDLE_SIGNATURE).exists():
        files[BUNDLE_SIGNATURE] = str(signature)
    with hub_errors(address):
        api = hub.HfApi()
        api.create_repo(address.name, private=True, exist_ok=True)
        if address.revision != "main":
            api.create_branch(address.name, branch=address.revision, exist_ok=True)
        done = api.create_commit(
            address.name,
            [
                hub.CommitOperationAdd(CARD, bundle_card(bundle, address, licence).encode()),
                *(hub.CommitOperationAdd(name, path) for name, path in files.items()),
            ],
            commit_message=f"{bundle.manifest.name} {bundle.contract.version}",
            revision=address.revision,
        )
    return f"hf://{address.name}@{done.oid}"


def bundle_card(bundle: Bundle, address: HubAddress, licence: str) -> str:
    """Return the card: licence, use, figures with intervals, data, limits. Its head is the hub's YAML."""
    contract, manifest = bundle.contract, bundle.manifest
    tags = ["deepfake-detection", "face", "openvino", *(["demo"] if contract.demo else [])]
    head = {"license": licence.lower() or "other", "library_name": "openvino", "tags": tags}
    head |= {} if licence else {"license_name": "not-stated"}
    trained = [
        f"- {kind} of its {label}s: {', '.join(manifest.trained_on.get(kind, ())) or 'not stated'}"
        for kind, label in zip(("sources", "generators"), LABELS, strict=True)
    ]
    return "\n".join(
        [
            "---",
            # JSON values are YAML, and quote what a name may hold.
            *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
            "pipeline_tag: image-classification",
            "---",
            "",
            f"# {manifest.name} {contract.version} ({contract.architecture})",
            "",
            *([f"**This is a {DEMO_NOTICE}.**", ""] if contract.demo else []),
            "Tells AI-generated faces from photographs: real, fake or uncertain. A bundle of deepfake-edge:",
            "",
            f"    edge-detect FACE.jpg --model hf://{address.name}",
            "",
            f"Licence of the weights: {licence or 'not stated; ask before you use them'}.",
            *(["The face detector in `face/` has a licence of its own."] if FACE_MODEL in manifest.files else []),
            "",
            "## Figures",
            "",
            *_figures(bundle),
            "## Data",
            "",
            *trained,
            f"- fingerprint: `{contract.data or 'unknown'}`",
            f"- made: {manifest.created or 'unknown'}",
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in LIMITS),
            "",
        ]
    )


def _figures(bundle: Bundle) -> Iterator[str]:
    metrics = {name: found for name, found in bundle.contract.metrics.items() if "auc" in found}
    held = [precision.value for precision in bundle.precisions if precision.value in metrics]
    if not held:
        yield from ("None: exported without labelled faces.", "")
        return
    yield from (
        "With intervals of 95 %, as the board computes it, on faces that were not trained on if it had any.",
        "",
    )
    yield f"| figure | {' | '.join(held)} |"
    yield f"| --- | {' | '.join('---:' for _ in held)} |"
    for key in FIGURES:
        yield f"| {FIGURE_NAMES[key]} | {' | '.join(figure_text(dict(metrics[name][key])) for name in held)} |"
    for name in held:
        yield from ("", f"{name}: {bounds_text(asdict(bundle.contract.calibration(name)))}")
    yield ""
