"""Trials of nni that run at a time."""

import json
from pathlib import Path

import pytest
from records import DRAWN, PROFILE, record

from eat.cli import process
from eat.tuning.nni_engine import trials_at_once


def trial_of(folder: Path, profile: object) -> str:
    """The folder that nni gives to a trial of a search."""
    search = record(folder / "search", profile, DRAWN, json.dumps(json.dumps(0.5)))
    return str(search / "environments" / "local-env" / "trials" / "abcde")


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (PROFILE | {"trialConcurrency": 4}, 4),
        (PROFILE | {"trialConcurrency": 4, "maxTrialNumber": 3}, 3),
        (PROFILE, 1),
        ("no JSON", 1),
    ],
)
def test_as_many_as_the_record_says(
    profile: object, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNI_OUTPUT_DIR", trial_of(tmp_path, profile))
    assert trials_at_once() == expected


def test_one_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNI_OUTPUT_DIR", raising=False)
    assert trials_at_once() == 1
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "trials" / "abcde"))
    assert trials_at_once() == 1


@pytest.mark.parametrize(("concurrency", "shared"), [(1, []), (2, [2])])
def test_trials_share_the_cores_and_a_single_one_has_them_all(
    concurrency: int, shared: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = PROFILE | {"trialConcurrency": concurrency}
    monkeypatch.setenv("NNI_OUTPUT_DIR", trial_of(tmp_path, profile))
    told: list[int] = []
    monkeypatch.setattr(process, "share_cores", told.append)
    process.prepare_process()
    assert told == shared
