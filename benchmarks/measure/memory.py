"""A process's peak memory. Standard library only: `studies.cold` imports it into the process that it measures."""

from pathlib import Path


def peak_memory_mb(status: Path = Path("/proc/self/status")) -> float:
    """Return this process's peak resident memory in MB (10⁶ bytes).

    psutil does not give it on Linux, and `getrusage` inherits the peak of the process that started this one.
    """
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6
