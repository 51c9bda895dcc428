"""Training: the loop and all that a run needs to survive.

Read ``trainer`` (the loop) and ``step`` (one step of it) first. ``setup`` goes from options to
loaders and model; ``folder``, ``state``, ``faults`` and ``log`` hold a run's files; ``losses`` are
functions of tensors. Only the command line and its equals import this room; it imports
``evaluation`` and the rooms below.
"""
