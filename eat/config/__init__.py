"""Every option, with its type, its default and its help. YAML, command line and tuners fill these.

``run`` has the options of a training run, in groups; ``commands`` those of the other commands;
``legacy`` translates the options of version 0.1.
Anything may import this room, which imports nothing.
"""

from eat.config.run import (
    DataConfig,
    FaultConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)

__all__ = ["DataConfig", "FaultConfig", "ModelConfig", "OptimConfig", "RunConfig", "TrainConfig"]
