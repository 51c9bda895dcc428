"""``eat reproduce`` as a user calls it."""

import re
from pathlib import Path

import pytest

from eat.cli import main, workers
from eat.cli.reproduce import configure, run_options
from eat.config.commands import ReproduceOptions
from eat.experiments.table import find_experiments


def test_the_options_of_a_run_are_told_from_the_commands_own() -> None:
    argv = ["--out", "x", "--data.name", "sample", "table5", "--optim.lr=1", "--config", "c.yaml"]
    found = {"--data.name": "sample", "--optim.lr": "1", "--config": "c.yaml"}
    assert run_options(argv) == found
    assert run_options(["--personal.repeats", "2", "--second.data.name=x", *argv]) == found


def test_a_table_is_made_from_the_command_line(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "{title: Mine, where: Table 9, data: ava, epochs: 25, rows: [{name: Swin, letters: SSSS}]}"
    )
    small = "{dims: [16, 32, 32, 64], heads: [1, 1, 2, 4]}"
    argv = ["reproduce", str(tmp_path / "mine.yaml"), "--data.name", "sample", "--quick", "true"]
    argv += ["--data.labels", str(sample), "--data.images", str(sample / "images")]
    argv += ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--run.seed", "5"]
    argv += ["--data.size", "64", "--optim.epochs", "1", "--model.settings", small]
    assert main(argv) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mine.csv", "mine.md", "mine.png", "mine.pdf",
    }  # fmt: skip
    assert ",Swin,5," in (tmp_path / "out" / "mine.csv").read_text().replace("mine", "")
    assert "Table 9: 1 runs, 0 of them recorded" in capsys.readouterr().out


def test_the_list_says_what_an_experiment_needs_and_costs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reproduce", "table8", "--list", "true", "--data.name", "sample"]) == 0
    text = capsys.readouterr().out
    assert "table8    Table 8: DAT and PS-ViT, plain and enhanced" in text
    assert "5 rows x 3 seeds = 15 trainings of eat_nano, psvit_nano, psvit_nano_eam" in text
    assert re.search(r"DAT with EAT blocks +0\.073 G +2\.29 M   paper: 264 G, 87 M\n", text)
    assert re.search(r"PSViT with EAM +0\.045 G +0\.42 M   paper: 264 G, 21 M\n", text)


def test_a_quick_run_makes_two_samples_of_different_taste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, dict[str, object]] = {}

    def make(folder: Path, **settings: object) -> Path:
        made[folder.name] = settings
        (folder / "flickr_aes").mkdir(parents=True)
        return folder

    monkeypatch.setattr(workers, "rated_sample", make)
    monkeypatch.setattr("eat.experiments.workers.with_workers", lambda *given: given)
    (experiment,) = find_experiments("table7")
    options = ReproduceOptions(quick=True, runs=str(tmp_path))
    first = workers.quick_options(tmp_path)
    configured = configure(experiment, options, first, "eat reproduce")
    given = {"second.data": {}, "personal": {"lr": 0.1, "name": "para"}, "second.personal": {}}
    _, _, second, protocols, _ = workers.add_workers(experiment, configured, given, options)  # type: ignore[misc]
    assert made == {"rated": {}, "second": {"seed": 1, "taste": 0.1}}
    assert (second["name"], second["labels"]) == ("sample", str(tmp_path / "second"))
    assert protocols["first"] == {"repeats": 2, "epochs": 1, "lr": 0.1, "name": "para"}
    assert protocols["second"] == {"repeats": 2, "epochs": 1, "lr": 0.1}  # no name of the first


def test_the_list_counts_a_shared_model_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table7", "--list", "true"]) == 0
    text = capsys.readouterr().out
    assert "needs single workers' ratings" in text and "in the paper AADB" in text
    assert "2 models x 3 seeds = 6 trainings of eat_base" in text
    assert "adaptation to 37 and 22 workers, 10 draws of 20 steps" in text


def test_a_sample_without_workers_is_refused_and_says_how_they_are_made(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["reproduce", "table3", "--data.name", "sample", "--data.labels", str(sample)]
    assert main(argv) == 2
    assert f"eat sample {sample} --workers 30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no experiment is named: give one, or all, or --list true"),
        (["tabel5"], "did you mean table5?"),
        (["table5", "--port", "8999"], "--nni and --port belong to --engine nni"),
        (["table5", "--engine", "ray"], "--engine: found 'ray', expected local or nni"),
        (["table5", "--seeds", "0"], "--seeds is 0: expected 1 to 1000"),
        (["table5", "--run.folder", "x"], "runs have folders of their own here"),
        (["table5"], "data.labels is not set: give a path, as in --data.labels PATH"),
        (["table5", "--data.name", "sample", "--data.labels", "none"], "eat sample none"),
        (
            ["table5", "--model.name", "eat_nan"],
            "unknown model 'eat_nan'; did you mean 'eat_nano'?",
        ),
        (["table5", "--list", "true", "--data.name", "avva"], "unknown data set 'avva'"),
        (["table5", "--optim.lrr", "1"], "Did you mean --optim.lr?"),
        (["table7", "--data.labels", "x", "--data.images", "x"], "a second data set is needed"),
        (["table7", "--second.data.nam", "x"], "Did you mean --second.data.name?"),
        (["table6", "--personal.epochs", "x"], "--personal.epochs: found 'x', expected a whole"),
        (["table5", "--optim.lr", "fast"], "--optim.lr: found 'fast', expected a number"),
    ],
)
def test_a_wrong_call_is_one_message(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["reproduce", *argv])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
