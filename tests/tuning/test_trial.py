"""The bridge to nni."""

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import small_run
from records import PROFILE, record

from eat.cli import main, train_main
from eat.tuning import trial as tuning

ROOT = Path(__file__).parents[2]


def test_outside_an_experiment_nni_is_not_even_imported() -> None:
    code = (
        "import sys; from eat.tuning import trial as tuning; assert tuning.parameters() == {};"
        "tuning.report({'srcc': 0.5}, 'srcc', final=True); assert tuning.trial_folder() is None;"
        "print('nni' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_the_chosen_metric_is_the_default_and_the_others_stand_beside_it() -> None:
    metrics = {"srcc": 0.7, "plcc": 0.6, "ratio": math.nan}
    assert tuning.result(metrics, "srcc") == {"default": 0.7, "srcc": 0.7, "plcc": 0.6}
    assert tuning.result(metrics, "plcc")["default"] == 0.6


def test_an_undefined_metric_is_the_worst_result() -> None:
    assert tuning.result({"srcc": math.nan}, "srcc") == {"default": -1.0}


def be_trial(
    monkeypatch: pytest.MonkeyPatch, folder: Path, parameters: dict[str, float], number: int = 0
) -> None:
    """Have this process be a trial to which nni hands these parameters."""
    trial = pytest.importorskip("nni.trial", reason="nni is not installed")
    record = {"parameter_id": number, "parameters": parameters}
    channel = SimpleNamespace(receive_parameter=lambda: record)
    monkeypatch.setattr(trial, "get_default_trial_command_channel", lambda: channel)
    monkeypatch.setattr(trial, "_params", None)
    monkeypatch.setenv("NNI_PLATFORM", "unittest")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(folder))


def test_a_resumed_trial_keeps_the_parameters_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (trial, rate) in enumerate([("a", 0.1), ("b", 0.2)]):
        be_trial(monkeypatch, tmp_path / trial, {"init_lr": rate}, number)
        assert tuning.parameters() == {"optim.lr": rate}
    for number, (trial, rate, other) in enumerate([("a", 0.1, 0.2), ("b", 0.2, 0.1)]):
        be_trial(monkeypatch, tmp_path / trial, {"init_lr": other}, 1 - number)
        assert tuning.parameters() == {"optim.lr": rate}
        # Which nni's reports name:
        assert sys.modules["nni.trial"]._params["parameter_id"] == number


def test_a_trial_takes_what_nni_has_recorded_for_it_in_place_of_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, odd in enumerate(["[", "3", "[]", {}]):
        search = record(tmp_path / str(number), PROFILE, odd, '"0.5"')
        be_trial(monkeypatch, search / "trials" / "t", {"init_lr": 0.1}, 6)
        monkeypatch.setenv("NNI_TRIAL_JOB_ID", "t")
        assert tuning.parameters() == {"optim.lr": 0.1}
    (search / "trials" / "t" / "nni_parameters.json").write_text("[")
    with pytest.raises(ValueError, match="nni_parameters.json: damaged, found no JSON: delete it"):
        tuning.parameters()
    own = {"parameter_id": 5, "parameters": {"init_lr": 0.3}}
    search = record(tmp_path / "search", PROFILE, own, '"0.5"')
    be_trial(monkeypatch, search / "trials" / "t", {"init_lr": 0.1}, 6)
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "t")
    assert tuning.parameters() == {"optim.lr": 0.3}
    assert sys.modules["nni.trial"]._params["parameter_id"] == 5


def test_a_trial_gets_its_parameters_under_option_names(monkeypatch: pytest.MonkeyPatch) -> None:
    nni = pytest.importorskip("nni", reason="nni is not installed")
    monkeypatch.setenv("NNI_PLATFORM", "unittest")
    monkeypatch.setattr(
        nni, "get_next_parameter", lambda: {"batch_size": 16, "init_lr": 1e-6, "model.name": "x"}
    )
    assert tuning.parameters() == {"optim.batch_size": 16, "optim.lr": 1e-6, "model.name": "x"}


@pytest.mark.parametrize("found", [None, [1, 2], 3, "x", {1: 2}, {"": 3}])
def test_parameters_that_are_no_options_by_name_are_one_message(
    found: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nni = pytest.importorskip("nni", reason="nni is not installed")
    monkeypatch.setenv("NNI_PLATFORM", "unittest")
    monkeypatch.setattr(tuning, "end_with_parent", lambda: None)
    monkeypatch.setattr(nni, "get_next_parameter", lambda: found)
    assert train_main([]) == 2
    assert f"nni's parameters are {found!r}: expected options" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ["main_nni.py", "eat train"])
def test_both_entries_take_nnis_parameters_and_folder_and_report(
    entry: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nni = pytest.importorskip("nni", reason="nni is not installed")
    told: list[tuple[str, float]] = []
    for kind in ("intermediate", "final"):
        report = partial(lambda kind, result: told.append((kind, result["default"])), kind)
        monkeypatch.setattr(nni, f"report_{kind}_result", report)
    monkeypatch.setattr(tuning, "end_with_parent", lambda: None)
    be_trial(monkeypatch, tmp_path / "trial", {"init_lr": 0.002, "batch_size": 12.0})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(small_run(sample, tmp_path / "elsewhere").to_dict()))
    argv = ["--config", str(file), "--optim.lr", "0.5", "--optim.epochs", "1"]
    assert (train_main(argv) if entry == "main_nni.py" else main(["train", *argv])) == 0
    config = yaml.safe_load((tmp_path / "trial" / "config.yaml").read_text())
    assert (config["optim"]["lr"], config["optim"]["batch_size"]) == (0.002, 12)
    result = json.loads((tmp_path / "trial" / "result.json").read_text())
    assert told == [("intermediate", pytest.approx(result["srcc"])), ("final", result["srcc"])]
    assert not (tmp_path / "elsewhere").exists()
