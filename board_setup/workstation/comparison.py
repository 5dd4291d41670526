"""The report of `compare-detectors` that goes into a kit: why this detector may replace the one before."""

import json
import os
import shutil
from typing import Any, Dict, Optional

from board_setup.board.disk import has_shape, sha256
from board_setup.board.kit import REPORT, KitError

NAME = "comparison"
PAGES = (".html", ".md", ".json")


def find_report(named: Optional[str], bundle: str) -> Optional[str]:
    """Return the folder of the report to pack: the one `named`, else ./comparison beside the bundle if it is about it.

    Raises:
        KitError: the one named holds no report, or that of another bundle.
    """
    if named:
        if not _is_about(read_report(named), bundle):
            raise KitError(f"{named}: compares another detector than {bundle}; run compare-detectors with it as NEW")
        return named
    beside = os.path.join(os.path.dirname(os.path.abspath(bundle)), NAME)
    try:
        return beside if _is_about(read_report(beside), bundle) else None
    except KitError:
        return None


def read_report(folder: str) -> Dict[str, Any]:
    """Return the `comparison.json` of a folder.

    Raises:
        KitError: there is none, or it is damaged.
    """
    path = os.path.join(folder, f"{NAME}.json")
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{path}: not a report of compare-detectors ({error}); run it with --out {folder}") from None
    if not has_shape(values, {"promoted": bool, "reason": str, "new": {"sha256": str}}):
        raise KitError(f"{path}: not a report of compare-detectors, or damaged; run it again")
    return dict(values)


def _is_about(report: Dict[str, Any], bundle: str) -> bool:
    manifest = os.path.join(bundle, "model.json")
    return os.path.isfile(manifest) and report["new"]["sha256"] == sha256(manifest)


def take_report(folder: str, kit: str) -> None:
    """Copy a report's pages into the folder of a kit.

    Raises:
        KitError: one is missing.
    """
    os.makedirs(os.path.join(kit, REPORT))
    try:
        for suffix in PAGES:
            shutil.copy(os.path.join(folder, NAME + suffix), os.path.join(kit, REPORT))
    except OSError as error:
        raise KitError(f"{error.filename}: can't be copied ({error.strerror}); run compare-detectors again") from None
