"""The allocator, told to keep what a training step will ask for again."""

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TRIM_NEVER, PAD_BYTES = 2**31 - 1, 256 * 2**20


def keep_memory() -> bool:
    """Have glibc keep freed memory for this process, and return whether it agreed; other libraries have no such switch.

    By default each activation of many megabytes is handed back to the kernel when it is freed and comes back as zeroed
    pages, one fault for 4 KiB: on a CPU that took half of the time of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, TRIM_NEVER), (M_TOP_PAD, PAD_BYTES))
    return all(mallopt(*setting) for setting in settings)
