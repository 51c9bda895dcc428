"""``eat search --engine nni``: what is written for nni, and how it is gone on with."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eat.config.commands import SearchOptions
from eat.tuning import nni_engine
from eat.tuning.search import search
from eat.tuning.space import Space, read_space

ROOT = Path(__file__).parents[2]
CONFIG = {"run": {"device": "cpu"}}


class Fake:
    """nni's server of an experiment that is done at once."""

    def __init__(self, config: Path, port: int, known: str | None) -> None:
        self.started = known
        self.id, self.logs = known or "new", "logs"
        servers.append(self)

    def status(self) -> str:
        return "DONE"

    def stop(self) -> None:
        pass


servers: list[Fake] = []


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    servers.clear()
    monkeypatch.setattr(nni_engine, "read_config", lambda path, machines: path)
    monkeypatch.setattr(nni_engine, "Server", Fake)


def run(out: Path, words: list[str], space: Space | None = None, **given: Any) -> dict[str, Any]:
    options = SearchOptions(space="s", engine="nni", out=str(out), trials=5, **given)
    space = space or read_space(ROOT / "search_space.json")
    search(options, space, words, CONFIG, lambda text: None)
    return yaml.safe_load((out / "config.yml").read_text())


def test_nni_gets_what_the_shipped_config_gives_it(tmp_path: Path) -> None:
    config = run(tmp_path / "x", ["--config=sample", "--optim.epochs=4"], concurrency=2)
    shipped = yaml.safe_load((ROOT / "config.yml").read_text())
    same = {"searchSpaceFile", "trialCodeDirectory", "maxTrialNumber", "tuner", "assessor"}
    same |= {"trainingService"}
    assert {key: config[key] for key in same} == {key: shipped[key] for key in same}
    assert config["trialConcurrency"] == 2 and config["experimentName"] == "x"
    words = shlex.split((tmp_path / "x" / "trial.sh").read_text())
    given = ["train", "--config=sample", "--optim.epochs=4"]
    assert words == ["cd", str(Path.cwd()), "&&", "exec", sys.executable, "-m", "eat", *given]
    space = json.loads((tmp_path / "x" / "search_space.json").read_text())
    assert space == json.loads((ROOT / "search_space.json").read_text())


def test_a_users_config_says_where_and_null_that_nothing_is_pruned(tmp_path: Path) -> None:
    config = run(tmp_path, [], nni=str(ROOT / "config_remote.yml"), start_step=None)
    assert config["trainingService"]["platform"] == "remote" and config["trialConcurrency"] == 2
    assert "assessor" not in config


def test_the_same_command_resumes_and_another_is_refused(tmp_path: Path) -> None:
    run(tmp_path, ["--optim.lr=1"])
    run(tmp_path, ["--optim.lr=1"])
    assert [server.started for server in servers] == [None, "new"]
    with pytest.raises(ValueError, match=r"holds another search \(trial.sh differs\)"):
        run(tmp_path, ["--optim.lr=2"])
    with pytest.raises(ValueError, match=r"\(config.yml differs\)"):
        run(tmp_path, ["--optim.lr=1"], start_step=3)
    with pytest.raises(ValueError, match=r"\(search_space.json differs\)"):
        run(tmp_path, ["--optim.lr=1"], Space({"x": {"_type": "choice", "_value": [1]}}))
    assert len(servers) == 2
