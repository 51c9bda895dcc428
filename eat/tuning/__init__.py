"""Searches over the options of a run, and grids of jobs.

Read ``trial`` first: what an engine of searches is to a trial. ``nni_engine`` and ``optuna_engine``
are the two. ``search`` draws from a ``space``: it starts trials itself, recorded in a ``study`` of
Optuna's, or has nni do both. ``grid`` has nni carry out jobs, and ``results`` reads the records of
either. Only the command line imports this room.
"""
