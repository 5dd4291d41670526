"""Finds the fastest device and precision of a bundle at its first start on a machine with more than one device.

A broken driver can hang or crash the process that loads it, so each device is tried in its own process. The result
is this machine's profile (`edge_runtime.model.profile`), used until it no longer applies.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from board_setup.isa import emulator
from edge_runtime.errors import EdgeError
from edge_runtime.inference.attempts import (
    MOST_ATTEMPTS,
    attempt,
    attempts_path,
    forget_start,
    forget_start_later,
    note_start,
)
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.engine import Build, Choice, Engine, Network, cache_properties
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.model.golden import GOLDEN, require_golden
from edge_runtime.model.profile import (
    Profile,
    ProfileState,
    driver_versions,
    find_profile,
    kept_device,
    new_profile,
    profile_path,
    write_profile,
)
from edge_runtime.plain_json import plain
from edge_runtime.systemd import is_service

log = logging.getLogger("edge_runtime")

SECONDS = 2.0
"""How long each network is timed."""

TRIAL_TIMEOUT_S = 120.0
"""A device that takes longer for all its networks counts as hanging. A GPU compiles one in up to 20 s, once."""

LISTING_TIMEOUT_S = 20.0
"""If OpenVINO takes longer to list the devices, a driver counts as hanging."""

SAME_SPEED = 0.03
"""If two networks' frames/s differ by a smaller share than this, the more accurate one is chosen."""

MOST_ACCURATE_FIRST = (Precision.FP32, Precision.FP16, Precision.INT8)
"""The precisions, the most accurate first."""

WORKER = "from edge_runtime.inference.tuning import work; work()"
LISTER = "from edge_runtime.inference.tuning import list_devices; list_devices()"
"""Code of the processes that try a device and list the devices; tests replace it to use stand-in devices."""

DEV = Path("/dev")


@dataclass(frozen=True)
class Trial:
    """How fast a device computes one of the bundle's networks, in frames/s, or why it can't be used."""

    device: str
    precision: Precision
    fps: float = 0.0
    failed: str = ""


def devices_here() -> list[str]:
    """Return the devices that may run a network: the CPU, and OpenVINO's GPUs.

    OpenVINO loads every driver to list its devices, so it is asked in another process. If that hangs or crashes, the
    GPU is returned: its trial will fail too, and that is remembered.
    """
    if not [*DEV.glob("dri/renderD*"), *DEV.glob("dxg")]:
        return ["CPU"]
    output, broken = _run_apart(LISTER, timeout_s=LISTING_TIMEOUT_S)
    # A driver may print lines of its own.
    found = [name for line in output.splitlines() if line.startswith('["') for name in json.loads(line)]
    return ["CPU", "GPU"] if broken else ["CPU", *(name for name in found if name.startswith("GPU"))]


def list_devices() -> None:
    """Print OpenVINO's devices as a line of JSON."""
    _leave_with_parent()
    print(json.dumps(openvino_core().available_devices), flush=True)
    # Skip the drivers' teardown, which may crash.
    os._exit(0)


def choose_device(bundle: Bundle, devices: Sequence[str]) -> Profile | None:
    """Try every device and precision of `bundle`; return the profile of the fastest, None if none can be used.

    Only networks that pass the golden check count. A device on which none passes, or that hangs or crashes, is noted in
    the profile as given up.
    """
    trials: list[Trial] = []
    for device in devices:
        with attempt(device) as allowed:
            if allowed:
                trials += try_apart(bundle, device)
            else:
                reason = f"{MOST_ATTEMPTS} starts ended while it was measured; --tune-again tries once more"
                trials += [Trial(device, precision, failed=reason) for precision in bundle.precisions]
    for trial in trials:
        if trial.failed:
            log.info(f"{trial.precision.value} on {trial.device} is not used: {trial.failed}")
    right = [trial for trial in trials if not trial.failed]
    if not right:
        return None
    fastest = max(trial.fps for trial in right)
    best = min(
        (t for t in right if t.fps >= (1 - SAME_SPEED) * fastest),
        key=lambda trial: MOST_ACCURATE_FIRST.index(trial.precision),
    )
    used = {trial.device for trial in right}
    given_up = {device: driver_versions(device) for device in devices if device not in used}
    measured = {"hint": "THROUGHPUT", "streams": 0, "fps": round(best.fps, 2), "auc": None, "given_up": given_up}
    return new_profile(bundle, best.device, best.precision, **measured)


def try_apart(bundle: Bundle, device: str) -> list[Trial]:
    """Return the trials of `device`, made by a process that runs WORKER; it is ended if it hangs."""
    output, broken = _run_apart(WORKER, str(bundle.path), device, timeout_s=TRIAL_TIMEOUT_S)
    if broken:
        return [Trial(device, precision, failed=broken) for precision in bundle.precisions]
    # A driver may print lines of its own.
    values = [json.loads(line) for line in output.splitlines() if line.startswith('{"device"')]
    return [Trial(**{**value, "precision": Precision(value["precision"])}) for value in values]


def _run_apart(code: str, *arguments: str, timeout_s: float) -> tuple[str, str]:
    """Return what a process that runs `code` prints, and why it failed, if it did."""
    command = [*emulator(), sys.executable, "-c", code, *arguments]
    # The process exits when `held` is closed, also if this process dies.
    watched, held = os.pipe()
    process = subprocess.Popen(command, stdin=watched, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        output, _ = process.communicate(timeout=timeout_s)
        return output, f"its process ended with code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        # Not waited for: a process stuck in a kernel driver may survive even this.
        process.kill()
        return "", f"no answer within {timeout_s:g} s"
    finally:
        os.close(watched)
        os.close(held)


def _leave_with_parent() -> None:
    """End this process when its standard input is closed."""

    def leave() -> None:
        os.read(0, 1)
        os._exit(0)

    threading.Thread(target=leave, daemon=True).start()


def work(build: Build = Classifier, seconds: float = SECONDS) -> None:
    """Try the networks of bundle `sys.argv[1]` on device `sys.argv[2]` and print a line of JSON for each."""
    _leave_with_parent()
    bundle, device = Bundle.open(Path(sys.argv[1])), sys.argv[2]
    for precision in bundle.precisions:
        try:
            options = {"device": device, "hint": "THROUGHPUT", **cache_properties()}
            network = build(bundle.model(precision), bundle.contract, **options)
            require_golden(network, bundle, precision, device)
            trial = Trial(device, precision, fps=frames_per_second(network, bundle.contract.input_size, seconds))
        except EdgeError as error:
            trial = Trial(device, precision, failed=str(error))
        print(json.dumps(plain(trial)), flush=True)
    # Skip the drivers' teardown, which may crash.
    os._exit(0)


def frames_per_second(network: Network, size: int, seconds: float) -> float:
    """Return how many crops of `size` pixels `network` computes per second."""
    pixels = np.random.default_rng(0).integers(0, 256, (2 * network.requests, size, size, 3), np.uint8)
    network.logits(pixels)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        network.logits(pixels)
        count += len(pixels)
    return count / passed


def tune_at_first_start(
    engine: Engine, *, again: bool = False, measure: bool = True, started_safely: bool = False
) -> None:
    """Switch `engine` to the fastest device; measure first if there are several and no profile is in force.

    A systemd service does not wait: it starts with the safe choice, and `engine` switches when it is known.
    """
    options = {"again": again, "measure": measure, "started_safely": started_safely}
    thread = threading.Thread(target=tune, args=(engine,), kwargs=options, daemon=True)
    thread.start()
    if not is_service():
        thread.join()


def tune(engine: Engine, *, again: bool = False, measure: bool = True, started_safely: bool = False) -> None:
    """Measure and keep the fastest device if there is no profile in force, and switch `engine` to it.

    `again` measures in any case, `measure=False` in none. An engine that was `started_safely`, on the CPU although the
    profile names another device, is switched to that one.
    """
    if not again and (_follow_profile(engine, started_safely) or not measure):
        return
    devices = devices_here()
    if len(devices) == 1 or GOLDEN not in engine.bundle.manifest.files:
        if again:
            log.info("nothing to measure: there is one device, or the bundle holds no golden pictures")
        return
    folder = profile_path().parent
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        log.info(f"the devices are not measured, because the result can't be kept: {folder} can't be written")
        return
    log.warning(f"measuring {' and '.join(devices)} once on this machine; --no-tune skips it")
    try:
        if again:
            attempts_path().unlink(missing_ok=True)
        profile = choose_device(engine.bundle, devices)
        if profile is None:
            log.warning(f"no device gives right answers; continuing with {engine.choice.device}")
            return
        write_profile(profile)
        log.info(f"fastest: {profile}; kept for the next start")
        engine.switch(Choice.of(profile))
    except (EdgeError, OSError) as error:
        log.warning(f"measuring the devices failed ({error}); continuing with {engine.choice.device}")


def _follow_profile(engine: Engine, started_safely: bool) -> bool:
    """Switch `engine` to the choice of the profile in force; return whether nothing is left to measure."""
    device = kept_device(engine.bundle)
    if not started_safely or device in (None, "CPU", engine.choice.device):
        return find_profile(engine.bundle).state is ProfileState.IN_FORCE
    assert device is not None
    if not note_start(device):
        reason = f"{MOST_ATTEMPTS} starts ended while it was tried; --tune-again tries once more"
        log.warning(f"{device} is left out: {reason}")
        return True
    profile = find_profile(engine.bundle).profile
    try:
        if profile is not None and Choice.of(profile) != engine.choice:
            engine.switch(Choice.of(profile))
        forget_start_later(device, engine)
    except EdgeError as error:
        forget_start(device)
        log.warning(f"{device} can't be started ({error}); continuing with {engine.choice.device}")
    return profile is not None
