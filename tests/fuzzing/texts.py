"""Records of searches, options of runs, and scores so far."""

import io
import json
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path

import yaml
from hypothesis import strategies as st
from tuning.records import DRAWN, PROFILE, record

from eat.cli.train import parse_train
from eat.config.commands import BestOptions
from eat.personal.journal import Journal
from eat.scoring import PartialScores
from eat.tuning.results import best
from fuzzing.damage import NUMBERS, Files, spoilt_bytes, spoilt_files, spoilt_json, spoilt_values
from fuzzing.models import run_config
from fuzzing.samples import Kind


@cache
def search() -> Files:
    """nni's record of a search of one trial, as the JSON texts in it, and the trial's options."""
    return {
        "profile": json.dumps(PROFILE).encode(),
        "drawn": json.dumps(DRAWN).encode(),
        "result": b'"{\\"default\\": 0.5}"',
        "config.yaml": b"optim: {lr: 0.1}\n",
    }


def spoilt_search(files: Files) -> st.SearchStrategy[Files]:
    ways = {name: spoilt_json(json.loads(files[name])) for name in ("profile", "drawn")}
    nested = spoilt_json({"default": 0.5, "srcc": 0.1}) | st.sampled_from(NUMBERS).map(
        lambda number: json.dumps(number).encode()
    )
    ways["result"] = nested.map(lambda text: json.dumps(text.decode(errors="replace")).encode())
    ways["config.yaml"] = spoilt_bytes(files["config.yaml"])
    return spoilt_files(files, ways)


def find_best(folder: Path) -> None:
    """Write the best trial."""
    texts = [(folder / name).read_text(errors="replace") for name in ("profile", "drawn", "result")]
    made = record(folder / "search", *texts)
    (made / "run" / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    best(str(made), BestOptions(out=str(folder / "out")))


@cache
def options() -> Files:
    """A run's options."""
    config = run_config(Path("data")).to_dict()
    return {"config.yaml": yaml.safe_dump(config).encode()}


def spoilt_options(files: Files) -> st.SearchStrategy[Files]:
    values = spoilt_values(yaml.safe_load(files["config.yaml"]))
    dumped = values.map(lambda c: yaml.safe_dump(c, allow_unicode=True).encode(errors="replace"))
    return (dumped | spoilt_bytes(files["config.yaml"])).map(lambda c: {"config.yaml": c})


def read_options(folder: Path) -> None:
    """Parse them as ``eat train`` does; its message on wrong ones is an error of ours."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            config = parse_train(["--config", str(folder / "config.yaml")])
    except SystemExit as end:
        assert end.code == 2, end
        raise ValueError(f"{folder}: {said.getvalue()}") from None
    try:
        config.check()
    except ValueError as error:  # of an option, which need not come from the file
        raise ValueError(f"{folder}: {error}") from None


@cache
def scores() -> Files:
    """The partial file of scores."""
    lines = [{"seed": 1}, *({"image": n, "score": 1.5, "votes": [], "error": ""} for n in "ab")]
    return {"scores.csv.partial": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


def spoilt_lines(content: bytes) -> st.SearchStrategy[bytes]:
    """Lines of JSON with other values, or other bytes."""
    lines = [json.loads(line) for line in content.splitlines()]
    rows = spoilt_values(lines).map(lambda rows: rows if isinstance(rows, list) else [rows])
    texts = rows.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    return texts | spoilt_bytes(content)


def spoilt_scores(files: Files) -> st.SearchStrategy[Files]:
    ((name, content),) = files.items()
    return spoilt_lines(content).map(lambda changed: {name: changed})


def read_scores(folder: Path) -> None:
    """Go on from them."""
    partial = PartialScores(folder / "scores.csv", {"seed": 1}, resume=True)
    partial.missing([Path("a"), Path("b"), Path("c")])


SETTINGS = {"repeats": 2, "seed": 0}


@cache
def journal() -> Files:
    """The finished workers of ``eat personalize``."""
    line = {"worker": "a", "images": 9, "personalised": [0.5, None], "general": [0.25, 0.5]}
    lines = [json.dumps(line | {"worker": worker}) for worker in "ab"]
    return {
        "workers.jsonl": ("\n".join(lines) + "\n").encode(),
        "settings.json": json.dumps(SETTINGS).encode(),
    }


def spoilt_journal(files: Files) -> st.SearchStrategy[Files]:
    ways = {
        "workers.jsonl": spoilt_lines(files["workers.jsonl"]),
        "settings.json": spoilt_json(SETTINGS),
    }
    return spoilt_files(files, ways)


def read_journal(folder: Path) -> None:
    """Go on from them."""
    Journal(str(folder), SETTINGS)


KINDS = {
    "searches": Kind(search, spoilt_search, find_best),
    "configs": Kind(options, spoilt_options, read_options),
    "journals": Kind(journal, spoilt_journal, read_journal),
    "scores": Kind(scores, spoilt_scores, read_scores),
}
