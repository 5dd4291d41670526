"""Content Credentials (C2PA): a file's signed statement of its origin, checked where the extra `c2pa` is installed."""

import importlib.util
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import UsageError
from edge_runtime.paths import expand
from edge_runtime.printable import printable

TRUST_VARIABLE = "DEEPFAKE_EDGE_C2PA_TRUST"
"""Names a PEM file with the certificates of trusted authorities."""

MARK = b"c2pa"
"""Every file with a manifest holds this label of its outer box (C2PA 2.1, section 11.1)."""

_SAYS_AI = re.compile(r"digitalsourcetype/(?:compositewith)?trainedalgorithmicmedia", re.IGNORECASE)


@dataclass(frozen=True)
class ContentCredentials:
    """A manifest in a file.

    Attributes:
        intact: its signature is valid and it belongs to this file; None if it can't be checked here.
        trusted: its signer descends from a trusted authority; None if it can't be checked or none is named.
        says_ai: it says that AI made the picture or a part of it.
        signer: its issuer, in at most 80 printable characters; anyone can call himself that unless it is trusted.
    """

    intact: bool | None = None
    trusted: bool | None = None
    says_ai: bool = False
    signer: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"present": True, **vars(self)}

    def __str__(self) -> str:
        """Return it in a few words."""
        intact = {None: "not checked", True: "intact", False: "does not match the file"}[self.intact]
        trusted = {None: "", True: ", trusted", False: ", not trusted"}[self.trusted]
        return f"C2PA {intact}{trusted}{', says AI' if self.says_ai else ''}"


def content_credentials(source: Path | bytes, mime_type: str, *, says_ai: bool = False) -> ContentCredentials | None:
    """Return the manifest of a file that holds MARK; None if it has none after all. Nothing is fetched from a network.

    Args:
        source: the file, or its bytes.
        mime_type: of the file.
        says_ai: what plain bytes in the file say, for where the manifest can't be read.

    Raises:
        UsageError: the file of TRUST_VARIABLE can't be read.
    """
    if importlib.util.find_spec("c2pa") is None:
        return ContentCredentials(says_ai=says_ai)
    import c2pa

    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
    if named := os.environ.get(TRUST_VARIABLE):
        try:
            settings["trust"] = {"trust_anchors": expand(named).read_text(encoding="ascii")}
        except (OSError, ValueError) as error:
            raise UsageError(f"${TRUST_VARIABLE}: {named} can't be read ({error}); name a PEM file") from None
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file,
            c2pa.Context(c2pa.Settings.from_dict(settings)) as context,
            c2pa.Reader(mime_type, file, context=context) as reader,
        ):
            state, text = reader.get_validation_state(), reader.json()
            signature = (reader.get_active_manifest() or {}).get("signature_info", {})
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError.NotSupported:
        return ContentCredentials(says_ai=says_ai)
    except (c2pa.C2paError, OSError):
        return ContentCredentials(intact=False, says_ai=says_ai)
    return ContentCredentials(
        intact=state in ("Valid", "Trusted"),
        trusted=state == "Trusted" if named else None,
        says_ai=says_ai or bool(_SAYS_AI.search(text)),
        signer=printable(str(signature.get("issuer", ""))[:80]),
    )
