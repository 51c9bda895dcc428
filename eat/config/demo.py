"""The options of ``eat demo``."""

from dataclasses import dataclass

from eat.config.model import ScorerOptions


@dataclass(kw_only=True)
class DemoOptions(ScorerOptions):
    """A local web page that scores, compares and rates photographs.

    Attributes:
        host: address to listen at. 127.0.0.1 can be reached from this machine alone, 0.0.0.0 from
            all that can reach it: whoever can has the page, without a password.
        port: of the page; null takes a free one.
        files: photographs of a visitor at most.
        megabytes: of a photograph's file at most.
        megapixels: of a photograph at most.
    """

    host: str = "127.0.0.1"
    port: int | None = 7860
    files: int = 200
    megabytes: float = 50
    megapixels: float = 100
