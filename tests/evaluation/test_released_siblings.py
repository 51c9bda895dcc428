"""The authors' checkpoints of TANet and DeT: files of their names and shapes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_released import SMALL, check_written_as_ours, release_names

import eat
from eat.checkpoint import load_checkpoint, read_info
from eat.checkpoint.releases import RELEASED
from eat.cli import main
from eat.evaluation import released
from eat.models import VARIANTS
from eat.models.foreign import State

TANET = {  # ours, and the release's
    "theme.scenes.": "res365_last.",
    "theme.target.hyper_weight.": "hypernet.last_out_w.",
    "theme.target.hyper_bias.": "hypernet.last_out_b.",
    "theme.target.fc.": "tygertnet.fc1.",
    "theme.target.norm.": "tygertnet.bn1.",
    "theme.target.act.": "tygertnet.relu1.",
    "theme.target.column_act.": "tygertnet.relu7.",
    "mobile.features.": "mobileNet.base_model.0.",
    "mobile.head.": "mobileNet.head.2.",
    "colour.head.": "head_rgb.2.",
    "head.": "head.2.",
}


def foreign(name: str) -> str:
    ours = next(ours for ours in TANET if name.startswith(ours))
    return TANET[ours] + name.removeprefix(ours)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fresh weights, the output far from even, by model."""
    folder, made = tmp_path_factory.mktemp("released"), {}
    for name in ("tanet_ava", "tanet_tad66k"):
        torch.manual_seed(0)
        model = eat.create_model(name)
        torch.nn.init.normal_(model.get_submodule("head").weight)
        state = {foreign(name): value for name, value in model.state_dict().items()}
        state["tygertnet.relu7.weight"] = torch.ones(1)  # in both files
        made[name] = folder / f"{name}.pth"
        torch.save(state, made[name])
    return made


@pytest.fixture
def argv(sample: Path, tmp_path: Path) -> list[str]:
    """Options of eat evaluate for five sample images labelled in TAD66K's format."""
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    lines = "".join(f"{name},{i + 2}.5\r\n" for i, name in enumerate(images))
    (tmp_path / "test.csv").write_text("image,score\r\n" + lines)
    labels = ["--labels", str(tmp_path / "test.csv"), "--images", str(sample / "images")]
    return [*labels, "--name", "tad66k", "--workers", "0", "--samples", "0", "--out", str(tmp_path)]


def test_the_published_numbers_are_of_the_checkpoints_that_are_recognised() -> None:
    assert {(row.model, row.dataset) for row in RELEASED} == set(released.RELEASED)


@pytest.mark.parametrize(
    ("name", "dataset", "batch"), [("tanet_ava", "ava", 48), ("tanet_tad66k", "tad66k", 40)]
)
def test_tanet_is_recognised_and_evaluated_in_batches(
    name: str, dataset: str, batch: int, files: dict[str, Path], argv: list[str], tmp_path: Path,
    sample: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model, info = load_checkpoint(files[name])
    assert info == read_info(files[name]) and info.released and not info.preprocessing.upright
    assert (info.model.name, info.dataset, info.batch_size) == (name, dataset, batch)
    assert main(["evaluate", str(files[name]), *argv]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    own = info.preprocessing
    pixels = [own.evaluation(sample / "images" / image) for image in table["image"]]
    with torch.no_grad():
        expected = model(own.normalise(torch.stack(pixels))).numpy()
    scores = expected @ np.arange(1, 11) if dataset == "ava" else 10 * expected[:, 0]
    np.testing.assert_allclose(table["predicted"], scores, rtol=1e-5)
    out = capsys.readouterr().out
    assert f"compared with one another, in batches of {batch} in the list's order" in out
    assert "not the test split that the released checkpoint belongs to" in out
    assert main(["evaluate", str(files[name]), *argv, "--own_points", "true"]) == 2
    assert "define no score of one image alone" in capsys.readouterr().err


def test_a_last_batch_of_one_is_refused_where_images_are_compared(
    files: dict[str, Path], argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*argv, "--batch_size", "4"]
    assert main(["evaluate", str(files["tanet_ava"]), *argv]) == 2
    message = "batch_size is 4: of 5 images the last forward pass would have 1, and TANet compares"
    assert message in capsys.readouterr().err
    assert main(["evaluate", str(files["tanet_tad66k"]), *argv]) == 0


@pytest.mark.parametrize("name", ["tanet_ava", "tanet_tad66k"])
def test_a_photograph_is_scored_only_by_a_rule_that_is_asked_for(
    name: str, files: dict[str, Path], argv: list[str], tmp_path: Path, sample: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, own = str(files[name]), ["--own_rule", "true"]
    assert main(["evaluate", file, *argv, *own]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert "copies of itself, a rule of ours" in capsys.readouterr().out
    photos = [str(sample / "images" / image) for image in table["image"][::-1]]
    assert main(["score", *photos, "--checkpoint", file]) == 2
    err = capsys.readouterr().err
    assert "define no score of one image alone" in err and "--own_rule true" in err
    assert main(["score", *photos, "--checkpoint", file, *own, "--format", "jsonl"]) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line)["score"] for line in out.splitlines()]
    np.testing.assert_allclose(found, table["predicted"][::-1], atol=1e-5)
    assert "each image by itself, by a rule of ours" in err


def test_tanet_written_as_a_checkpoint_of_ours_stays_as_released(
    files: dict[str, Path], tmp_path: Path
) -> None:
    check_written_as_ours(files["tanet_tad66k"], tmp_path / "tad66k.safetensors")


DET = {  # what ``release_names`` leaves of ours, and the release's
    r"histogram\.coordinates\.": "hst_head.",
    r"histogram\.shifts": "hist_feature.bin_centers_conv.bias",
    r"histogram\.slopes": "hist_feature.bin_widths_conv.weight",
    r"(attns\.\d+)\.gate\.conv": r"\1.ref_gate",
}


def det_state(model: eat.models.AestheticModel) -> State:
    """A model's weights under DeT's names, and what its release stores beside them."""
    shapes = release_names(model).items()
    values = model.state_dict().values()
    state = {n: value.reshape(shape) for (n, shape), value in zip(shapes, values, strict=True)}
    for ours, theirs in DET.items():
        state = {re.sub(ours, theirs, name): value for name, value in state.items()}
    for kind in ("weight", "bias"):
        head = state.pop(f"cls_head.{kind}")
        state |= {f"class_head{'2' * k}.{kind}": part[None] for k, part in enumerate(head)}
    unused = {"cls_head.weight": torch.zeros(1, 64), "cls_head.bias": torch.zeros(1)}
    return state | unused | {"hist_feature.centers": torch.zeros(216)}


@pytest.mark.parametrize(
    ("name", "dataset", "targets"),
    [("det_icaa17k", "icaa17k", ["score", "color"]), ("det_spaq", "spaq", ["colorfulness"])],
)
def test_det_is_recognised_with_its_targets_and_scores_each_image_by_itself(
    name: str, dataset: str, targets: list[str], sample: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    row = replace(VARIANTS[name], settings=VARIANTS[name].settings | SMALL)
    monkeypatch.setitem(VARIANTS, name, row)
    torch.manual_seed(0)
    file, images = str(tmp_path / "det.pth"), sorted((sample / "images").iterdir())[:3]
    torch.save(det_state(eat.create_model(name)), file)
    model, info = load_checkpoint(file)
    assert info == read_info(file) and info.released and [*info.targets] == targets
    assert (info.dataset, info.model.name) == (dataset, name)
    head = "ID,color,MOS,probability" if dataset == "icaa17k" else "image_id,Colorfulness,MOS"
    rows = [f"{p.name},{i + 2}.5,{i + 1}.5" + ",0.5" * (dataset == "icaa17k")
            for i, p in enumerate(images)]  # fmt: skip
    (tmp_path / "test.csv").write_text("\n".join([head, *rows, ""]))
    argv = ["--labels", str(tmp_path / "test.csv"), "--images", str(sample / "images")]
    argv += ["--workers", "0", "--samples", "0", "--out", str(tmp_path)]
    assert main(["evaluate", file, *argv]) == 0
    out = capsys.readouterr().out
    assert f"averaged over batches of {info.batch_size}, as released" in out
    if dataset == "icaa17k":
        assert re.search(r"srcc +-?\d\.\d{4} +0\.8811", out)
    assert main(["evaluate", file, *argv, "--own_points", "true"]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    capsys.readouterr()
    photos = [str(photo) for photo in images[::-1]]
    argv = ["--checkpoint", file, "--scale", "own", "--format", "jsonl"]
    assert main(["score", *photos, *argv]) == 0
    out, err = capsys.readouterr()
    assert "each image's own interest points" in err
    found = [json.loads(line) for line in out.splitlines()]
    for k, target in enumerate(targets):
        column = f"{target}.predicted" if k else "predicted"
        scores = [line[target] for line in found][::-1]
        np.testing.assert_allclose(scores, table[column], atol=1e-4)
