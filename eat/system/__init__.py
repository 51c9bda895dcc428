"""Files, processes, signals and devices: what has nothing to do with photographs.

Any room may import this one, which imports none of them.
"""
