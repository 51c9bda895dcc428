"""The packages, where pyproject.toml cannot say it: the wheel has configs/ as eat/configs/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["eat", "eat.*"]), "eat.configs"],
    package_dir={"eat.configs": "configs"},
    package_data={"eat": ["py.typed", "pictures/assets/*"], "eat.configs": ["**/*.yaml"]},
)
