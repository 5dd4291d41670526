"""The command `edge-serve`."""

import functools
import logging
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli import Device, Faces, PrecisionChoice
from edge_runtime.command import MODEL_HELP, Needs, run_command
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.printable import printable

if TYPE_CHECKING:
    from edge_runtime.detector import Detector


_network, _live, _review, _limits = (
    functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Network", "Live page", "Review", "Limits")
)


def edge_serve(
    host: Annotated[str, _network(help="Address to listen on; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, _network(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    model: Annotated[
        Path | None,
        typer.Option(help=MODEL_HELP),
    ] = None,
    camera: Annotated[
        str | None, _live(help="Source of the live page: a number, a device file, an address or a video.")
    ] = None,
    review: Annotated[
        Path | None, _review(help="Folder of faces that edge-detect --review kept; adds the page /review.")
    ] = None,
    review_private_key: Annotated[
        Path | None,
        _review(help="File of the private key that opens these faces, from `edge-serve keygen`."),
        Needs(("review",)),
    ] = None,
    review_database: Annotated[
        Path | None,
        _review(help="SQLite file of the reviews (default: reviews.sqlite in the folder)."),
        Needs(("review",)),
    ] = None,
    monitor: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Notice drift of uploaded and live faces; keep summaries in DIR.")
    ] = None,
    token_file: Annotated[Path | None, _network(help="File with the token that clients must present.")] = None,
    allowed_host: Annotated[
        list[str] | None, _network(help="Another host name of this service, e.g. behind a proxy; repeatable.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Device that runs the network.")] = "AUTO",
    precision: Annotated[PrecisionChoice, typer.Option(help="Precision of the network.")] = "auto",
    tune: Annotated[
        bool, typer.Option("--tune/--no-tune", help="Measure device and precision at the first start.")
    ] = True,
    tune_again: Annotated[bool, typer.Option("--tune-again", help="Measure device and precision again.")] = False,
    faces: Annotated[Faces, typer.Option(help="Face detection; off: the whole picture is one face.")] = "auto",
    careful: Annotated[
        bool,
        typer.Option("--careful", help="No verdict where slight changes of a face change it; four times the work."),
    ] = False,
    always: Annotated[
        bool,
        _live("--always", help="Live page: search and judge every frame, not only where it counts."),
        Needs(("camera",)),
    ] = False,
    max_body_mb: Annotated[int, _limits(min=1, help="Largest request in MB.")] = 64,
    max_megapixels: Annotated[float, _limits(min=0.01, max=10_000, help="Largest picture in megapixels.")] = 50,
    max_files: Annotated[int, _limits(min=1, help="Most pictures per request.")] = 32,
    max_requests: Annotated[int, _limits(min=1, help="Most requests at once; one more gets 429.")] = 128,
    max_waiting: Annotated[int, _limits(min=1, help="Most crops waiting for the detector; then 503.")] = 256,
) -> None:
    """Serve the detector as a web page and an HTTP API.

    Examples:
    - `edge-serve   # the page at http://127.0.0.1:8000/, for this machine only`
    - `edge-serve --camera 0   # with a live page of the first camera`
    - `edge-serve --host 0.0.0.0 --token-file token   # for other machines, which need the token`
    - `curl -F image=@face.jpg http://127.0.0.1:8000/predict   # the API`
    """
    _require_extras()
    from edge_runtime.detector import Detector, renew
    from edge_runtime.paths import expand
    from edge_runtime.review.desk import ReviewPlaces
    from edge_runtime.sources import open_source
    from edge_runtime.systemd import is_on_terminal, is_service, reloading_on_hangup
    from edge_runtime.web.app import create_app
    from edge_runtime.web.server import bind, http_server, reachable_address
    from edge_runtime.web.settings import MEGABYTE, ServiceLimits, Settings, check_exposure, is_loopback, read_token

    token = read_token(token_file) if token_file else None
    check_exposure(host, token)
    if camera is not None and not camera.isdecimal():
        # A missing file or a malformed address fails now. Cameras are opened when somebody watches.
        open_source(camera)
    limits = ServiceLimits(
        body_bytes=max_body_mb * MEGABYTE,
        bodies_bytes=4 * max_body_mb * MEGABYTE,
        pixels=round(max_megapixels * MEGABYTE),
        files=max_files,
        requests=max_requests,
        waiting=max_waiting,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    with bind(host, port) as listening:

        def load(*, again: bool = False) -> Detector:
            detector = Detector(
                model,
                device=device,
                precision=precision,
                faces=faces,
                careful=careful,
                always=always,
                safe_start=is_service(),
            )
            detector.tune(again=again, measure=tune)
            if camera is not None:
                # Fails now, not at the first viewer, if the bundle can't find faces in video.
                detector.moving_faces()
            return detector

        detector = load(again=tune_again)
        places = None if review is None else ReviewPlaces(review, review_private_key, review_database)
        hosts = tuple(allowed_host or ())
        folder = None if monitor is None else expand(monitor)
        settings = Settings(token=token, hosts=hosts, camera=camera, monitor=folder, review=places, limits=limits)
        app = create_app(detector, settings)
        shown = reachable_address(host)
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}/"
        _say(f"{address}  {_description(detector)}; Ctrl-C ends")
        # Only on a terminal: logs are kept.
        if token is not None and not is_loopback(host) and sys.stdout.isatty():
            _show_sign_in(f"{address}login/{app.state.sessions.issue_ticket()}")
        # The application alone holds the detector, so that a new one takes its memory.
        del detector

        def reload() -> None:
            if renew(load, app.state.switch) is not None:
                _say(f"now judging with {_description(app.state.judge.detector)}")

        with nullcontext() if is_on_terminal() else reloading_on_hangup(reload):
            http_server(app).run(sockets=[listening])


def _require_extras() -> None:
    try:
        import fastapi  # noqa: F401
        import itsdangerous  # noqa: F401
        import jinja2  # noqa: F401
        import python_multipart  # noqa: F401
        import segno  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"edge-serve needs {error.name}; in the clone: pip install '.[web]'") from None


def _description(detector: "Detector") -> str:
    contract, choice = detector.engine.contract, detector.choice
    network = f"{contract.architecture} {contract.version}, {choice.precision.value.upper()} on {choice.device}"
    notice = f" ({DEMO_NOTICE})" if contract.demo else ""
    return f"{printable(f'{network}, detector: {detector.bundle.origin}')}{notice}"


def _say(line: str) -> None:
    """Print a line; serve even if standard output is on a full disk."""
    with suppress(OSError, UnicodeError):
        print(line, flush=True)


def _show_sign_in(link: str) -> None:
    """Print a link that signs in one phone, with its QR code, if this terminal can show it."""
    import segno

    from edge_runtime.web.http.sessions import TICKET_S

    with suppress(OSError, UnicodeError):
        print(f"To sign in on a phone, scan this code or open {link} (once, within {TICKET_S // 60} minutes):")
        segno.make(link).terminal(compact=True)


def keygen(
    file: Annotated[Path, typer.Argument(help="File of the private key; it must not exist.")],
) -> None:
    """Create the key pair that encrypts faces kept for review.

    FILE gets the private key and stays on the workstation. The public key is printed, for `edge-detect --review-key` on
    the boards.

    Examples:
    - `edge-serve keygen review.key`
    """
    from edge_runtime.review.sealing import write_key_pair

    print(write_key_pair(file))


def main() -> None:
    """Start the command."""
    run_command(edge_serve, "edge-serve", subcommands=[keygen])


if __name__ == "__main__":
    main()
