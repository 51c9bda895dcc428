"""The authors' checkpoints: files of their names and shapes, since the real ones are not here."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from parity import release_state

import eat
from eat.checkpoint import load_checkpoint, read_info, read_trained_on, save_checkpoint
from eat.cli import main
from eat.config.commands import EvaluateOptions
from eat.data.registry import DATASETS
from eat.evaluation.evaluate import evaluate_checkpoint
from eat.evaluation.released import RELEASED
from eat.models import VARIANTS
from eat.models.foreign import RELEASE_RULES
from eat.personal.own import adapt
from eat.scoring import Scorer


def release_names(model: eat.models.EAT) -> dict[str, list[int]]:
    """Names and shapes that a model's weights have in the release."""

    def foreign(name: str) -> str:
        name = name.replace("patch_embed.conv", "patch_proj.0")
        name = name.replace("patch_embed.norm", "patch_proj.1.norm")
        name = re.sub(
            r"blocks\.(\d+)\.norm([12])",
            lambda m: f"layer_norms.{2 * int(m[1]) + int(m[2]) - 1}.norm",
            name,
        )
        name = re.sub(r"blocks\.(\d+)\.mlp\.fc", r"mlps.\1.chunk.linear", name)
        name = re.sub(r"blocks\.(\d+)\.attn\.", r"attns.\1.", name)
        name = re.sub(r"(attns\.\d+)\.(qkv|q|k|v)\.", r"\1.proj_\2.", name)
        name = re.sub(r"(attns\.\d+)\.proj\.", r"\1.proj_out.", name)
        name = name.replace("offset.conv", "conv_offset.0").replace(
            "offset.norm", "conv_offset.1.norm"
        )
        name = name.replace("offset.proj", "conv_offset.3").replace("interest.conv", "ref_point14")
        name = re.sub(r"stages\.(\d)\.downsample\.conv", r"down_projs.\1.0", name)
        name = re.sub(r"stages\.(\d)\.downsample\.norm", r"down_projs.\1.1.norm", name)
        return re.sub(r"^norm\.", "cls_norm.norm.", re.sub(r"^head\.", "cls_head.", name))

    names = {}
    for name, value in model.state_dict().items():
        shape = list(value.shape)
        deformable = f"{name.split('.attn.')[0]}.attn.q.weight" in model.state_dict()
        pointwise = deformable and re.search(r"attn\.(q|k|v|proj|offset\.proj)\.weight", name)
        new = foreign(name)
        if name.endswith("bias_table"):
            kind = "rpe_table" if deformable else "relative_position_bias_table"
            new = new.replace("bias_table", kind)
        names[new] = [*shape, 1, 1] if pointwise else shape
    return names


SMALL = {"dims": (16, 32, 32, 64), "heads": (1, 1, 2, 4), "stages": ("LS", "LS", "LE", "LE")}
STAND_IN = VARIANTS["eat_tiny_released"].settings | SMALL  # for the published size


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts under the release's names, filled by the rule of the parity numbers."""
    folder, made = tmp_path_factory.mktemp("released"), {}
    for dataset, num_outputs in (("ava", 10), ("tad66k", 1)):
        state = release_state(release_names(eat.models.EAT(**STAND_IN, num_outputs=num_outputs)))
        made[dataset] = folder / RELEASED["eat_base_released", dataset].file
        torch.save({name: value.float() for name, value in state.items()}, made[dataset])
    return made


@pytest.fixture
def files(written: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """These files, where the released model is as small as they are."""
    stand_in = replace(VARIANTS["eat_base_released"], settings=STAND_IN)
    monkeypatch.setitem(VARIANTS, "eat_base_released", stand_in)
    return written


@pytest.fixture
def tad66k(sample: Path, tmp_path: Path) -> Path:
    """Five sample images labelled in TAD66K's format."""
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    lines = "".join(f"{name},{i + 2}.5\r\n" for i, name in enumerate(images))
    (tmp_path / "test.csv").write_text("image,score\r\n" + lines)
    return tmp_path / "test.csv"


@pytest.mark.parametrize(("dataset", "num_outputs"), [("ava", 10), ("tad66k", 1)])
def test_the_head_tells_which_checkpoint_it_is(
    files: dict[str, Path], dataset: str, num_outputs: int
) -> None:
    model, info = load_checkpoint(files[dataset])
    assert info == read_info(files[dataset]) and info.released
    assert (info.dataset, info.model.num_outputs) == (dataset, model.num_outputs)
    assert model.num_outputs == num_outputs and model.averages_points
    assert info.scale == DATASETS[dataset].scale and read_trained_on(files[dataset]) is None
    assert not info.preprocessing.upright and info.preprocessing.decode == "exact"
    outputs = model(torch.randn(2, 3, 224, 224))
    assert (outputs.sum(dim=1) - 1).abs().max() > 1e-3  # raw


def test_a_file_of_the_published_size_is_taken(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = release_names(eat.create_model("eat_base_released", 10))
    torch.save({n: torch.zeros(()).expand(shape) for n, shape in names.items()}, tmp_path / "x.pth")
    model, info = load_checkpoint(tmp_path / "x.pth")
    assert info.released and info.dataset == "ava"
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 86.88
    assert all(not parameter.any() for parameter in model.parameters())
    assert [n for n in names if not any(re.fullmatch(rule[0], n) for rule in RELEASE_RULES)] == []


@pytest.mark.parametrize("dataset", ["ava", "tad66k"])
def test_scoring_equals_an_evaluation_with_own_points(
    files: dict[str, Path],
    sample: Path,
    tad66k: Path,
    tmp_path: Path,
    dataset: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, images = str(files[dataset]), sample / "images"
    argv = ["--labels", str(tad66k), "--images", str(images), "--name", "tad66k", "--own_points"]
    argv += ["true", "--workers", "0", "--samples", "0", "--out"]
    assert main(["evaluate", "--released", file, *argv, str(tmp_path / "a")]) == 0
    assert main(["evaluate", file, *argv, str(tmp_path / "b")]) == 0
    first, second = (pd.read_csv(tmp_path / name / "predictions.csv") for name in "ab")
    pd.testing.assert_frame_equal(first, second)
    capsys.readouterr()
    photos = [str(images / image) for image in first["image"]]
    assert main(["score", *photos, "--checkpoint", file, "--format", "jsonl"]) == 0
    out, err = capsys.readouterr()
    scores = [json.loads(line) for line in out.splitlines()]
    np.testing.assert_allclose([s["score"] for s in scores], first["predicted"], atol=1e-4)
    if dataset == "ava":
        votes = first[[f"p{k}" for k in range(1, 11)]]
        np.testing.assert_allclose([s["votes"] for s in scores], votes, atol=1e-4)
    title = DATASETS[dataset].title
    assert err == (
        f"the authors' {title} model: its own preprocessing, each image's own interest points\n"
    )


@pytest.mark.parametrize("command", ["points", "saliency"])
def test_where_a_released_model_looks_is_drawn(
    command: str,
    files: dict[str, Path],
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo, out = next((sample / "images").iterdir()), tmp_path / "out.png"
    argv = [command, str(photo), "--checkpoint", str(files["tad66k"]), "--out", str(out)]
    assert main(argv) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err.startswith("the authors' TAD66K model: its own preprocessing")


def check_written_as_ours(released: Path, file: Path) -> None:
    """A released model written as a checkpoint of ours stays one."""
    model, info = load_checkpoint(released)
    save_checkpoint(file, model, info)
    again, told = load_checkpoint(file)
    pixels = torch.randn(3, 3, 224, 224)
    assert told == info and told.released and torch.equal(again(pixels), model(pixels))


def test_a_released_model_written_as_a_checkpoint_of_ours_stays_one(
    files: dict[str, Path], tmp_path: Path
) -> None:
    check_written_as_ours(files["ava"], tmp_path / "ava.safetensors")


@pytest.mark.parametrize("command", [["score", "x.jpg", "--checkpoint"], ["evaluate"]])
@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"model": {"patch_proj.0.weight": torch.zeros(1), "cls_head.bias": torch.zeros(1000)}},
         "its head has 1000 outputs"),
        ({"cls_head.bias": torch.zeros(())}, "its head has 0 outputs"),
        ({"conv1.weight": torch.zeros(1)}, r"its first names are \['conv1.weight'\]"),
        ({"state_dict_ema": {"pos_layer.weight": torch.zeros(1)}},
         "it is PS-ViT, whose authors' weights classify ImageNet"),
    ],
)  # fmt: skip
def test_weights_from_elsewhere_are_told_where_to_go(
    tmp_path: Path,
    command: list[str],
    state: dict[str, object],
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(state, tmp_path / "dat.pth")
    assert main([*command, str(tmp_path / "dat.pth")]) == 2
    err = capsys.readouterr().err
    assert re.search(f"dat.pth: .*{found}.*; other weights start a run with --model.weights", err)


def test_the_measured_row_stands_beside_the_published_one_and_the_split_is_questioned(
    files: dict[str, Path], sample: Path, tad66k: Path
) -> None:
    evaluation = evaluate_checkpoint(
        files["tad66k"],
        EvaluateOptions(labels=str(tad66k), images=str(sample / "images"), workers=0, samples=0),
    )
    text = evaluation.table()
    assert re.search(r"srcc +-?\d\.\d{4} +0\.5171", text)
    assert re.search(r"accuracy +-?\d\.\d{4} +0\.6882", text)
    assert "not the test split that the released checkpoint belongs to" in text
    assert "averaged over batches of 16" in text
    assert "5 images; the official test split of TAD66K has 14079" in text


def test_own_points_make_scores_independent_of_the_batch(
    files: dict[str, Path], sample: Path, tad66k: Path
) -> None:
    def predictions(batch: int, own: bool) -> np.ndarray:
        evaluation = evaluate_checkpoint(
            files["tad66k"],
            EvaluateOptions(
                labels=str(tad66k),
                images=str(sample / "images"),
                own_points=own,
                batch_size=batch,
                workers=0,
                samples=0,
            ),
        )
        return evaluation.predictions["predicted"].to_numpy()

    alone = predictions(1, own=False)
    np.testing.assert_allclose(predictions(5, own=True), alone, rtol=1e-3, atol=1e-3)
    assert np.abs(predictions(5, own=False) - alone).max() > 1e-2


def test_a_checkpoint_of_ours_is_not_taken_as_released(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--released", str(checkpoint)]) == 2
    assert f"{checkpoint}: not one of the released checkpoints" in capsys.readouterr().err


def test_the_official_test_lists_are_known(labels: Path) -> None:
    from eat.data.labels.identity import fingerprint
    from eat.data.labels.reading import read_labels

    ava = read_labels("ava", labels / "ava" / "test.csv")
    test = {"ava": fingerprint(ava)}
    for name, folder in (("tad66k", "tad66k/merge"), ("icaa17k", "icaa17k"), ("spaq", "spaq")):
        table = read_labels(name, labels / folder)
        test[name] = fingerprint(table[table["split"] == "test"])
    for (_, dataset), release in RELEASED.items():
        assert release.test_fingerprint == test[dataset]


@pytest.mark.parametrize("dataset", ["ava", "tad66k"])
def test_a_released_model_is_adapted_with_own_points_and_preprocessing(
    files: dict[str, Path], sample: Path, tmp_path: Path, dataset: str
) -> None:
    paths = sorted((sample / "images").glob("*.jpg"))[:12]
    ratings = pd.DataFrame({"image": map(str, paths), "score": [1, 2, 3, 4, 5, 4] * 2})
    small, whole = tmp_path / "small.safetensors", tmp_path / "whole.safetensors"
    for out in (small, whole):
        made = adapt(ratings, checkpoint=files[dataset], out=out, whole=out == whole, batch_size=4)
    general = read_info(files[dataset])
    assert made.info.preprocessing == general.preprocessing and not made.info.released

    def scores(checkpoint: Path, batch_size: int) -> list[float]:
        scorer = Scorer(checkpoint, scale="own", batch_size=batch_size)
        return [score.score for score in scorer.score_files(paths[:3])]

    assert scores(small, 3) == scores(whole, 3)
    np.testing.assert_allclose(scores(small, 1), scores(small, 3), atol=1e-4)
