"""The commands that only a workstation has: keygen, pack, sign, deploy, twin, and asking a board over ssh."""

import argparse
import os
import sys
from typing import Callable, Mapping

from board_setup.board.doctor.runtime import ADD_FACE_MODEL, NO_FACE_MODEL
from board_setup.board.kit import TOOL
from board_setup.board.layout import BOARD
from board_setup.board.signing import NAMESPACE
from board_setup.errors import printable
from board_setup.signatures import BUNDLE_SIGNATURE, VALID_DAYS, SigningError, day, sign_bundle
from board_setup.workstation import comparison, deploy, pack, sign, twin, virtual_board, wheels
from board_setup.workstation.fleet.commands import add_fleet_commands, between


def add_workstation_commands(
    add: Callable[..., argparse.ArgumentParser],
    parsers: Mapping[str, argparse.ArgumentParser],
    group: Callable[[str, str], Callable[..., argparse.ArgumentParser]],
) -> None:
    """Add the workstation's commands, and let `versions`, `rollback` and `status` ask a board over ssh.

    Args:
        add: `board_setup.cli.add_command` without its first argument.
        parsers: the commands that exist, by name.
        group: `board_setup.cli.add_group` without its first argument.
    """
    command = add(pack_kit, "pack", "setup-board pack --model detector --precision int8,fp16 --out kit.tar")
    command.add_argument("--out", required=True, help="the kit to write")
    command.add_argument("--model", help="the bundle (default: ./detector, else the one that ships with the project)")
    command.add_argument("--precision", default="", help="networks to include, separated by commas (default: all)")
    command.add_argument(
        "--python-version", default=pack.DEFAULT_PYTHON, help="the board's Python (default: %(default)s, Ubuntu 22.04)"
    )
    command.add_argument("--python", metavar="ARCHIVE", help="a standalone Python to include, .tar.gz")
    command.add_argument("--glibc", default=pack.DEFAULT_GLIBC, help="the board's C library (default: %(default)s)")
    command.add_argument("--debs", metavar="DIR", help="Debian packages to include, such as the GPU's driver")
    extra_help = (
        "include what edge-serve (web), edge-forward (fleet), edge-benchmark or --review-key of edge-detect needs; "
        "may be repeated"
    )
    command.add_argument("--extra", action="append", default=[], choices=wheels.EXTRAS, help=extra_help)
    report_help = "compare-detectors' report (default: ./comparison beside the bundle, if it is about it)"
    command.add_argument("--report", metavar="DIR", help=report_help)
    command.add_argument("--project", help="the project's source (default: the clone this is started from)")

    command.add_argument("--sign", metavar="KEY", help="sign the kit with this key")

    command = add(make_key, "keygen", "setup-board keygen fleet-2026")
    command.add_argument("key", help="the file of the private key; the public one gets .pub behind its name")
    command.add_argument("--no-passphrase", action="store_true", help="store the private key unencrypted")

    command = add(sign_this, "sign", "setup-board sign kit.tar --key fleet-2026")
    command.add_argument("path", metavar="KIT|BUNDLE", help="the kit, or the folder of the bundle, to sign")
    command.add_argument("--key", required=True, help="the private key, or the public one of a key in the ssh-agent")
    command.add_argument(
        "--valid-days",
        type=between(float, 0.001, 36500),
        default=VALID_DAYS,
        help="days until the signature expires (default: %(default)s)",
    )
    counter_help = (
        "kits only: boards refuse a kit whose counter is not above that of the last installed one (default: Unix time)"
    )
    command.add_argument("--counter", type=between(int, 0, 1 << 62), help=counter_help)
    trust_help = "kits only: once it is installed, boards trust this key instead of the current ones; may be repeated"
    command.add_argument("--trust", action="append", default=[], metavar="PUB", help=trust_help)

    command = add(deploy_kit, "deploy", "setup-board deploy edge@board --kit kit.tar")
    command.add_argument("host", help="user@board, as ssh takes it")
    command.add_argument("--kit", required=True, help="the kit to install")

    command = add(run_on_twin, "twin", "setup-board twin -- edge-detect face.jpg")
    depth = command.add_mutually_exclusive_group()
    depth.add_argument("--capped", action="store_true", help="cap OpenVINO's instruction set instead of using qemu")
    depth.add_argument("--system", action="store_true", help="start a whole virtual board (root makes its disk once)")
    command.add_argument("--kit", help="with --system: install this kit on it")
    command.add_argument("--camera", metavar="FOLDER", help="with --system: JPEG pictures that its camera shows")
    command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command to run")

    add_fleet_commands(group("fleet", "Bring a version to many boards in waves, and see them on one screen."))

    for name in ("versions", "rollback", "status"):
        parsers[name].add_argument("host", nargs="?", help="user@board (default: this machine)")
        parsers[name].set_defaults(run=_here_or_there(name, parsers[name].get_default("run")))
    for name in ("deploy", "versions", "rollback", "status"):
        parsers[name].add_argument("--ssh", default="ssh", help="the ssh command, with options such as -p 2222")


def _here_or_there(name: str, run_here: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        if options.host is None:
            return run_here(options)
        words = ["--json"] if getattr(options, "json", False) else []
        words += ["--from", options.only_from] if getattr(options, "only_from", None) else []
        try:
            return _board(options).run(name, *words)
        except KeyboardInterrupt:
            if name != "rollback":
                raise
            # The same command would go back once more.
            raise KeyboardInterrupt(
                f"stopped; look whether it returned already: setup-board status {options.host}"
            ) from None

    return run


def _board(options: argparse.Namespace) -> deploy.Board:
    return deploy.Board(deploy.check_host(options.host), options.ssh, options.root)


def pack_kit(options: argparse.Namespace) -> int:
    """Pack everything a board needs into one file, on the workstation.

    The kit holds the runtime's wheels for the board's Python, the detector and this tool, so that the board needs no
    network. The tool is also written beside it, as setup-board.pyz.
    """
    model = pack.choose_bundle(options.model, options.project)
    if options.sign:
        # Before minutes of packing: a key that is missing or has another passphrase.
        sign.sign(b"", options.sign, NAMESPACE)
    report = comparison.find_report(options.report, model)
    made = pack.pack(
        options.out,
        model,
        precisions=[name for name in options.precision.split(",") if name],
        python=options.python_version,
        glibc=options.glibc,
        python_archive=options.python,
        debs=options.debs,
        extras=options.extra,
        project=options.project,
        report=report,
    )
    if options.sign:
        sign.sign_kit(options.out, options.sign)
    for part, size in pack.measure_parts(options.out):
        print(f"{size / 1e6:9.1f} MB  {part}")
    print(f"{options.out}: {made.id} for Python {made.python}")
    if report:
        found = comparison.read_report(report)
        text = f"{'promoted' if found['promoted'] else 'not promoted'}: {found['reason']}"
        if found["promoted"]:
            print(printable(f"compared: {text}"))
        else:
            print(printable(f"warning: compare-detectors says {text}"), file=sys.stderr)
    if pack.read_manifest(model)["contract"].get("demo"):
        print("warning: this is a demonstration model: its verdicts on photographs mean nothing", file=sys.stderr)
    if not any(name.startswith("bundle/face/") for name in made.files):
        print(f"warning: no face model: {NO_FACE_MODEL}; first run {ADD_FACE_MODEL}", file=sys.stderr)
    if not options.sign:
        print("the kit is unsigned: boards with trusted keys refuse it; see: setup-board sign --help")
    tool = os.path.join(os.path.dirname(options.out), TOOL)
    name = os.path.basename(options.out)
    print(f"copy it and {tool} to the board, then run there: sudo python3 {TOOL} install --kit {name}")
    return 0


def make_key(options: argparse.Namespace) -> int:
    """Make a pair of keys for signing kits and bundles.

    Keep the private key off the boards, and a copy of it in a safe place. A machine with trusted keys accepts only kits
    and bundles signed with one of them.
    """
    sign.make_key(options.key, passphrase=not options.no_passphrase)
    public = os.path.basename(options.key) + ".pub"
    print(f"copy {options.key}.pub to each board, then run there:")
    print(f"  sudo install -D -m 644 {public} {BOARD.trusted}/{public}")
    print("on a workstation it may lie in ~/.config/deepfake-edge/trusted/ instead")
    return 0


def sign_this(options: argparse.Namespace) -> int:
    """Sign a kit or a bundle, or sign it again with another key or date.

    Machines with trusted keys install only signed kits, and judge only with signed bundles.
    """
    if os.path.isdir(options.path):
        if options.counter is not None or options.trust:
            raise SigningError(f"{options.path}: is a folder; --counter and --trust are for kits")
        expires = sign_bundle(options.path, options.key, valid_days=options.valid_days)
        print(f"{options.path}: signed, valid until {day(expires)}; the signature is {BUNDLE_SIGNATURE} in it")
        return 0
    stated = sign.sign_kit(
        options.path, options.key, valid_days=options.valid_days, counter=options.counter, trust=options.trust
    )
    print(f"{options.path}: signed, valid until {day(stated.expires)}, counter {stated.counter}")
    return 0


def deploy_kit(options: argparse.Namespace) -> int:
    """Bring a kit to a board over ssh and switch to it.

    Copies the kit (and continues after a broken connection), installs it beside the running version, lets it judge its
    golden pictures there, switches, and returns to the last good version if it does not run.
    """
    return deploy.deploy(_board(options), options.kit)


def run_on_twin(options: argparse.Namespace) -> int:
    """Run a command with the board's instruction set, on this machine.

    Runs it under qemu's Snow Ridge, which has the same cores as the board (exact, slow), or only capped to its
    instruction set (--capped, nearly native speed). With --system it starts a whole virtual board with systemd, a
    camera and no network, and shows its console on this terminal.
    """
    if options.system:
        return virtual_board.open_console(options.kit, options.camera)
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return twin.run(command, capped=options.capped)
