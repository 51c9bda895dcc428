"""Cores, and how processes share them.

OpenMP reads its environment when PyTorch loads it. So these functions are called before PyTorch is
imported. What a user has set stays.
"""

import os

SPINS = "5000"  # a fraction of a millisecond


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spin_briefly() -> None:
    """Have OpenMP's threads soon sleep while they wait for each other.

    GNU's OpenMP, which PyTorch has on Linux, lets them spin for some milliseconds. That takes the
    cores from other processes: two training runs beside each other take many times as long as one
    after the other. Threads that never spin (OMP_WAIT_POLICY=PASSIVE) make small models slower.
    docs/performance.md has the figures.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def share_of_cores(processes: int) -> int:
    """Threads for each of so many processes that compute at a time."""
    return max(1, available_cores() // processes)


def share_cores(processes: int) -> None:
    """Take a share of the cores for this process's threads, beside others that do the same.

    Args:
        processes: that compute at a time, this one included.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(share_of_cores(processes)))
