"""A page of photographs by their scores, or of a model's errors on rated ones.

``make`` scores photographs and writes the page, ``photographs`` keeps what it shows of each,
``duplicates`` groups those that look alike, ``ratings`` adds what people say.
"""
