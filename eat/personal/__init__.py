"""Personalised assessment: a general model adapted to single raters by k of their ratings.

``protocol`` measures adaptation over all test workers (Tables 3, 6 and 7), ``adaptation`` holds the
draws and steps for one of them, ``report`` the statistics, ``journal`` the finished workers on
disk. ``own`` makes a personal model, by the fit in ``taste``. Read ``protocol`` first. Only the
command line, experiments, pictures and the demo import this room; it imports evaluation, scoring,
the checkpoint, data and models.
"""
