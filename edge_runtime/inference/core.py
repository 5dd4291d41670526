"""The process's only OpenVINO core, and the signal stack that cores change."""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import openvino as ov


class SignalStack(ctypes.Structure):
    """The memory on which this thread handles signals: `stack_t` of sigaltstack(2); `start` is None by default."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def now(cls) -> "SignalStack":
        """Return the stack in use."""
        stack = cls()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
        return stack

    def use(self) -> None:
        """Handle signals on this stack."""
        ctypes.CDLL(None).sigaltstack(ctypes.byref(self), None)


@functools.cache
def openvino_core() -> ov.Core:
    """Return the process's core; create no other.

    A core's CPU plugin sets the signal stack of its thread (`SigAltStackSetup` in OpenVINO's intel_cpu/plugin.cpp) and
    restores the previous one when it ends. Of two cores that end in the order in which they began, the second restores
    a stack that is gone, and the next handled signal (Ctrl-C, SIGTERM) kills the process with SIGSEGV.
    """
    return ov.Core()


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restore this thread's signal stack at the end, even if other cores (NNCF's) were created inside."""
    before = SignalStack.now()
    try:
        yield
    finally:
        before.use()
