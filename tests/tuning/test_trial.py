"""The bridge to nni."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_trial_gets_its_parameters_under_option_names(monkeypatch: pytest.MonkeyPatch) -> None:
    nni = pytest.importorskip("nni", reason="nni is not installed")
    monkeypatch.setenv("NNI_PLATFORM", "unittest")
    monkeypatch.setattr(
        nni, "get_next_parameter", lambda: {"batch_size": 16, "init_lr": 1e-6, "model.name": "x"}
    )
    assert tuning.parameters() == {"optim.batch_size": 16, "optim.lr": 1e-6, "model.name": "x"}
