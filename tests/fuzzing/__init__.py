"""Spoilt files of every kind that EAT reads: each must end in a result or in one of our errors.

``tests/test_fuzz.py`` tries a few of each kind, and ``scripts/fuzz.py`` as many as there is time
for. ``damage`` spoils any content, ``kinds`` knows the files, ``trial`` what may come of them.
"""
