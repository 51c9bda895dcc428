"""The two checkpoints that the authors published, and what is known of them.

Which of them a file is, its head tells: 10 outputs for AVA, 1 for TAD66K.
"""

from dataclasses import dataclass
from pathlib import Path

from eat.checkpoint import CheckpointInfo, ModelSpec
from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from eat.models import EAT, WeightsError, create_model, load_weights
from eat.models.weights import read_state


@dataclass(frozen=True)
class Released:
    """One published checkpoint.

    Attributes:
        file: its published name.
        num_outputs: width of its head.
        metrics: what the authors report, on their own test split.
        preprocessing: of its photographs.
        split: the split that it was trained and tested on.
        test_fingerprint: of that split's test images.
        warning: what another test split means.
    """

    file: str
    num_outputs: int
    metrics: dict[str, float]
    preprocessing: Preprocessing
    split: str
    test_fingerprint: str
    warning: str


RELEASED = {
    "ava": Released(
        file="AVA_AOT_vacc_0.8259_srcc_0.7596_vlcc_0.7710.pth",
        num_outputs=10,
        metrics={"srcc": 0.7596, "plcc": 0.7710, "accuracy": 0.8259},
        preprocessing=Preprocessing(interpolation="bicubic", upright=False),
        split="the authors' random split of AVA, test.csv with 12,776 images",
        test_fingerprint="b5bb7e8f8b25ebbbed944ab1667655ff3bc1e9f264bed263c00fd17023953bc9",
        warning="its training images hold about 90% of the official test split of AVA, on which "
        "SRCC comes out near 0.88 for that reason alone",
    ),
    "tad66k": Released(
        file="TAD66K_AOT_vacc_0.6882_srcc_0.5171_vlcc_0.5460.pth",
        num_outputs=1,
        metrics={"srcc": 0.5171, "plcc": 0.5460, "accuracy": 0.6882},
        preprocessing=Preprocessing(train_resize=256, interpolation="bilinear", upright=False),
        split="TAD66K's merge/test.csv with 14,079 images",
        test_fingerprint="70b53bf9c51e2730d4dcd6d820baaea22ab4748eb251f6254d02f6537dc2db79",
        warning="478 of those test images stand in the training files of the split by theme",
    ),
}


def load_released(path: str | Path) -> tuple[EAT, CheckpointInfo]:
    """Load a published checkpoint as it scores in the authors' code: raw outputs, their pixels.

    Raises:
        WeightsError: the file cannot be read, or is neither of the two.
    """
    head = read_state(path).get("cls_head.bias")
    by_outputs = {row.num_outputs: name for name, row in RELEASED.items()}
    if head is None or len(head) not in by_outputs:
        found = "no cls_head.bias" if head is None else f"{len(head)} outputs"
        raise WeightsError(
            f"{path}: not one of the released checkpoints, which are named "
            f"{' and '.join(row.file for row in RELEASED.values())}; found {found}, expected "
            f"{' or '.join(map(str, by_outputs))} outputs"
        )
    dataset = by_outputs[len(head)]
    model = create_model("eat_base_released", len(head))
    load_weights(model, path, verbose=False)
    info = CheckpointInfo(
        model=ModelSpec("eat_base_released", len(head), model.img_size),
        dataset=dataset,
        title=DATASETS[dataset].title,
        scale=DATASETS[dataset].scale,
        preprocessing=RELEASED[dataset].preprocessing,
        metrics=RELEASED[dataset].metrics,
    )
    return model.eval(), info
