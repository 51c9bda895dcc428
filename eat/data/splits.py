"""Temporary."""

from eat.data.dataset import Splits, read_splits, with_images

__all__ = ["Splits", "read_splits", "with_images"]
