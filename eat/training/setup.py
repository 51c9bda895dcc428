"""From a run's options to its splits, loaders, model and checkpoint description."""

from dataclasses import asdict, replace

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from torch.utils.data import DataLoader

from eat.checkpoint import CheckpointInfo, ModelSpec, described_model
from eat.checkpoint.description import MAX_EVAL_BATCH
from eat.config import RunConfig, TrainConfig
from eat.data.dataset import targets
from eat.data.labels.identity import fingerprint
from eat.data.labels.table import LabelError, vote_columns
from eat.data.loading import TrainBatches, make_loader, rows_in_order
from eat.data.splits import Splits, read_splits
from eat.data.transforms import Preprocessing
from eat.models import AestheticModel, LoadReport, WeightsError, create_model, load_weights
from eat.models.enhance import enhance
from eat.models.timm_backbone import PREFIX
from eat.models.variants import Variant, find_variant
from eat.system.plugins import blaming, digest, file_of, is_path, load_function
from eat.system.processes import init_distributed
from eat.training.losses import Loss, choose_loss


def make_accelerator(run: RunConfig) -> Accelerator:
    """The engine of this process, connected to the others if torchrun has started several.

    Raises:
        ValueError: the precision needs a GPU.
    """
    if run.precision == "fp16" and (run.device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("run.precision is fp16, which needs a GPU: expected bf16 or fp32 on a CPU")
    init_distributed(cpu=run.device == "cpu")
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(run.precision, run.precision),
        cpu=run.device == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False),
            AutocastKwargs(cache_enabled=not run.sharded),  # of whole weights
        ],
    )


def resolve_model(config: TrainConfig) -> TrainConfig:
    """Options with a model's name: if there is none, that of the weights, else eat_base.

    With the name come settings, enhancement, size and interpolation that the options leave open.

    Raises:
        ValueError: the name is unknown.
        WeightsError: the weights are absent or damaged.
    """
    model, data = config.model, config.data
    spec = described_model(model.weights) if model.weights and model.name is None else None
    if spec is not None:
        if is_path(spec.name):
            raise ValueError(
                f"{model.weights}: its model was made by {spec.name!r:.200}: give that file, or "
                "where it is now, as --model.name FILE.py:FUNCTION, and its settings"
            )
        settings = spec.settings | model.settings
        enhanced = model.enhance or spec.enhance
        model = replace(model, name=spec.name, settings=settings, enhance=enhanced)
        data = replace(data, size=data.size or spec.img_size[0])
    model = replace(model, name=model.name or "eat_base")
    inputs = find_variant(str(model.name)).inputs
    data = replace(data, interpolation=data.interpolation or inputs.interpolation)
    return replace(config, model=model, data=data)


def own_files(config: TrainConfig) -> dict[str, str]:
    """SHA-256 (hex) of the user's own files that a run's options name, by option."""
    data, model, loss = config.data.name, config.model.name, config.optim.loss
    named = {"data.name": data, "model.name": model, "optim.loss": loss}
    return {option: digest(name) for option, name in named.items() if name and is_path(name)}


def read_run_splits(config: TrainConfig) -> Splits:
    """Read the label tables of a run.

    Raises:
        LabelError: label files or images are wrong, or a split is missing.
    """
    data = config.data
    assert data.labels and data.images, "TrainConfig.check was not called"
    splits = read_splits(
        data.name,
        data.labels,
        data.images,
        low=data.low,
        high=data.high,
        test=data.test,
        val=data.val,
        targets=data.targets,
        val_fraction=data.val_fraction,
        missing=data.missing,
        seed=config.run.seed,
    )
    if not len(splits.train):
        raise LabelError(f"{data.labels}: no image is left for the training split")
    if splits.test is None and splits.val is None:
        raise LabelError(
            f"{data.labels}: no image is marked as test; give --data.test, or "
            "--data.val_fraction 0.1 to hold some out"
        )
    return splits


def _num_outputs(config: TrainConfig, variant: Variant, splits: Splits) -> int:
    """Width of the head: one output a target, or what the options, the model or the votes say.

    Raises:
        ValueError: the options say two things.
    """
    given, named = config.model.num_outputs, len(config.data.targets or ())
    if given and named and given != named:
        raise ValueError(
            f"model.num_outputs is {given}: expected null, or {named} for data.targets"
        )
    own = variant.settings.get("num_outputs")
    return given or named or own or len(vote_columns(splits.train)) or 1


def make_model(
    config: TrainConfig, splits: Splits
) -> tuple[CheckpointInfo, AestheticModel, LoadReport | None]:
    """Build the model of a run, load the weights that it starts from, and describe it.

    Raises:
        ValueError: a setting is unknown or out of range, or the images are not square.
        WeightsError: the weights cannot be read, or do not fit.
    """
    choice, data, dataset = config.model, config.data, splits.dataset
    assert choice.name and data.interpolation, "resolve_model was not called"
    variant, scales = find_variant(choice.name), dataset.scales(data.targets)
    inputs, settings = variant.inputs, choice.settings
    outputs = _num_outputs(config, variant, splits)
    targets(splits.train.iloc[:1], scales, outputs)  # fails before the model is built
    if len(scales) > 1 and "softmax" in variant.all_settings():
        settings = {"softmax": False} | settings
    try:
        model = create_model(choice.name, outputs, data.size, **settings)
    except TypeError as error:
        raise ValueError(
            f"model.settings: {error}; --model.settings {{}} leaves out those of a --config for "
            "another model"
        ) from error
    if len(scales) > 1 and model.ends_in_softmax:
        raise ValueError(
            f"model.name is {choice.name}, whose outputs are shares of votes that add up to 1: "
            f"expected a model without softmax for the {len(scales)} data.targets"
        )
    if model.img_size[0] != model.img_size[1]:
        raise ValueError(f"training takes square images, not {model.img_size}")
    info = CheckpointInfo(
        model=ModelSpec(choice.name, outputs, model.img_size, settings, choice.enhance),
        dataset=dataset.name,
        title=dataset.title,
        scale=next(iter(scales.values())),
        targets=scales if data.targets else {},
        preprocessing=Preprocessing(
            size=model.img_size[0],
            train_resize=data.train_resize,
            interpolation=data.interpolation,
            flip=data.flip,
            upright=data.upright,
            decode=data.decode,
            colours=data.colours,
            mean=inputs.mean,
            std=inputs.std,
        ),
        config=config.to_dict(),
        splits={
            name: {"images": len(table), "fingerprint": fingerprint(table)}
            for name, table in splits.tables().items()
        },
        files=own_files(config),
    )
    info.check()  # a checkpoint that is written can be read
    weights = choice.weights or (choice.name if choice.pretrained else None)
    if not choice.weights and weights and not choice.name.startswith(PREFIX):
        raise ValueError(
            f"model.pretrained is true, and no weights are published under the name {weights!r}: "
            f"expected a model.name {PREFIX}ARCH[.TAG]; or give a file as --model.weights FILE"
        )
    return info, model, start_model(model, info.model, weights)


def start_model(model: AestheticModel, spec: ModelSpec, weights: str | None) -> LoadReport | None:
    """Load the weights that a model starts from, and enhance it.

    Weights of a model enhanced in the same way are those of the enhanced one, all others of the
    original.

    Args:
        model: as built, and not enhanced.
        spec: the model that it becomes.
        weights: a file or a name of weights, if any.

    Raises:
        ValueError: it cannot be enhanced so.
        WeightsError: the weights cannot be read, or do not fit.
    """
    found, report = described_model(weights) if weights else None, None
    enhanced_weights = found is not None and found.enhance == spec.enhance
    if spec.enhance is not None and enhanced_weights:
        enhance(model, **asdict(spec.enhance))
    if weights is not None:
        try:
            report = load_weights(model, weights, verbose=False)
        except WeightsError as error:
            if found is None or is_path(found.name):
                raise
            if enhanced_weights and (found.name, found.settings) == (spec.name, spec.settings):
                raise
            enhanced = ", enhanced otherwise" if found.enhance and not enhanced_weights else ""
            raise WeightsError(
                f"{error}; the weights are those of {found.name} with model.settings "
                f"{found.settings}{enhanced}, which --model.name null takes over"
            ) from error
    if spec.enhance is not None and not enhanced_weights:
        enhance(model, **asdict(spec.enhance))
    return report


def make_loss(option: str | None, model: str, num_outputs: int, *, votes: bool = True) -> Loss:
    """The loss of a run; of FILE.py:FUNCTION, once it was seen to give a term for each image.

    Args:
        option: ``optim.loss``.
        model: its name.
        num_outputs: of the model.
        votes: whether several outputs are a distribution.

    Raises:
        ValueError: there is no such loss, or the function is not as expected.
    """
    if option is None or not is_path(option):
        return choose_loss(option, model, num_outputs if votes else 1)
    function, images = load_function(option), num_outputs + 2
    predicted = torch.full((images, num_outputs), 1 / num_outputs, requires_grad=True)
    with blaming(file_of(option)):
        terms = function(predicted, predicted.detach().clone())
    found = tuple(terms.shape) if isinstance(terms, torch.Tensor) else type(terms).__name__
    if found != (images,):
        raise ValueError(
            f"{option} returns {found} for predictions and targets of {tuple(predicted.shape)}: "
            f"expected {(images,)}, a term for each image"
        )
    if not terms.requires_grad:
        raise ValueError(f"{option}: its terms have no gradient: expected functions of torch")
    return Loss(function)


class RunData:
    """Loaders of one process's share of a run's splits.

    Raises:
        ValueError: a step has fewer images than there are processes and accumulation steps.
    """

    def __init__(
        self,
        config: TrainConfig,
        splits: Splits,
        info: CheckpointInfo,
        processes: int,
        process: int,
    ) -> None:
        self.config, self.info, self.tables = config, info, splits.tables()
        self.processes, self.process = processes, process
        size, micro_batches = config.optim.batch_size, config.run.accumulation_steps
        if size < processes * micro_batches:
            raise ValueError(
                f"optim.batch_size is {size}, the images of a step over all processes: expected at "
                f"least {processes} processes x {micro_batches} run.accumulation_steps"
            )
        self.batches = TrainBatches(
            len(splits.train),
            size,
            config.run.seed,
            accumulation_steps=micro_batches,
            processes=processes,
            process=process,
        )
        self._loaders: dict[str, DataLoader] = {}

    @property
    def eval_split(self) -> str:
        """The split that chooses the best epoch."""
        return "val" if "val" in self.tables else "test"

    @property
    def final_split(self) -> str:
        """The split of the run's result."""
        return "test" if "test" in self.tables else "val"

    def check_batches(self, model: AestheticModel) -> None:
        """Refuse batches that are too small for the model.

        Raises:
            ValueError: naming their size.
        """
        size, parts = self.config.optim.batch_size, self.processes * self.batches.accumulation_steps
        for split, table in self.tables.items():
            training = split == "train"
            batch = size if training else min(size, MAX_EVAL_BATCH)
            model.train(training)
            model.check_batches(len(table), batch, "optim.batch_size", parts if training else 1)

    def loader(self, split: str) -> DataLoader:
        """This process's share of a split. Made once, and anew after ``drop``."""
        if split not in self._loaders:
            table, data, training = self.tables[split], self.config.data, split == "train"
            self._loaders[split] = make_loader(
                table,
                str(data.images),
                targets(table, self.info.scales, self.info.model.num_outputs),
                self.info.preprocessing,
                self.batches if training else self._eval_batches(split),
                data.workers,
                cache=data.cache,
                training=training,
            )
        return self._loaders[split]

    def _rows(self, split: str) -> list[list[int]]:
        """The rows of each batch that this process evaluates."""
        size, count = min(self.config.optim.batch_size, MAX_EVAL_BATCH), len(self.tables[split])
        return rows_in_order(count, size, processes=self.processes, process=self.process)

    def _eval_batches(self, split: str) -> list[list[int]]:
        """The batches that this process loads.

        Where weights are sharded, all processes make as many forward passes: one that has fewer
        batches repeats the first of all, of which ``own_rows`` takes nothing.
        """
        batches = self._rows(split)
        if self.config.run.sharded:
            size, count = min(self.config.optim.batch_size, MAX_EVAL_BATCH), len(self.tables[split])
            first = rows_in_order(count, size, processes=self.processes)
            batches += first[:1] * (len(first) - len(batches))
        return batches

    def drop(self, split: str) -> None:
        """Give up a loader whose processes have died."""
        self._loaders.pop(split, None)

    def own_rows(self, split: str, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs (N, K) of this process, with zeros in the rows that others compute."""
        own = [row for rows in self._rows(split) for row in rows]
        kept = torch.zeros_like(outputs)
        kept[own] = outputs[own]
        return kept
