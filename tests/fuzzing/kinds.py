"""All kinds of inputs by name."""

from fuzzing import data, models, texts
from fuzzing.samples import Kind

KINDS: dict[str, Kind] = models.KINDS | data.KINDS | texts.KINDS
