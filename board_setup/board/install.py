"""Installing a kit step by step, so that a power cut costs only the step that it hit.

Nothing is switched before the new version has passed its own check on this board. A version that does not run is
replaced by the last good one.
"""

import os
import shutil
import tarfile
from typing import Callable, List, Optional

from board_setup.board import disk, kit, service, signing, steps, undo, versions
from board_setup.board.layout import Layout
from board_setup.board.steps import InstallError, Step, Target
from board_setup.errors import BoardError


def tell(line: str) -> None:
    """Print a line without buffering, so that a log shows the progress."""
    print(line, flush=True)


def install(
    kit_path: str,
    layout: Layout,
    *,
    user: Optional[str] = None,
    dry_run: bool = False,
    say: Callable[[str], None] = tell,
) -> None:
    """Print the plan, then do the steps that are not done yet.

    Args:
        kit_path: the kit.
        layout: where to install; with another root than `/`, systemd, udev and groups are left alone.
        user: who gets access to camera and GPU besides the service; None for nobody.
        dry_run: print the plan only.
        say: called with each line of progress.

    Raises:
        KitError: the kit can't be read.
        SigningError: this board has trusted keys, and the kit is unsigned, forged, expired or older than the last one.
        InstallError: a step failed.
    """
    target = Target(kit_path, layout, user)
    plan = plan_steps(target)
    for number, step in enumerate(plan, 1):
        say(f"{number}. {step.name}: {step.what}{' (done)' if step.is_done() else ''}")
    if dry_run:
        return
    # The service's user, who is not root, reads what is written from here on.
    os.umask(0o022)
    undo.remember_folders(layout)
    for step in plan:
        if step.is_done():
            continue
        say(f"{step.name} …")
        try:
            step.do()
        except (OSError, BoardError, tarfile.TarError) as error:
            target.remove_partial()
            is_full = isinstance(error, OSError) and error.errno in disk.FULL
            problem = "the disk is full; make room, then run the same command again" if is_full else error
            raise InstallError(f"{step.name}: {problem}") from error
        # The next step builds on this one, so a power cut must not undo it.
        os.sync()
        if not step.is_done():
            raise InstallError(f"{step.name}: it ran but had no effect; find out why with: setup-board doctor")
    shutil.rmtree(os.path.join(layout.programs, "kits"), ignore_errors=True)
    versions.tidy(layout)
    if target.fastest:
        say(f"fastest: {target.fastest}")
    say(f"{target.kit.id} is installed")
    if target.live and target.systemd:
        say(next_step(service.has_camera()))


def next_step(has_camera: bool) -> str:
    """Return what to do after an installation."""
    if has_camera:
        return f"the service judges the camera's faces; watch it with: sudo tail -f {service.RESULTS}"
    return "no camera found: the service waits for one; plug one in, then run: sudo setup-board status"


def plan_steps(target: Target) -> List[Step]:
    """Return the steps of an installation in order."""
    plan = [steps.unpack_kit(target)]
    if any(name.startswith(kit.DEBS) for name in target.kit.files):
        plan.append(steps.install_packages(target))
    plan += [
        steps.provide_python(target),
        steps.make_runtime(target),
        steps.copy_detector(target),
        steps.open_folders(target),
        steps.check_version(target),
    ]
    if steps.has_graphics(target.layout):
        plan.append(steps.measure_devices(target))
    if target.live and target.user:
        plan.append(steps.add_groups(target, target.user))
    if target.systemd or not target.live:
        plan += steps.configure_system(target)
    plan += [steps.link_command(target), steps.switch_version(target)]
    if target.live and target.systemd:
        plan.append(steps.start_service(target))
    approval, new = target.approval, target.kit.id
    # Last, so that a kit whose installation was cut off, or failed, may be installed again.
    signature = Step(
        "signature",
        str(approval),
        lambda: signing.is_recorded(approval, target.layout, new),
        lambda: signing.record(approval, target.layout, new),
    )
    return [*plan, signature]
