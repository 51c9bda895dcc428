"""The checkpoints that the authors of EAT, TANet and DeT published."""

from dataclasses import dataclass, replace
from pathlib import Path

from eat.data.registry import DATASETS
from eat.data.transforms import Preprocessing
from eat.models import WeightsError
from eat.models.foreign import State

# Images of a forward pass that keeps nothing for a backward one.
USUAL_BATCH = 16

AVA_PIXELS = Preprocessing(size=224, train_resize=None, interpolation="bicubic", flip=True,
                           upright=False, decode="exact", colours="as_stored")  # fmt: skip
CROPPED_PIXELS = replace(AVA_PIXELS, train_resize=256, interpolation="bilinear")


@dataclass(frozen=True)
class Release:
    """A checkpoint that the authors published.

    Attributes:
        model: a named model.
        dataset: that it was trained on.
        heads: biases of its heads and their numbers of outputs, which tell it from the others.
        batch_size: images of a batch that their code evaluates, and averages or compares.
        unused: names in the file that their code has no use for.
        targets: columns of the data set's labels that it predicts; empty for votes or a score.
    """

    model: str
    dataset: str
    heads: dict[str, int]
    preprocessing: Preprocessing
    batch_size: int = USUAL_BATCH
    unused: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


DET_HEADS = {"cls_head.bias": 1, "class_head.bias": 1}  # of which it does not use the first
RELEASED = (
    Release("eat_base_released", "ava", {"cls_head.bias": 10}, AVA_PIXELS),
    Release("eat_base_released", "tad66k", {"cls_head.bias": 1}, CROPPED_PIXELS),
    Release("tanet_ava", "ava", {"head.2.bias": 10}, AVA_PIXELS, 48),
    Release("tanet_tad66k", "tad66k", {"head.2.bias": 1}, CROPPED_PIXELS, 40,
            unused=("tygertnet.relu7.weight",)),
    Release("det_icaa17k", "icaa17k", DET_HEADS | {"class_head2.bias": 1}, CROPPED_PIXELS, 16,
            targets=("score", "color")),
    Release("det_spaq", "spaq", DET_HEADS, AVA_PIXELS, 32, targets=("colorfulness",)),
)  # fmt: skip
HEADS = {name for release in RELEASED for name in release.heads}


def recognise(state: State, path: str | Path) -> Release:
    """The published checkpoint that weights are, by the biases of their heads.

    Raises:
        WeightsError: they are none.
    """
    heads = {n: len(state[n]) if state[n].ndim == 1 else 0 for n in HEADS & state.keys()}
    if found := next((row for row in RELEASED if row.heads == heads), None):
        return found
    about = f"its first names are {list(state)[:3]}"
    if heads:
        about = f"its head has {' and '.join(map(str, heads.values()))} outputs"
    elif "pos_layer.weight" in state:
        about = "it is PS-ViT, whose authors' weights classify ImageNet"
    known = ", ".join(f"{row.model} of {DATASETS[row.dataset].title}" for row in RELEASED)
    raise WeightsError(
        f"{path}: weights without the description that our runs write into them, and none of "
        f"those that the authors published for aesthetics ({known}): {about}; other weights "
        "start a run with --model.weights"
    )
