"""Photographs to scores."""

from eat.scoring.lines import score_lines
from eat.scoring.partial import PartialScores
from eat.scoring.scorer import Score, Scorer, score

__all__ = ["PartialScores", "Score", "Scorer", "score", "score_lines"]
