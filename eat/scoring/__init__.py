"""Photographs to scores."""

from eat.scoring.comparing import Compared, Comparison, compare
from eat.scoring.lines import comparison_lines, note_lines, score_lines
from eat.scoring.partial import PartialScores
from eat.scoring.scorer import Pixels, Score, Scorer, read_pixels, score

__all__ = [
    "Compared",
    "Comparison",
    "PartialScores",
    "Pixels",
    "Score",
    "Scorer",
    "compare",
    "comparison_lines",
    "note_lines",
    "read_pixels",
    "score",
    "score_lines",
]
