"""Temporary."""

from eat.inference import autocast, check_compiler, pick_device

__all__ = ["autocast", "check_compiler", "pick_device"]
