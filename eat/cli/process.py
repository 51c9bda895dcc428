"""What a command sets for its whole process, before PyTorch is imported."""

from eat.system.cores import share_cores, spin_briefly
from eat.system.heap import keep_heap
from eat.tuning.nni_engine import trials_at_once


def prepare_process() -> None:
    """Keep freed memory, and leave cores to the processes beside this one."""
    keep_heap()
    spin_briefly()
    if (trials := trials_at_once()) > 1:
        share_cores(trials)
