"""Real photographs in four published formats: train, evaluate, and evaluate across formats."""

from pathlib import Path

import pytest
from conftest import small_run

from eat.config.commands import EvaluateOptions
from eat.data.registry import DATASETS
from eat.evaluation.evaluate import evaluate_checkpoint
from eat.training.trainer import train

SIZES = {"ava": (360, 120), "tad66k": (360, 120), "flickr_aes": (360, 120), "aadb": (360, 120)}


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of one short epoch on each format."""
    made = {}
    workers = tmp_path_factory.mktemp("workers") / "test_workers_ID.csv"
    workers.write_text("ID\n" + "".join(f"W{i:03}\n" for i in range(22, 30)))
    for name in SIZES:
        config = small_run(photos, tmp_path_factory.mktemp("photos") / name)
        config.data.name, config.data.labels = name, str(photos / name)
        config.data.images = str(photos / "images")
        config.optim.epochs, config.optim.batch_size = 1, 40
        config.data.test = str(workers) if name == "flickr_aes" else None
        folder, _ = train(config)
        made[name] = folder / "checkpoints" / "best.safetensors"
    return made


@pytest.mark.parametrize("name", list(SIZES))
def test_a_format_trains_and_evaluates(runs: dict[str, Path], name: str) -> None:
    evaluation = evaluate_checkpoint(runs[name], EvaluateOptions(workers=0, samples=20))
    assert len(evaluation.predictions) == SIZES[name][1]
    assert f"0 of 120 test images were among the {SIZES[name][0]} trained on" in evaluation.table()
    assert ("emd" in evaluation.metrics) == (DATASETS[name].num_votes > 0)


@pytest.mark.parametrize(("source", "target"), [("ava", "aadb"), ("flickr_aes", "tad66k")])
def test_a_model_of_one_format_is_evaluated_on_another(
    runs: dict[str, Path], photos: Path, source: str, target: str
) -> None:
    options = EvaluateOptions(
        name=target,
        labels=str(photos / target),
        images=str(photos / "images"),
        workers=0,
        samples=0,
    )
    evaluation = evaluate_checkpoint(runs[source], options)
    row = DATASETS[target]
    assert evaluation.predictions["predicted"].between(row.low - 1, row.high + 1).all()
    assert f"scores mapped from {DATASETS[source].title} (" in evaluation.table()
