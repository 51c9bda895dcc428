"""Searches over the options of a run.

Read ``trial`` first: the bridge to nni, and the only module that knows it. ``results`` reads nni's
record of a search. Only the command line imports this room.
"""
