"""The authors' checkpoints: files of their names and shapes, since the real ones are not here."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import release_state

import eat
from eat.evaluation.evaluate import evaluate_checkpoint
from eat.evaluation.released import RELEASED, load_released
from eat.models import WeightsError
from eat.models.foreign import RELEASE_RULES


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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts under the release's names, filled by the rule of the parity numbers."""
    folder, made = tmp_path_factory.mktemp("released"), {}
    for dataset, row in RELEASED.items():
        with torch.device("meta"):
            model = eat.create_model("eat_base_released", row.num_outputs)
        state = release_state(release_names(model))
        made[dataset] = folder / row.file
        torch.save({name: value.float() for name, value in state.items()}, made[dataset])
    return made


@pytest.fixture
def tad66k(sample: Path, tmp_path: Path) -> Path:
    """Five sample images labelled in TAD66K's format."""
    images = sorted(p.name for p in (sample / "images").iterdir())[:5]
    lines = "".join(f"{name},{i + 2}.5\r\n" for i, name in enumerate(images))
    (tmp_path / "test.csv").write_text("image,score\r\n" + lines)
    return tmp_path / "test.csv"


@pytest.mark.parametrize("dataset", list(RELEASED))
def test_the_head_tells_which_checkpoint_it_is(files: dict[str, Path], dataset: str) -> None:
    model, info = load_released(files[dataset])
    assert info.dataset == dataset and model.num_outputs == RELEASED[dataset].num_outputs
    assert not info.preprocess.upright


def test_the_measured_row_stands_beside_the_published_one_and_the_split_is_questioned(
    files: dict[str, Path], sample: Path, tad66k: Path
) -> None:
    evaluation = evaluate_checkpoint(
        files["tad66k"],
        released=True,
        labels=str(tad66k),
        images=str(sample / "images"),
        workers=0,
        samples=0,
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
            released=True,
            labels=str(tad66k),
            images=str(sample / "images"),
            own_points=own,
            batch_size=batch,
            workers=0,
            samples=0,
        )
        return evaluation.predictions["predicted"].to_numpy()

    alone = predictions(1, own=False)
    np.testing.assert_allclose(predictions(5, own=True), alone, rtol=1e-3, atol=1e-3)
    assert np.abs(predictions(5, own=False) - alone).max() > 1e-2


def test_another_file_is_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint, tmp_path / "ours.safetensors")
    with pytest.raises(WeightsError, match="ours.safetensors: not one of the released checkpoints"):
        load_released(tmp_path / "ours.safetensors")


def test_the_official_test_lists_are_known(labels: Path) -> None:
    from eat.data.labels.identity import fingerprint
    from eat.data.labels.reading import read_labels

    ava = read_labels("ava", labels / "ava" / "test.csv")
    assert fingerprint(ava) == RELEASED["ava"].test_fingerprint
    tad66k = read_labels("tad66k", labels / "tad66k" / "merge")
    test = tad66k[tad66k["split"] == "test"]
    assert fingerprint(test) == RELEASED["tad66k"].test_fingerprint


def test_every_release_name_has_a_rule(files: dict[str, Path]) -> None:
    state = torch.load(files["ava"], weights_only=True)
    odd = [n for n in state if not any(re.fullmatch(rule[0], n) for rule in RELEASE_RULES)]
    assert odd == []
