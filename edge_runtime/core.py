"""OpenVINO's core: one in a process, for as long as the process lives."""

import functools

import openvino as ov


@functools.cache
def openvino_core() -> ov.Core:
    """Return the process's core; nobody else makes one.

    A core's CPU plugin gives its thread a stack for signals (`SigAltStackSetup` in OpenVINO's source, plugin.cpp of
    intel_cpu) and at its end puts back the one that it had found. Of two cores that end in the order in which they
    began, the second puts back a stack that is gone, and the next signal with a handler, Ctrl-C or SIGTERM, kills the
    process with SIGSEGV.
    """
    return ov.Core()
