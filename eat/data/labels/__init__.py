"""Labels: from a file of any known format to one checked table.

Read ``table`` (the table and its checks) first, then ``reading`` (from a data set's name and files
to its table). ``fields`` splits files into fields, ``formats`` has one reader per format, and
``identity`` tells which images a table holds. None of it needs torch.
"""
