"""The command `edge-serve`."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli import Device, Faces, PrecisionChoice
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import DEMO_NOTICE

if TYPE_CHECKING:
    from edge_runtime.detector import Detector


def edge_serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    model: Annotated[Path | None, typer.Option(help="A bundle's folder; looked for where none is given.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="Camera of the live page: a number, a device file, or an address.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that clients must show.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name of this service, as behind a proxy; may be repeated.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.AUTO,
    precision: Annotated[PrecisionChoice, typer.Option(help="Which network runs.")] = PrecisionChoice.AUTO,
    faces: Annotated[Faces, typer.Option(help="Look for faces; `off` takes the whole picture.")] = Faces.AUTO,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Largest request, in MB.")] = 64,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Largest picture, in millions of pixels.")] = 50,
    max_files: Annotated[int, typer.Option(min=1, help="Most pictures in one request.")] = 32,
    max_requests: Annotated[int, typer.Option(min=1, help="Most requests served at once; one more gets 429.")] = 128,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most crops that wait for the detector; then 503.")] = 256,
) -> None:
    """Serve the detector as a web page and an HTTP service.

    - `edge-serve` — the page at http://127.0.0.1:8000/, for this machine alone
    - `edge-serve --camera 0` — with the live page of the first camera
    - `edge-serve --host 0.0.0.0 --token-file token` — for other machines, which need the token
    - `curl -F image=@face.jpg http://127.0.0.1:8000/predict` — for programs
    """
    _need_extra()
    from edge_runtime.detector import Detector
    from edge_runtime.web.app import create_app
    from edge_runtime.web.server import bind, http_server
    from edge_runtime.web.settings import MEGABYTE, Limits, Settings, check_exposure, read_token

    token = read_token(token_file) if token_file else None
    check_exposure(host, token)
    limits = Limits(
        body_bytes=max_body_mb * MEGABYTE,
        bodies_bytes=4 * max_body_mb * MEGABYTE,
        pixels=round(max_megapixels * MEGABYTE),
        files=max_files,
        requests=max_requests,
        waiting=max_waiting,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    with bind(host, port) as listening:
        detector = Detector(model, device=device.value, precision=precision.value, faces=faces.value)
        if camera is not None:
            # Where the bundle can't find faces in a camera's frames, that is told now and not to each viewer.
            detector.moving_faces()
        app = create_app(detector, Settings(token, tuple(allowed_host or ()), camera, limits))
        _greet(detector, host, listening.getsockname()[1])
        http_server(app, limits.header_s).run(sockets=[listening])


def _need_extra() -> None:
    """Say what to install where the extra is missing.

    Raises:
        UsageError: it is.
    """
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"edge-serve needs {error.name}; in the clone, `pip install '.[web]'`") from None


def _greet(detector: "Detector", host: str, port: int) -> None:
    contract, choice = detector.engine.contract, detector.engine.choice
    address = f"[{host}]" if ":" in host else host
    judges = f"{contract.architecture} {contract.version}, {choice.precision.value.upper()} on {choice.device}"
    notice = f" ({DEMO_NOTICE})" if contract.demo else ""
    # A log on a full disk is no reason not to serve.
    with suppress(OSError):
        print(f"http://{address}:{port}/  {judges}{notice}; Ctrl-C ends", flush=True)


def main() -> None:
    """Start the command."""
    run_command(edge_serve, "edge-serve")


if __name__ == "__main__":
    main()
