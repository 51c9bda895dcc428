"""Tables and figures of the paper as rows of training runs.

``table`` reads an experiment from its YAML file in ``configs/experiments``; ``runner`` trains its
rows and seeds; ``results`` keeps what they gave, a line of a CSV each; ``report`` sums that up;
``study`` measures whether models look at the background, ``workers`` what they gain from a worker's
ratings; ``listing`` says what there is and what it would cost.
Only ``cli`` may import this room.
"""
