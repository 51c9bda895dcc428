"""For tools that look for a setup.py; the metadata stands in pyproject.toml."""

from setuptools import setup

setup()
