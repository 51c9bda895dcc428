"""One training run, alone or as a trial of nni; ``eat train`` is the same.

    python main_nni.py --config configs/sample.yaml --optim.lr 1e-4
    nnictl create --config config.yml

The way from here, each step a function to read:

1. ``eat.cli.parse_train``: YAML file and command line to a ``TrainConfig`` (eat/config/run.py).
2. ``eat.tuning.trial.parameters``: in an nni experiment the trial's parameters win over both. They
   are any options under their dotted names, and ``batch_size`` and ``init_lr`` as in the authors'
   search space. The run is written to nni's folder, and continues if nni starts the trial again.
3. ``eat.training.trainer.train``: the run. Each epoch's metrics go to nni.
"""

import sys

from eat.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
