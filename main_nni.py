"""One training run, alone or as a trial of nni.

    python main_nni.py --config configs/sample.yaml --optim.lr 1e-4
    nnictl create --config config.yml

Within an nni experiment the trial's parameters win over the command line: any option under its
dotted name, and ``batch_size`` and ``init_lr`` as in the authors' search space.
"""

from eat.cli import guarded, parse_train, run_train
from eat.system.heap import keep_heap
from eat.system.processes import count, from_main, meet
from eat.system.stops import leave
from eat.tuning import trial as tuning


def main() -> int:
    """Parse, merge nni's parameters, train; returns the exit code."""
    tuning.end_with_parent()
    keep_heap()
    if count() > 1:
        meet(cpu=parse_train(None).run.device == "cpu")
    config = parse_train(None, from_main(tuning.parameters))
    return guarded(lambda: run_train(config), "main_nni.py")


if __name__ == "__main__":
    leave(main())
