"""The model that a run trains, and what its checkpoints say of it."""

import difflib
import inspect
from typing import Any

from eat.checkpoint import CheckpointInfo, ModelSpec
from eat.config import TrainConfig
from eat.data.labels.identity import fingerprint
from eat.data.transforms import Preprocessing
from eat.models import EAT, create_model, load_weights
from eat.training.run_data import RunData


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse model settings that ``EAT`` does not have.

    Raises:
        ValueError: naming the setting and the nearest valid one.
    """
    valid = set(inspect.signature(EAT).parameters) - {"num_outputs", "img_size"}
    for name in settings:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, n=1) or sorted(valid)
            raise ValueError(f"model.settings.{name} is unknown; nearest: {', '.join(near)}")


def make_model(config: TrainConfig, data: RunData) -> tuple[CheckpointInfo, EAT]:
    """Build the model of a run, with the weights that it starts from.

    Raises:
        ValueError: a setting is unknown or out of range, or the images are not square.
        WeightsError: the weights cannot be read, or do not fit.
    """
    choice, how = config.model, config.data
    check_settings(choice.settings)
    model = create_model(choice.name, data.outputs, how.size, **choice.settings)
    if model.img_size[0] != model.img_size[1]:
        raise ValueError(f"training takes square images, not {model.img_size}")
    info = CheckpointInfo(
        model=ModelSpec(choice.name, data.outputs, model.img_size, choice.settings),
        dataset=how.name,
        title=data.dataset.title,
        scale=data.dataset.scale,
        preprocessing=Preprocessing(
            size=model.img_size[0],
            train_resize=how.train_resize,
            interpolation=how.interpolation,
            flip=how.flip,
            upright=how.upright,
            decode=how.decode,
        ),
        config=config.to_dict(),
        splits={
            name: {"images": len(table), "fingerprint": fingerprint(table)}
            for name, table in data.tables.items()
        },
    )
    if choice.weights:
        load_weights(model, choice.weights)
    return info, model
