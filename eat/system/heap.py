"""The C library's heap."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names that glibc's mallopt takes


def keep_heap() -> None:
    """Keep freed memory in this process for its next tensors.

    By default glibc returns large blocks to the system, and every page of the next tensor is
    faulted in and zeroed anew: a fifth of a forward pass on a CPU. The peak does not change.
    Without glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
