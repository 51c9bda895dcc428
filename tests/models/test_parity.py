"""The released profile computes what the authors' release computes (numbers in tests/fixtures)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from oracles import array
from parity import FIXTURES, read_case, release_state, released_model
from torch import Tensor

from eat.models.backbone import EAT
from eat.models.foreign import RELEASE_RULES, rename
from eat.models.weights import load_weights
from eat.training.losses import LOSSES

FULL_SIZE = Path(__file__).parents[2].parent / "shared" / "parity"


class Case(NamedTuple):
    name: str
    model: EAT
    numbers: dict[str, np.ndarray]
    keys: dict[str, list[int]]
    images: Tensor
    logits: Tensor
    loss: Tensor
    record: dict[str, dict[str, Tensor]]


def build(config: dict[str, Any], keys: dict[str, list[int]]) -> EAT:
    model = released_model(config)
    load_weights(model, release_state(keys), verbose=False)
    return model


def loss_and_target(outputs: int, batch: int, draw: np.random.Generator) -> tuple[Any, Tensor]:
    if outputs == 1:
        return LOSSES["mse"], torch.from_numpy(draw.uniform(0, 1, (batch, 1)))
    return LOSSES["emd"], torch.from_numpy(draw.dirichlet(np.ones(outputs), batch))


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return request.getfixturevalue("gpu") if request.param == "gpu" else torch.device("cpu")


@pytest.fixture(scope="module", params=["mini_AVA", "mini_TAD66K", "tiny_AVA"])
def case(request: pytest.FixtureRequest, device: torch.device) -> Case:
    """One case of the parity numbers, after one training step without an update."""
    name = request.param
    path = (FIXTURES if name.startswith("mini") else FULL_SIZE) / name
    if not path.with_suffix(".npz").is_file():
        pytest.skip(f"{name} is not part of the repository: it is too large for a fixture")
    content, numbers = read_case(path)
    model = build(content["config"], content["keys"]).to(device).train()
    batch, side = len(numbers["logits"]), content["config"]["img_size"]
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, side, side)))
    images = images.to(device)
    loss_function, target = loss_and_target(model.num_outputs, batch, np.random.default_rng(1))
    record: dict[str, dict[str, Tensor]] = {}
    logits = model(images, record)
    loss = loss_function(logits, target.to(device))
    loss.backward()
    return Case(name, model, numbers, content["keys"], images, logits.detach(), loss, record)


def test_the_logits_of_a_batch_agree(case: Case) -> None:
    np.testing.assert_allclose(array(case.logits), case.numbers["logits"], rtol=1e-9)


def test_the_logits_of_each_image_alone_agree(case: Case) -> None:
    case.model.eval()
    with torch.no_grad():
        logits = torch.cat([case.model(image[None]) for image in case.images])
    np.testing.assert_allclose(array(logits), case.numbers["logits_one_by_one"], rtol=1e-9)


def test_interest_points_and_positions_agree(case: Case) -> None:
    # tiny_AVA stores them in float32
    rtol = 1e-6 if case.name == "tiny_AVA" else 1e-9
    compared = 0
    for name, expected in case.numbers.items():
        if not name.startswith(("pos.", "ref.")):
            continue
        kind, stage, block = name.split(".")
        key = {"pos": "positions", "ref": "points"}[kind]
        ours = case.record[f"stages.{stage}.blocks.{block}"][key]
        ours = np.broadcast_to(
            array(ours), expected.shape
        )  # the release repeats points for each group
        np.testing.assert_allclose(ours, expected, rtol=rtol, atol=rtol * 1e-3, err_msg=name)
        compared += 1
    deformable = sum(name.endswith("rpe_table") for name in case.keys)
    assert compared == 2 * deformable


def test_the_loss_and_the_norm_of_every_gradient_agree(case: Case) -> None:
    assert case.loss.item() == pytest.approx(float(case.numbers["loss"]), rel=1e-9)

    norms = {
        name.removeprefix("gradnorm/"): torch.from_numpy(np.asarray(value))
        for name, value in case.numbers.items()
        if name.startswith("gradnorm/")
    }
    expected, origin = rename(norms, RELEASE_RULES, case.name)
    parameters = dict(case.model.named_parameters())
    assert set(expected) == set(parameters)
    for name, norm in expected.items():
        ours = parameters[name].grad.norm().item()
        if origin[name].endswith("proj_k.bias"):  # a constant added to all keys changes nothing
            assert max(ours, norm.item()) < 1e-12, name
        else:
            assert ours == pytest.approx(norm.item(), rel=1e-6), name


@pytest.mark.parametrize("dataset", ["AVA", "TAD66K"])
def test_twelve_adam_steps_follow_the_release(dataset: str, device: torch.device) -> None:
    content, _ = read_case(FIXTURES / f"mini_{dataset}")
    plan = json.loads((FIXTURES / f"traj_{dataset}.json").read_text())
    model = build(content["config"], content["keys"]).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=plan["lr"])
    losses = []
    for step in range(len(plan["losses"])):
        draw = np.random.default_rng(100 + step)
        images = torch.from_numpy(draw.standard_normal((plan["batch"], 3, 224, 224)))
        loss_function, target = loss_and_target(model.num_outputs, plan["batch"], draw)
        loss = loss_function(model(images.to(device)), target.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, plan["losses"], rtol=1e-6)
