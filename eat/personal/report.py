"""Findings of the k-shot protocol: statistics, text and files."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eat.evaluation.metrics import bootstrap_interval
from eat.evaluation.report import markdown_table, write_report

NAMES = ("personalised", "general", "difference")


@dataclass(frozen=True)
class WorkerResult:
    """SRCC of both models on one worker's remaining images.

    Attributes:
        images: rated images; ``images - shots`` of them are tested on in each repeat.
        personalised: SRCC of the adapted model in each repeat; NaN where it is undefined.
        general: the same of the unadapted one, on the same images.
    """

    worker: str
    images: int
    personalised: list[float]
    general: list[float]


def _texts(row: dict[str, float], digits: int, sign: str) -> tuple[str, str]:
    """Mean with deviation, and interval; those that are undefined are left out."""
    text = {k: "" if np.isnan(value) else f"{value:.{digits}f}" for k, value in row.items()}
    spread = f" {sign} {text['deviation']}" if text["deviation"] else ""
    between = f"{text['low']} to {text['high']}" if text["low"] else ""
    return (text["mean"] or "undefined") + spread, between


@dataclass
class Personalization:
    """Findings of the k-shot protocol.

    A repeat in which either model's SRCC is undefined is left out of all the means.

    Attributes:
        title: data set and protocol in a line.
        settings: everything that the numbers depend on.
        results: one per worker, sorted by id.
        skipped: rated images of the workers with too few of them.
        notes: remarks that the numbers must be read with.
    """

    title: str
    settings: dict[str, Any]
    results: list[WorkerResult]
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def srcc(self) -> NDArray[np.float64]:
        """SRCC (workers, repeats, 3): personalised, general, difference; NaN where undefined."""
        pair = np.array([(r.personalised, r.general) for r in self.results]).transpose(0, 2, 1)
        both = np.concatenate([pair, pair[..., :1] - pair[..., 1:]], axis=2)
        return np.where(np.isnan(both).any(axis=2, keepdims=True), np.nan, both)

    def statistics(self) -> dict[str, dict[str, float]]:
        """Of personalised, general and difference: mean, deviation, low, high.

        The mean is over repeats, then over workers; the deviation that of the repeats' means over
        workers (with n - 1; NaN for one repeat); low and high are the 95% bootstrap interval over
        workers (NaN for one worker).
        """
        values = self.srcc
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are NaN
            workers, repeats = np.nanmean(values, axis=1), np.nanmean(values, axis=0)
            nothing = np.full(3, np.nan)
            deviation = np.nanstd(repeats, axis=0, ddof=1) if len(repeats) > 1 else nothing
            defined = workers[~np.isnan(workers).any(axis=1)]
            low = high = nothing
            if len(defined) > 1:
                low, high = bootstrap_interval(lambda rows: rows.mean(axis=0), defined)
            found = {"mean": np.nanmean(workers, axis=0), "deviation": deviation}
            found |= {"low": low, "high": high}
        return {
            name: {key: float(values[i]) for key, values in found.items()}
            for i, name in enumerate(NAMES)
        }

    @property
    def undefined(self) -> int:
        """Pairs of worker and repeat that are left out of the means."""
        return int(np.isnan(self.srcc[..., 0]).sum())

    def per_worker(self) -> pd.DataFrame:
        """A row per worker: worker, repeats (with a defined SRCC), images, and the mean SRCCs."""
        rows = []
        for result, values in zip(self.results, self.srcc, strict=True):
            defined = values[~np.isnan(values[:, 0])]
            means = defined.mean(axis=0) if len(defined) else np.full(3, np.nan)
            rows.append((result.worker, len(defined), result.images, *means))
        return pd.DataFrame(rows, columns=["worker", "repeats", "images", *NAMES])

    def table(self) -> str:
        """The statistics as text for a terminal."""
        shots, repeats = self.settings["shots"], self.settings["repeats"]
        counts = sorted(result.images for result in self.results)
        images = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
        lines = [
            self.title,
            f"  {len(counts)} workers, {repeats} repeats, {images} images a worker, "
            f"{shots} of them to adapt on and the rest to test on",
            f"  {'SRCC':14}{'mean +- deviation':>20}{'95% over workers':>22}",
        ]
        for name, row in self.statistics().items():
            spread, between = _texts(row, 4, "+-")
            lines.append(f"  {name:14}{spread:>20}{between:>22}")
        if self.undefined:
            lines.append(f"  {self.undefined} pairs of worker and repeat have no SRCC: left out")
        if self.skipped:
            named = ", ".join(f"{worker} ({count})" for worker, count in self.skipped.items())
            lines.append(f"  {len(self.skipped)} workers skipped, who rated too few: {named}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        """The statistics as a table of one row."""
        cells = {"protocol": self.title, "workers": str(len(self.results))}
        for name, row in self.statistics().items():
            spread, between = _texts(row, 3, "±")
            cells[name] = f"{spread} ({between})" if between else spread
        return markdown_table(cells)

    def summary(self) -> dict[str, Any]:
        """Everything but the single workers, as plain values."""
        plain = {name: value for name, value in vars(self).items() if name != "results"}
        counts = {"workers": len(self.results), "undefined": self.undefined}
        return plain | counts | {"srcc": self.statistics()}

    def write(self, folder: str | Path) -> list[Path]:
        """Write summary.json, summary.md and workers.csv into a folder and return their paths."""
        rows = self.per_worker().to_csv(index=False)
        text = self.markdown() + "\n"
        return write_report(
            folder, {"summary.json": self.summary(), "summary.md": text, "workers.csv": rows}
        )
