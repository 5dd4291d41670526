"""Whether a bundle was signed with a key that this machine trusts; `board_setup.signatures` has the format."""

import os
from pathlib import Path

from board_setup.signatures import BUNDLE_SIGNATURE, SigningError, check_bundle, has_keys
from edge_runtime.errors import BundleError
from edge_runtime.paths import config_folder

SYSTEM_KEYS = Path("/etc/deepfake-edge/trusted")
"""The folder of the keys with which kits must be signed too."""


def keys_folder() -> Path | None:
    """Return the folder of trusted keys: the machine's, else this user's; None if no keys are set up.

    Raises:
        BundleError: that can't be found out.
    """
    try:
        return next((folder for folder in (SYSTEM_KEYS, config_folder() / "trusted") if has_keys(str(folder))), None)
    except SigningError as error:
        raise BundleError(str(error)) from None


def require_signature(folder: Path, manifest: bytes, name: str) -> str:
    """Return in words who signed the bundle in `folder`, or that it is unsigned, where no keys are set up.

    Args:
        folder: the bundle.
        manifest: the content of its `model.json`.
        name: the bundle, for messages.

    Raises:
        BundleError: keys are set up, and the bundle is unsigned, forged, altered or expired.
    """
    trusted = keys_folder()
    try:
        signature = (folder / BUNDLE_SIGNATURE).read_bytes()
    except FileNotFoundError:
        signature = None
    except OSError as error:
        raise BundleError(f"{folder / BUNDLE_SIGNATURE}: can't be read ({error.strerror})") from None
    if trusted is None:
        return "unsigned" if signature is None else "signature not checked, since no keys are set up"
    try:
        return str(check_bundle(manifest, signature, os.fspath(trusted), name))
    except SigningError as error:
        raise BundleError(str(error)) from None
