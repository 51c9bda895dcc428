"""Readers of label files: one module per published format, and ``own`` for the user's table.

A reader takes a path and returns a checked label table (:mod:`eat.data.labels.table`), or raises a
LabelError that names file and line. :mod:`eat.data.labels.fields` splits files into fields, and
``build`` makes tables of them. A new format is a module here and a row of :mod:`eat.data.registry`.
"""
