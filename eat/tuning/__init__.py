"""Searches over the options of a run, and grids of jobs.

Read ``trial`` first: the bridge to nni, on a trial's side. ``grid`` starts an experiment whose
trials are given jobs, and stops it; ``results`` reads nni's record of a search. Only the command
line imports this room.
"""
