"""Checks of the operating system: distribution, Python, free space, clock."""

import sys
import time

from board_setup.board import layout
from board_setup.board.doctor.row import Row, State
from board_setup.board.doctor.system import System

KNOWN_RELEASES = {"ubuntu": ("20.04", "22.04", "24.04"), "debian": ("12", "13")}
EARLIEST_YEAR = 2026
MEGABYTE = 1 << 20
AMPLE_MB = 2048
NEEDED_MB = 300


def check_distribution(system: System) -> Row:
    """Check the distribution, which decides which Python and driver packages exist."""
    name, version = system.release
    seen = system.os_release.get("PRETTY_NAME", "unknown distribution")
    if version in KNOWN_RELEASES.get(name, ()):
        return Row("system", State.OK, seen)
    return Row("system", State.WARNING, seen + "; supported are Ubuntu 20.04 to 24.04 and Debian 12 and 13")


def check_python(system: System) -> Row:
    """Check for a Python from 3.10 on; the vendor's Ubuntu 20.04 has 3.8."""
    minors = reversed(range(layout.PYTHON_FROM[1], layout.PYTHON_BELOW[1]))
    candidates = [f"{folder}/python3.{minor}" for minor in minors for folder in ("/usr/bin", "/usr/local/bin")]
    found = system.glob(layout.BOARD.programs + "/python-*/bin/python3") + list(filter(system.exists, candidates))
    if not found and system.live and layout.PYTHON_FROM <= sys.version_info[:2] < layout.PYTHON_BELOW:
        found = [sys.executable]
    if found:
        return Row("python", State.OK, found[0])
    fix = "setup-board pack --python ARCHIVE --out kit.tar   (on the workstation; then install --kit kit.tar here)"
    return Row("python", State.FAULT, "none from 3.10 to 3.13; the runtime needs one", fix)


def check_disk(system: System) -> Row:
    """Check for the space of a version and its programs, about 700 MB."""
    done = system.run(["df", "-B1", "--output=avail", "/var"])
    free = done.out.split()[-1:]
    if done.code or not free or not free[0].isdigit():
        return Row("disk", State.WARNING, "the free space below /var is unknown", "df -h /var")
    free_mb = int(free[0]) // MEGABYTE
    seen = f"{free_mb} MB free below /var"
    if free_mb >= AMPLE_MB:
        return Row("disk", State.OK, seen)
    state = State.WARNING if free_mb >= NEEDED_MB else State.FAULT
    return Row("disk", state, seen + "; a version takes about 700 MB", f"sudo apt-get clean; {system.tool} versions")


def check_clock(system: System, now: float) -> Row:
    """Check the clock: a board without a battery starts in the past, and results get wrong times."""
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    is_synchronized = system.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).out == "yes"
    if time.gmtime(now).tm_year < EARLIEST_YEAR:
        fix = "sudo date -u -s 'YYYY-MM-DD hh:mm'   (the present time)"
        return Row("clock", State.WARNING, f"{stamp} is in the past: results would have wrong times", fix)
    if is_synchronized or system.glob("/sys/class/rtc/rtc*"):
        return Row("clock", State.OK, stamp + (", set by the network" if is_synchronized else ", kept by a battery"))
    fix = "sudo timedatectl set-ntp true"
    return Row("clock", State.WARNING, f"{stamp}, kept by neither battery nor network", fix)
