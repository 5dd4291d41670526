"""Forms: multipart ones with pictures, kept in memory, and plain ones."""

import math
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from edge_runtime.web.http.problems import ProblemError, ProblemKind

MOST_FIELDS = 8
FIELD_BYTES = 1_000


@dataclass(frozen=True)
class Upload:
    """An uploaded file: its bytes, and its name, which the sender chose and can't be trusted."""

    name: str
    data: bytes


class _MemoryParser(MultiPartParser):
    """Starlette's parser without files on disk: it would spool large uploads."""

    spool_max_size = 1 << 62
    most_files = 0
    field = b""

    def on_headers_finished(self) -> None:
        """Treat each part in `field` as a file, even without a name or with only RFC 5987's `filename*`."""
        disposition = self._current_part.content_disposition or b""
        _, options = parse_options_header(disposition)
        if options.get(b"name") == self.field and b"filename" not in options:
            extended = re.search(rb"filename\*=\s*utf-8'[^']*'([^;\s]*)", disposition, re.IGNORECASE)
            name = unquote_to_bytes(extended[1]) if extended else b""
            quoted = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            self._current_part.content_disposition = disposition + b'; filename="' + quoted + b'"'
        super().on_headers_finished()

    def on_part_end(self) -> None:
        super().on_part_end()
        if sum(isinstance(value, UploadFile) for _, value in self.items) > self.most_files:
            detail = f"the limit is {self.most_files}; send them in several requests"
            raise ProblemError(ProblemKind.TOO_MANY_FILES, detail)


async def read_fields(request: Request, most_bytes: int) -> dict[str, str]:
    """Return the fields of a plain form; of several with one name, the first.

    Raises:
        ProblemError: the form has more than `most_bytes`.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise ProblemError(ProblemKind.BODY_TOO_LARGE, f"the limit for the form is {most_bytes} bytes")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


async def read_pictures(request: Request, field: str, *, most: int) -> list[Upload]:
    """Return the files in `field` of a multipart form.

    Raises:
        ProblemError: the request is not such a form, is malformed, holds no file in `field`, or holds more than `most`
            files.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ProblemError(ProblemKind.NOT_A_FORM, f"send the picture as multipart/form-data, in the field `{field}`")
    parser = _MemoryParser(
        request.headers,
        request.stream(),
        max_files=math.inf,
        max_fields=MOST_FIELDS,
        max_part_size=FIELD_BYTES,
    )
    parser.most_files, parser.field = most, field.encode()
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(ProblemKind.BAD_REQUEST, error.message) from None
    uploads = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name == field:
                uploads.append(Upload(value.filename or "", value.file.read()))
            value.file.close()
    if not uploads:
        raise ProblemError(ProblemKind.NO_PICTURE, f"the form has no file in its field `{field}`")
    return uploads
