"""OpenVINO's core: one in a process, for as long as the process lives; and the stack for signals that cores change."""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import openvino as ov


class SignalStack(ctypes.Structure):
    """On which memory this thread handles signals: `stack_t` of sigaltstack(2); `start` is None for the usual stack."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def now(cls) -> "SignalStack":
        """Ask which it is."""
        stack = cls()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
        return stack

    def use(self) -> None:
        """Handle signals there."""
        ctypes.CDLL(None).sigaltstack(ctypes.byref(self), None)


@functools.cache
def openvino_core() -> ov.Core:
    """Return the process's core; nobody else makes one.

    A core's CPU plugin gives its thread a stack for signals (`SigAltStackSetup` in OpenVINO's source, plugin.cpp of
    intel_cpu) and at its end puts back the one that it had found. Of two cores that end in the order in which they
    began, the second puts back a stack that is gone, and the next signal with a handler, Ctrl-C or SIGTERM, kills the
    process with SIGSEGV.
    """
    return ov.Core()


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's stack for signals back at the end, whatever cores of others (NNCF's) began and ended inside."""
    before = SignalStack.now()
    try:
        yield
    finally:
        before.use()
