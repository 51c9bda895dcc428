"""Metrics of a model on labelled photographs.

``metrics`` has the field's numbers as pure functions; ``measure`` takes a model and a loader, or
outputs and labels, to named numbers, and is what the trainer uses; ``evaluate`` goes from a
checkpoint and options to an ``Evaluation``, which ``report`` writes. ``slices`` are the parts of a
split by a label column, ``released`` what the authors published about their checkpoints.

Read ``measure`` first. Training, personalised assessment and the command line may import this room;
it imports the checkpoint, data and models.
"""
