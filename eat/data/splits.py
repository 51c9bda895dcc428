"""Temporary."""

from eat.data.dataset import Splits, read_splits

__all__ = ["Splits", "read_splits"]
