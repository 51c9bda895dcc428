"""Sample data: drawn photographs with known merits, to try a run in minutes without a download.

``make`` writes the data set and its raters, ``scenes`` draws the photographs. Neither needs torch.
Only the command line, ``sharing`` and tests import this room.
"""
