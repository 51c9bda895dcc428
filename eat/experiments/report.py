"""The results of an experiment summed up: over seeds, against the first row, beside the paper's."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from eat.experiments.results import Record
from eat.experiments.study import detectable, pooled_deviation
from eat.experiments.table import Experiment
from eat.pictures.experiments import Line, draw_over_points, draw_rows, draw_slices
from eat.system.files import write_atomically

LEGEND = """\
Mean ± standard deviation over seeds. Over images: 95% bootstrap interval, the mean of the seeds'
ends. Differences are paired by seed, from three seeds on with a 95% t interval over seeds.
Multiply-adds and memory (activations kept for the backward pass, float32) are counted for one
image. Point spread: standard deviation of the interest points within an image, of the block that
has the least (a uniform grid has 0.57)."""
STUDY = """\
Foreground and background: Spearman's partial correlation of predictions with that term of the
votes, the other given. Attention on background: its share, the mean over the blocks of the last two
stages but plain window attention, less the share of the images' area. Gradient on background: the
same of the size of the expected score's gradient at the tokens that these blocks attend to."""
PERSONAL = """\
Personalised: SRCC of adapted models on each test worker's other images, the mean over draws, then
over workers; general: the same of the model before. Over workers: 95% bootstrap interval, the mean
of the seeds' ends. Over draws, as in the paper: standard deviation of the mean over workers. SRCC
itself is that of the general model on its own test split."""
# Columns of which differences to the first row are taken, by what they are called.
COMPARED = {
    "srcc": "SRCC",
    "foreground_srcc": "foreground",
    "background_srcc": "background",
    "personal_srcc": "personalised",
}
ON_BACKGROUND = {
    "background_attention": "attention on background",
    "background_gradient": "gradient on background",
}
# Metrics that tables of the paper print, by their columns; the first two are always shown.
MEASURED = {"srcc": "SRCC", "plcc": "PLCC", "ratio": "ratio", "mse": "MSE"}


@dataclass(frozen=True)
class Estimate:
    """The mean of values, their standard deviation, and a 95% interval (t); None where undefined.

    Two values have a deviation; it takes three for an interval that says something.
    """

    mean: float
    deviation: float | None = None
    half_width: float | None = None
    count: int = 1


def estimate(values: Sequence[float]) -> Estimate:
    """Sum up at least one value."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Estimate(mean)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if n < 3:
        return Estimate(mean, deviation, count=n)
    return Estimate(mean, deviation, stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n), n)


def paired(first: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """Differences, other minus first, of values by seed; None without a common seed."""
    seeds = first.keys() & other.keys()
    return estimate([other[seed] - first[seed] for seed in sorted(seeds)]) if seeds else None


@dataclass(frozen=True)
class RowSummary:
    """A row's records, one a seed, and what they come to."""

    name: str
    records: list[Record]
    failed: list[Record]
    first: list[Record]  # of the first row; of that itself, none

    def difference(self, column: str = "srcc") -> Estimate | None:
        """A column less that of the first row, paired by seed."""
        first, own = (
            {r["seed"]: r[column] for r in records if r[column] is not None}
            for records in (self.first, self.records)
        )
        return paired(first, own)

    def values(self, column: str) -> list[float]:
        """A column's values where it has some."""
        return [record[column] for record in self.records if record[column] is not None]

    def estimate(self, column: str) -> Estimate | None:
        """A column summed up over seeds."""
        values = self.values(column)
        return estimate(values) if values else None

    def mean(self, column: str) -> float | None:
        """A column's mean over seeds."""
        found = self.estimate(column)
        return found.mean if found else None

    @property
    def one(self) -> Record:
        """A record, for what does not depend on the seed."""
        return (self.records or self.failed)[0]

    def spread(self) -> float | None:
        """The points' deviation within an image, the least of all blocks, the mean over seeds."""
        cells = [record["point_spread"] for record in self.records if record["point_spread"]]
        least = [min(json.loads(cell).values()) for cell in cells]
        return estimate(least).mean if least else None

    def slices(self) -> dict[str, Estimate]:
        """SRCC of each slice minus that of the whole split, summed up over seeds."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            for name, value in json.loads(record["slices"] or "{}").items():
                found.setdefault(name, []).append(value - record["srcc"])
        return {name: estimate(values) for name, values in found.items()}

    def on_background(self, column: str) -> list[float]:
        """Each seed's share of a column on the background, less the share of the area."""
        found = []
        for record in self.records:
            if record[column]:
                shares = json.loads(record[column]).values()
                found.append(math.fsum(shares) / len(shares) - record["background_area"])
        return found


def summarise(records: Sequence[Record]) -> list[RowSummary]:
    """Records by row, in the order of their first appearance."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(record["row"], []).append(record)

    finished = {name: [r for r in found if not r["failed"]] for name, found in rows.items()}
    return [
        RowSummary(
            name,
            finished[name],
            [record for record in found if record["failed"]],
            finished[next(iter(rows))] if place else [],
        )
        for place, (name, found) in enumerate(rows.items())
    ]


def show(value: float | None, form: str = ".3f", scale: float = 1) -> str:
    """A number for a cell, or a dash."""
    return "-" if value is None else format(value / scale, form)


def show_estimate(found: Estimate | None, form: str = ".3f") -> str:
    """A mean with its deviation."""
    if found is None:
        return "-"
    return show(found.mean, form) + (
        f" ± {found.deviation:.3f}" if found.deviation is not None else ""
    )


def show_difference(found: Estimate | None) -> str:
    """A mean difference with its interval."""
    if found is None:
        return "-"
    if found.half_width is None:
        return f"{found.mean:+.3f}"
    low, high = found.mean - found.half_width, found.mean + found.half_width
    return f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def show_interval(row: RowSummary, column: str, form: str = ".3f") -> str:
    """The mean, over seeds, of an interval's ends."""
    low, high = row.mean(f"{column}_low"), row.mean(f"{column}_high")
    return "-" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def footnotes(rows: Sequence[RowSummary]) -> dict[str, str]:
    """A mark for each way in which rows are less than the paper's."""
    texts = dict.fromkeys(r["reduced"] for row in rows for r in row.records if r["reduced"])
    return {text: f"[{number}]" for number, text in enumerate(texts, start=1)}


def row_name(row: RowSummary, marks: Mapping[str, str]) -> str:
    """A row's name with the marks of what is reduced in it."""
    return " ".join(
        [row.name, *dict.fromkeys(marks[r["reduced"]] for r in row.records if r["reduced"])]
    )


def columns(rows: Sequence[RowSummary]) -> dict[str, list[str]]:
    """The cells of a table, by header."""
    printed = [m for m in MEASURED if any(row.one[f"published_{m}"] is not None for row in rows)]
    measured = [m for m in MEASURED if m in ("srcc", "plcc") or m in printed]
    first = rows[0].name
    found = {"seeds": [str(len(row.records)) for row in rows]} | personal_columns(rows)
    for name in measured:
        form = ".4f" if name == "mse" else ".3f"
        found[MEASURED[name]] = [show_estimate(row.estimate(name), form) for row in rows]
        if name == "srcc":
            found["95% over images"] = [show_interval(row, "srcc") for row in rows]
            if rows[0].one["shots"] is None:  # rows of test workers may share their model
                found[f"SRCC minus {first}"] = [show_difference(row.difference()) for row in rows]
    for name in ("foreground_srcc", "background_srcc"):
        found[COMPARED[name]] = [show_estimate(row.estimate(name)) for row in rows]
        differences = [show_difference(row.difference(name)) for row in rows]
        found[f"{COMPARED[name]} minus {first}"] = differences
    for name, title in ON_BACKGROUND.items():
        shares = [row.on_background(name) for row in rows]
        found[title] = [show_estimate(estimate(v) if v else None, "+.3f") for v in shares]
    counted: list[tuple[str, str, str, float]] = [
        ("pixels", "side", ".0f", 1),
        ("params, M", "params", ".2f", 1e6),
        ("multiply-adds, G", "macs", ".4g", 1e9),
        ("Eq. 12, G", "eq12", ".4g", 1e9),
        ("memory, MB", "memory", ".1f", 1e6),
        ("points", "points", ".0f", 1),
        ("converged in epoch", "converged_epoch", ".1f", 1),
    ]
    for header, name, form, scale in counted:
        found[header] = [show(row.mean(name), form, scale) for row in rows]
    found["point spread"] = [show(row.spread(), ".2f") for row in rows]
    paper = [*((m, MEASURED[m], "g") for m in printed), ("gflops", "FLOPs, G", "g")]
    paper += [("mparams", "params, M", "g"), ("epochs", "epochs, at least", "g")]
    for name, title, form in paper:
        found[f"paper: {title}"] = [show(row.one[f"published_{name}"], form) for row in rows]
    return {header: cells for header, cells in found.items() if {*cells} != {"-"}}


def personal_columns(rows: Sequence[RowSummary]) -> dict[str, list[str]]:
    """The cells of what test workers give, by header, beside the paper's."""
    paper = [(row.one["published_personal"], row.one["published_deviation"]) for row in rows]
    return {
        "workers": [show(row.mean("workers"), ".0f") for row in rows],
        "personalised": [show_estimate(row.estimate("personal_srcc")) for row in rows],
        "95% over workers": [show_interval(row, "personal") for row in rows],
        "over draws": [show(row.mean("personal_deviation")) for row in rows],
        "paper: personalised": [
            show(mean) + (f" ± {deviation:.3f}" if deviation else "") for mean, deviation in paper
        ],
        "general": [show_estimate(row.estimate("general_srcc")) for row in rows],
        "personalised minus general": [show(row.mean("gain"), "+.3f") for row in rows],
        "its 95% over workers": [show_interval(row, "gain", "+.3f") for row in rows],
        f"personalised minus {rows[0].name}": [
            show_difference(row.difference("personal_srcc")) for row in rows
        ],
    }


def table_lines(cells: Mapping[str, Sequence[str]]) -> list[str]:
    """A table of columns by header, as Markdown."""
    lines = [list(cells), ["---"] * len(cells), *zip(*cells.values(), strict=True)]
    return [f"| {' | '.join(line)} |" for line in lines]


def slice_cells(rows: Sequence[RowSummary], marks: Mapping[str, str]) -> dict[str, list[str]]:
    """The cells of a table of slices, by header; none if nothing was sliced."""
    found = {row_name(row, marks): row.slices() for row in rows}
    names = list(dict.fromkeys(name for parts in found.values() for name in parts))
    columns = {
        row: [show_estimate(parts.get(name), "+.3f") for name in names]
        for row, parts in found.items()
    }
    return {"slice": names} | columns if names else {}


def markdown(experiment: Experiment, records: Sequence[Record], command: str) -> str:
    """The results of an experiment as a document."""
    rows = summarise(records)
    marks = footnotes(rows)
    lines = [f"# {experiment.where}: {experiment.title}", "", f"`{command}`", ""]
    if rows:
        cells = {"row": [row_name(row, marks) for row in rows]} | columns(rows)
        lines += [*table_lines(cells), "", LEGEND]
        if parts := slice_cells(rows, marks):
            lines += [
                "",
                "SRCC of each slice of the test split, minus that of the whole split:",
                "",
            ]
            lines += table_lines(parts)
        lines += [STUDY] if experiment.task == "background" else []
        lines += [PERSONAL] if experiment.personalised else []
        lines += power(rows)
    if marks:
        lines += ["", "Reduced against the paper:", ""]
        lines += [f"- {mark} {text}" for text, mark in marks.items()]
    failed = [record for row in rows for record in row.failed]
    if failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {r['row']}, seed {r['seed']}: {r['failed']}" for r in failed]
    return "\n".join(lines) + "\n"


def power(rows: Sequence[RowSummary]) -> list[str]:
    """What true differences to the first row as many seeds would have found."""
    found, seeds = [], []
    for column, title in COMPARED.items():
        differences = [row.difference(column) for row in rows]
        counts = [d.count for d in differences if d is not None and d.half_width is not None]
        spread = [d.deviation for d in differences if d is not None and d.half_width is not None]
        deviation = pooled_deviation([d for d in spread if d is not None], counts) if counts else 0
        if deviation:
            least = detectable(deviation, min(counts))
            seeds.append(min(counts))
            found.append(f"{title} {least:.3f} (deviation {deviation:.3f})")
    if not found:
        return []
    return ["", f"Power: with {min(seeds)} seeds, a two-sided paired t test at 5% finds a true "
            f"difference with 80% probability from this size on: {', '.join(found)}. The deviation "
            "is that of the differences to the first row, pooled over rows."]  # fmt: skip


def picture(experiment: Experiment, records: Sequence[Record], path: Path) -> None:
    """Draw the results of an experiment."""
    rows = [row for row in summarise(records) if row.records]
    if not rows or experiment.plot in ("saliency", "examples"):  # see eat.experiments.photographs
        return
    marks = footnotes(rows)
    notes = [f"{mark} {text}" for text, mark in marks.items()]
    title = f"{experiment.where}: {experiment.title}"
    if experiment.slice_by:
        draw_slices({row_name(row, marks): bars(row) for row in rows}, title, notes, path)
        return
    shown = "personal" if experiment.personalised else "srcc"
    lines = [
        Line(
            name=row_name(row, marks),
            values=row.values("personal_srcc" if experiment.personalised else "srcc"),
            low=row.mean(f"{shown}_low"),
            high=row.mean(f"{shown}_high"),
            published=row.one[f"published_{shown}"],
            points=row.one["points"],
            others={
                title: values
                for title, values in (
                    ("before adaptation", row.values("general_srcc")),
                    ("foreground, background given", row.values("foreground_srcc")),
                    ("background, foreground given", row.values("background_srcc")),
                    *((f"{t}, less area", row.on_background(c)) for c, t in ON_BACKGROUND.items()),
                )
                if values
            },
            costs={
                "multiply-adds, G": row.one["macs"] / 1e9,
                "memory, MB": row.one["memory"] / 1e6,
            },
        )
        for row in rows
    ]
    if experiment.plot == "points":
        draw_over_points(lines, title, notes, path)
    else:
        draw_rows(lines, title, notes, path, "workers" if experiment.personalised else "images")


def bars(row: RowSummary) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each slice, for a picture."""
    return {name: (found.mean, found.deviation or 0) for name, found in row.slices().items()}


def write_report(
    experiment: Experiment, records: Sequence[Record], out: Path, command: str
) -> None:
    """Write NAME.md and NAME.png of an experiment into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(experiment, records, command)
    write_atomically(out / f"{experiment.name}.md", text.encode())
    picture(experiment, records, out / f"{experiment.name}.png")
