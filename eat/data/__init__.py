"""Data: from label files and photographs to batches of pixels and targets.

Read in this order: ``registry`` (the data sets), ``labels`` (files to the one label table),
``splits``, ``transforms`` (the one pixel path), ``dataset`` and ``loading``. ``scales`` holds the
score scales. ``prepare`` checks a data set (``checks``) and makes the pixel ``cache``.

Every room above ``models`` may import this one. It imports only ``config`` and ``system``.
"""
