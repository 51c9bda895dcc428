"""Options of the commands that read labels."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ScaleOptions:
    """The scale of labels.

    Attributes:
        low: lowest score of the data set `table`; null takes 1.
        high: highest score of it; null takes 10.
    """

    low: float | None = None
    high: float | None = None


@dataclass(kw_only=True)
class LabelOptions(ScaleOptions):
    """Labels that a model is held against.

    Attributes:
        labels: label file or folder.
        name: data set of the labels, or FILE.py:NAME; null takes the one that the model was trained
            on, if it is one of the package.
        test: label file or id list of the test split.
        slice_by: columns of the label table; metrics of each of their values are added.
    """

    labels: str | None = None
    name: str | None = None
    test: str | None = None
    slice_by: list[str] | None = None
