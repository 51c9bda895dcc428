"""Trackers of runs: what they get, of runs that are stopped too, and what their failures do."""

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eat.cli import main, parse_train
from eat.config import TrainConfig
from eat.system.stops import Interrupted
from eat.training import trackers
from eat.training.log import scalars
from eat.training.trainer import Trainer, train

NAMES = {
    "train/train_loss",
    "train/lr",
    "test/srcc",
    "test/plcc",
    "points/points/stages.3.blocks.0",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder, which stays empty, and no settings but those of the test."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert list((tmp_path / "here").iterdir()) == []


class Fake:
    """A tracker that keeps what it gets, and fails where it is told to."""

    failing: tuple[str, ...] = ()
    starts: list["Fake"] = []

    def __init__(self, folder: Path, run: str | None) -> None:
        self.id = run or f"run {len(Fake.starts)}"
        self.epochs = max([e for t in Fake.starts if t.id == run for e in t.got], default=0)
        self.options: dict[str, Any] = {}
        self.got: dict[int, dict[str, float]] = {}
        self.code: int | None = None
        Fake.starts.append(self)

    def start(self) -> None:
        self.fail("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.options = values

    def log(self, values: dict[str, float], step: int = 0) -> None:
        self.fail("log")
        assert step not in self.got
        self.got[step] = values

    def finish(self, code: int) -> None:
        self.code = code
        self.fail("finish")

    def fail(self, moment: str) -> None:
        if moment in self.failing:
            raise OSError(f"no network to {moment}")


@pytest.fixture
def fake(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """Every start of the tracker of a run with one."""
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["mlflow"])
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Fake)
    monkeypatch.setattr(Fake, "starts", [])
    config.run.trackers = "mlflow"
    return Fake.starts


def stop(config: TrainConfig, epoch: int, error: BaseException | None = None) -> None:
    """Start a run that ends when an epoch is logged and its state is not: by SIGTERM or an error.

    As a run killed at that moment, it has to compute the epoch again.
    """
    trainer = Trainer(config)
    end_epoch = trainer._end_epoch

    def ending(metrics: dict[str, float]) -> None:
        if trainer.progress.epoch + 1 == epoch:
            raise error or Interrupted(signal.SIGTERM, "an epoch that is not saved")
        end_epoch(metrics)

    trainer._end_epoch = ending
    with pytest.raises((Interrupted, type(error or OSError()))):
        trainer.fit()
    trainer.close()


def logged(folder: Path) -> dict[int, dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["epoch"]: scalars(line) for line in lines}


@pytest.mark.parametrize("given", ["mlflow", "[mlflow, wandb]", "[]"])
def test_trackers_are_a_name_or_a_list(given: str) -> None:
    assert parse_train(["--run.trackers", given]).run.trackers == yaml.safe_load(given)


def test_an_unknown_tracker_is_refused_with_those_known(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("mlfow", "[wandb, mlfow]"):
        with pytest.raises(SystemExit):
            parse_train(["--run.trackers", given])
        assert "expected mlflow" in (said := capsys.readouterr().err) and "wandb" in said
    config.run.trackers = ["mlfow"]
    with pytest.raises(ValueError, match="run.trackers is 'mlfow': expected some of mlflow, wandb"):
        train(config)


@pytest.mark.parametrize("name, package", [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_refused_before_a_folder_is_made(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, name: Any, package: str
) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [])
    config.run.trackers = name
    with pytest.raises(ValueError, match=f"{name}, which is not installed: pip install {package} "):
        train(config)
    assert not Path(str(config.run.folder)).exists()


def test_a_tracker_gets_options_epochs_and_the_result(
    config: TrainConfig, fake: list[Fake]
) -> None:
    folder, metrics = train(config)
    (tracker,) = fake
    assert tracker.options["model.settings.dims"] == [16, 32, 32, 64]
    assert tracker.options["optim.lr"] == 1e-3
    result = tracker.got.pop(0)
    assert result.pop("result/best_epoch") in (1, 2)
    assert result == {f"result/{name}": value for name, value in metrics.items()}
    assert tracker.got == logged(folder)
    assert NAMES < set(tracker.got[1])
    assert tracker.code == 0


@pytest.mark.parametrize(
    "error, code", [(None, 143), (KeyboardInterrupt(), 130), (MemoryError(), 1)]
)
def test_a_continued_run_sends_each_epoch_once(
    config: TrainConfig, fake: list[Fake], error: BaseException | None, code: int
) -> None:
    stop(config, 2, error)
    config.run.resume = "auto"
    train(config)
    before, after = fake
    assert before.id == after.id
    assert set(before.got) == {1, 2} and set(after.got) == {0}
    assert (before.code, after.code) == (code, 0)


@pytest.mark.parametrize("moment", ["log", "finish"])
def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(
    config: TrainConfig, fake: list[Fake], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(Fake, "failing", (moment, "finish"))
    folder, _ = train(config)
    said = (folder / "train.log").read_text()
    assert said.count("run.trackers: mlflow failed") == 1
    assert f"OSError: no network to {moment}" in said
    assert (folder / "result.json").exists() and fake[0].code == 0
    monkeypatch.setattr(Fake, "failing", ())
    config.run.resume = "auto"
    train(config)
    assert set(fake[1].got) == ({0, 1, 2} if moment == "log" else {0})


def test_a_tracker_that_cannot_start_ends_a_new_run_and_no_other(
    config: TrainConfig, fake: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "failing", ("start",))
    with pytest.raises(ValueError, match=r"mlflow cannot start \(no network.*--run.resume auto"):
        train(config)
    folder = Path(str(config.run.folder))
    assert (folder / "metrics.jsonl").read_text() == ""
    config.run.resume, config.run.trackers = "auto", []
    stop(config, 2)
    config.run.trackers = ["mlflow"]
    train(config)
    assert (folder / "result.json").exists()
    assert "run.trackers: mlflow failed" in (folder / "train.log").read_text()


def test_a_damaged_list_of_ids_is_refused(config: TrainConfig, fake: list[Fake]) -> None:
    stop(config, 1)
    folder = Path(str(config.run.folder))
    (folder / "trackers.json").write_text('{"mlflow": 1}')
    config.run.resume = "auto"
    with pytest.raises(ValueError, match="trackers.json: damaged .* remove it"):
        train(config)


def train_with(tracker: str, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a run at its second epoch, continue it on the command line; return its folder."""
    monkeypatch.setenv("A_TOKEN", "a-secret")
    config.run.trackers = [tracker]
    stop(config, 2)
    folder = Path(str(config.run.folder))
    argv = ["--config", str(folder / "config.yaml"), "--run.resume", "auto"]
    assert main(["train", *argv]) == 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"a-secret" in path.read_bytes()]
    return folder


def test_mlflow_continues_its_run_in_the_runs_folder(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is in the extra 'trackers'")
    folder = train_with("mlflow", config, monkeypatch)
    assert not mlflow.is_tracking_uri_set()
    client = mlflow.MlflowClient((folder / "mlruns").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'eat'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == (folder.name, "FINISHED")
    assert found.data.params["optim.lr"] == "0.001"
    assert {*NAMES, "result/srcc"} < set(found.data.metrics)
    for name in ("train/epoch", "test/srcc"):
        history = client.get_metric_history(found.info.run_id, name)
        values = {epoch: line[name] for epoch, line in logged(folder).items()}
        assert [(m.step, m.value) for m in history] == list(values.items())


def test_mlflow_goes_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is in the extra 'trackers'")
    server = (tmp_path / "server").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for code, status in ((1, "FAILED"), (143, "KILLED")):
        tracker = trackers.MLflow(tmp_path / "run", None)
        tracker.start()
        tracker.finish(code)
        assert mlflow.get_run(tracker.id).info.status == status
    assert mlflow.get_experiment_by_name("mine") is not None
    assert not (tmp_path / "run").exists()


def records(path: Path) -> Iterator[Any]:
    """The records in a file of wandb's, which is laid out as a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place < len(content):
        block = 32768 - place % 32768
        if block < 7:  # too little for a header
            place += block
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_has_the_whole_run_in_the_last_file(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is in the extra 'trackers'")
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    folder = train_with("wandb", config, monkeypatch)
    *_, last = files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    run_id = json.loads((folder / "trackers.json").read_text())["wandb"]
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
    found = list(records(last))
    (run,) = (r.run for r in found if r.HasField("run"))
    assert (run.project, run.display_name) == ("eat", folder.name)
    options = {i.key: i.value_json for r in found for i in r.config.update}
    assert options["optim.lr"] == "0.001"
    rows = [
        {i.key or i.nested_key[0]: json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.HasField("history")
    ]
    assert [row["_step"] for row in rows] == [1, 2]
    for epoch, row in zip(logged(folder).values(), rows, strict=True):
        assert epoch.items() <= row.items()
    assert "result/srcc" in rows[-1]
    assert [r.exit.exit_code for r in found if r.HasField("exit")] == [0]
