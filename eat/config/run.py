"""The options of a training run, with their defaults. YAML, command line and nni fill these."""

import reprlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eat.config.model import MOST_BATCH, MOST_WORKERS
from eat.config.pixels import Colours, Interpolation

Tracker = Literal["mlflow", "wandb"]
LOSSES = ("emd", "emd_per_image", "mse", "released")
METRICS = ("srcc", "plcc", "accuracy")  # that can choose an epoch
MIN_SIZE, MAX_SIZE = 64, 4096  # pixels of a side, that models take


def metric_prefixes(targets: Iterable[str]) -> dict[str, str]:
    """What comes before the names of each target's metrics: nothing for the first's."""
    return {name: f"{name}." if k else "" for k, name in enumerate(targets)}


@dataclass
class DataConfig:
    """Label files and images.

    Attributes:
        name: data set, a row of eat.data.registry.DATASETS; "table" is a label file of your own.
            FILE.py:NAME is a DatasetSpec in a Python file of your own.
        low: lowest score of the data set `table`; null takes 1.
        high: highest score of the data set `table`; null takes 10.
        labels: label file, or the folder that holds the published files.
        images: folder that the image paths in the labels are relative to.
        test: label file, or list of image ids, of the test split, if `labels` does not tell.
        val: the same for the validation split, on which the best epoch is chosen.
        targets: columns of the labels that the model predicts, such as [score, color], each by an
            output of its own, in this order; null for the votes, or else the score.
        val_fraction: share of the training images, in [0, 1), drawn as validation split when there
            is no other. Without a validation split the best epoch is chosen on the test split.
        missing: what to do about labels without an image: "error", or "leave_out" and record them.
        size: side in pixels that images are resized to; null takes the model's.
        train_resize: side that training images are resized to before a random crop of `size`;
            null takes `size`, so that nothing is cropped.
        interpolation: filter of the resizing, as PIL's; null takes the model's.
        flip: flip training images horizontally, every other time.
        upright: turn images by their EXIF orientation first. The released recipe does not.
        decode: how images are decoded and resized: "exact" is PIL, as in the released recipe;
            "fast" is libjpeg-turbo and torch, nearly 3 times as fast, with pixels that differ by 2
            of 255 at most on photographs.
        colours: colours as they are shown are converted from the image's colour profile to sRGB,
            and what is transparent lies on white; as_stored does neither, as the released recipe.
        cache: folder of the pixel files that `eat prepare --cache SIDE` made; null reads the images
            themselves.
        workers: processes that load images, for each one that trains; 0 loads them in that one.
    """

    name: str = "ava"
    low: float | None = None
    high: float | None = None
    labels: str | None = None
    images: str | None = None
    test: str | None = None
    val: str | None = None
    targets: list[str] | None = None
    val_fraction: float = 0.0
    missing: Literal["error", "leave_out"] = "error"
    size: int | None = None
    train_resize: int | None = None
    interpolation: Interpolation | None = None
    flip: bool = True
    upright: bool = True
    decode: Literal["exact", "fast"] = "fast"
    colours: Colours = "as_shown"
    cache: str | None = None
    workers: int = 2


@dataclass
class EnhanceConfig:
    """Enhanced attention on interest points in place of a transformer's own, by eat.enhance.

    Points lie around a grid that spans the map from its first token to its last.

    Attributes:
        stages: of a transformer with stages, those in which attention is replaced, counted from 0.
        every: the step from one attention module that is replaced to the next. 2 takes the second
            of each pair: the shifted windows of Swin, the grid of MaxViT, every other block of a
            plain transformer.
        blocks: of a plain transformer, the blocks whose attention is replaced, counted from 0; null
            takes every `every`th of the second half.
        gate: keep the original attention, and add the enhanced one times a gate of each channel.
            Gates start at 0, so that the model starts as the original.
        points: points a side, by the kernel k_in = k_of of Eqs. 4 and 5; fewer where a map has
            fewer tokens a side, and null for as many as those.
        anchor_points: points stay near the grid's, P = grid + tanh / 2; false takes Eq. 4's
            P = tanh, which training tends to draw onto one spot.
        interest: take interest points; false takes those of the grid.
        offsets: move the points by offsets.
        range_factor: bound of the offsets in point spacings; null for [-1, 1].
        eta: quadrant weight of Eq. 7; 1 for none.
        rotate: rotate offsets at random while training (Eqs. 8, 9).
        bound_positions: tanh over point plus offset (Eq. 10), which draws all of them inwards.
        bias: add a continuous relative position bias, which starts at 0.
    """

    stages: list[int] = field(default_factory=lambda: [2, 3])
    every: int = 2
    blocks: list[int] | None = None
    gate: bool = False
    points: int | None = 7
    anchor_points: bool = True
    interest: bool = True
    offsets: bool = True
    range_factor: float | None = 2.0
    eta: float = 0.25
    rotate: bool = True
    bound_positions: bool = False
    bias: bool = True


@dataclass
class ModelConfig:
    """The network.

    Attributes:
        name: a named model, such as eat_base, eat_base_released or psvit_b, or any image model of
            timm, as timm/swin_base_patch4_window7_224.ms_in22k, or FILE.py:FUNCTION of your own.
            Null takes name, `settings` and `data.size` of the run that wrote `weights`, where these
            options do not say otherwise; eat_base if no run of ours did.
        weights: weights to start from: a file of ours, of the authors' (EAT, TANet, DeT), DAT's,
            timm's or PS-ViT's, or timm/NAME for those that timm publishes; of Swin also for eat_*
            and swin_*.
        pretrained: start from the weights that timm publishes for `name`, unless `weights` is set.
        num_outputs: width of the head; null takes one output per target of data.targets; without
            them that of the named model where it has its own (1 of tanet_tad66k), else one output
            per vote bin where the labels have votes, else 1.
        settings: keywords of the model's class, such as eat.models.EAT, that replace its own; of
            timm.create_model for its models.
        enhance: put enhanced attention into the transformer, after its weights are loaded; null
            leaves it as it is. `--model.enhance.gate true` and the others set options of it, and
            `--model.enhance {}` takes their defaults.
    """

    name: str | None = None
    weights: str | None = None
    pretrained: bool = False
    num_outputs: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    enhance: EnhanceConfig | None = None


@dataclass
class OptimConfig:
    """Loss, optimizer and schedule.

    Attributes:
        epochs: times that the training split is seen, E in Eq. 9.
        batch_size: images a step, over all processes.
        lr: learning rate (nni's `init_lr`).
        optimizer: Adam, or AdamW with decoupled weight decay.
        weight_decay: of the optimizer.
        decay: parameters that decay: matrices, so neither biases, norms nor bias tables; or all.
        interest_lr: the interest convolution of an enhanced block learns at `lr` times this over
            its number of inputs (32,768 in stage 3 of eat_base), at most at `lr`. Steps at `lr`
            would drive its tanh into saturation. Null for `lr`, which *_released models take.
        lr_factors: learning rates of parts of the model over `lr`, by name, such as {head: 10,
            stages.3: 0.1}. The longest name that fits a parameter counts, beside `interest_lr`.
        frozen: names of parts whose weights stay as they are. BatchNorm's running statistics follow
            the images all the same.
        loss: emd (one root a batch), emd_per_image (NIMA) or mse. "released" takes emd for vote
            distributions and mse for scores, as the authors' code; null takes the same for models
            named *_released, and for others emd_per_image and mse. FILE.py:FUNCTION is your own,
            from predictions and targets, (B, K) each, to a term for each image, (B,).
        schedule: constant (the paper), step (times `step_factor` every `step_epochs`) or cosine.
        step_epochs: epochs between two steps of the schedule.
        step_factor: factor of one step.
        warmup_epochs: epochs, or part of one, of linear warm-up from 0.
        clip_norm: largest norm of the gradients; null for no clipping.
        ema: decay, in (0, 1), of a moving average of the weights, which is then what is evaluated
            and kept; null for none.
    """

    epochs: int = 20
    batch_size: int = 16
    lr: float = 1e-5
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    decay: Literal["matrices", "all"] = "matrices"
    interest_lr: float | None = 1.0
    lr_factors: dict[str, float] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)
    loss: str | None = None
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_epochs: int = 5
    step_factor: float = 0.1
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None


@dataclass
class RunConfig:
    """Folder, device and precision of a run, and the saving of its state.

    Attributes:
        folder: the run's folder; null makes one under runs/ from data set, model and time.
        seed: of weights, data order, augmentation and rotation angles.
        device: auto (a GPU if there is one) or cpu.
        precision: of the forward pass: fp32, or autocast to bf16 or fp16 (on a GPU).
        accumulation_steps: micro-batches that each process splits a step's images into, to need
            less memory. Their gradients add up to those of the undivided batch.
        compile: compile the model, which takes minutes at the start and makes steps faster.
        grad_checkpointing: compute blocks twice instead of keeping what they compute: less memory.
        sharded: several processes divide weights, gradients, the optimizer's moments and the
            average among them, for a model that does not fit one device.
        metric: the metric that chooses the best epoch and that nni maximises: srcc, plcc or
            accuracy, of the first target; for another of data.targets TARGET.srcc and so on.
        resume: auto continues the unfinished run in `folder`, or starts it if there is none;
            never refuses a folder that holds a run.
        save_steps: save the run's state every so many steps; null for no such rule. It is saved
            after every epoch in any case.
        save_minutes: save it also when so many minutes have gone by; null for no such rule.
        draw_every: draw the model's points in the first evaluated image after every so many epochs,
            into `points/`, and at the end as a film, `points.gif`; null for never.
        keep: states kept, so that a damaged one can be replaced by the one before it.
        trackers: mlflow, wandb (Weights & Biases) or a list of both, which get the options, each
            epoch's metrics and the result, beside TensorBoard; needs pip install
            'eat-iaa[trackers]'. Their own environment variables say where to; the run's folder
            if none does.
    """

    folder: str | None = None
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulation_steps: int = 1
    compile: bool = False
    grad_checkpointing: bool = False
    sharded: bool = False
    metric: str = "srcc"
    resume: Literal["never", "auto"] = "never"
    save_steps: int | None = None
    save_minutes: float | None = 30.0
    draw_every: int | None = None
    keep: int = 2
    trackers: Tracker | list[Tracker] = field(default_factory=list)


@dataclass
class FaultConfig:
    """Budgets of faults that a run survives. Each is recorded in the run's faults.jsonl.

    Attributes:
        images: training images an epoch that cannot be read and are replaced, each by another
            drawn from the seed; one more stops the run.
        steps: steps of the run that are skipped, which leaves the weights as they are, because
            loss or gradients are NaN, infinite or larger than `max_norm`; one more stops it.
        max_norm: norm above which gradients count as exploded; null for infinite ones alone.
        workers: loading processes that die and are restarted at the same batch; one more stops
            the run.
    """

    images: int = 0
    steps: int = 0
    max_norm: float | None = None
    workers: int = 0


@dataclass
class TrainConfig:
    """One training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)

    def to_dict(self) -> dict[str, Any]:
        """The options as nested plain values, as in a YAML file."""
        return asdict(self)

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            ValueError: naming the option, what was found and what is expected.
        """
        for group, options in self.to_dict().items():
            for key, value in options.items():
                if isinstance(value, str) and not (value.strip() and value.isprintable()):
                    found = reprlib.repr(value)
                    raise ValueError(f"{group}.{key} is {found}: expected text, or null for none")
        for option in ("data.labels", "data.images"):
            if not getattr(self.data, option.removeprefix("data.")):
                raise ValueError(f"{option} is not set: give a path, as in --{option} PATH")
        targets, loss = self.data.targets, self.optim.loss
        if targets is not None and (not targets or len({*targets}) < len(targets)):
            found = reprlib.repr(targets)
            raise ValueError(f"data.targets is {found}: expected columns, each once, or null")
        if targets and loss in ("emd", "emd_per_image"):
            raise ValueError(
                f"optim.loss is {loss}, of vote distributions: expected mse or null for the scores "
                "of data.targets"
            )
        for option, value, refused in (
            ("run.compile", self.run.compile, self.run.compile),
            ("run.precision", self.run.precision, self.run.precision == "fp16"),
            ("run.draw_every", self.run.draw_every, self.run.draw_every is not None),
        ):
            if self.run.sharded and refused:
                raise ValueError(
                    f"{option} is {value}, which does not go with run.sharded: leave out one"
                )
        prefixes = metric_prefixes(targets or ["score"]).values()
        metrics = [prefix + metric for prefix in prefixes for metric in METRICS]
        if self.run.metric not in metrics:
            found = reprlib.repr(self.run.metric)
            raise ValueError(f"run.metric is {found}: expected {', '.join(metrics)}")
        bounds: list[tuple[str, float | None, float, float]] = [
            ("data.low", self.data.low, -1e30, 1e30),
            ("data.high", self.data.high, -1e30, 1e30),
            ("data.val_fraction", self.data.val_fraction, 0, 0.999),
            ("data.workers", self.data.workers, 0, MOST_WORKERS),
            ("data.size", self.data.size, MIN_SIZE, MAX_SIZE),
            ("data.train_resize", self.data.train_resize, self.data.size or MIN_SIZE, 4 * MAX_SIZE),
            ("model.num_outputs", self.model.num_outputs, 1, 1e4),
            ("optim.epochs", self.optim.epochs, 1, 1e6),
            ("optim.batch_size", self.optim.batch_size, 1, MOST_BATCH),
            ("optim.lr", self.optim.lr, 0, 1e3),
            ("optim.interest_lr", self.optim.interest_lr, 0, 1e9),
            ("optim.weight_decay", self.optim.weight_decay, 0, 1e3),
            ("optim.step_factor", self.optim.step_factor, 0, 1e3),
            ("optim.warmup_epochs", self.optim.warmup_epochs, 0, 1e6),
            ("optim.ema", self.optim.ema, 0, 0.999999),  # an average by 1 never moves
            ("optim.clip_norm", self.optim.clip_norm, 1e-30, 1e30),
            ("run.seed", self.run.seed, 0, 2**32 - 1),
            ("run.accumulation_steps", self.run.accumulation_steps, 1, self.optim.batch_size),
            ("run.save_minutes", self.run.save_minutes, 0, 1e9),
            ("faults.max_norm", self.faults.max_norm, 1e-30, 1e30),
            ("faults.images", self.faults.images, 0, 1e9),
            ("faults.steps", self.faults.steps, 0, 1e9),
            ("faults.workers", self.faults.workers, 0, 1e9),
            ("run.save_steps", self.run.save_steps, 1, 1e9),
            ("run.draw_every", self.run.draw_every, 1, 1e9),
            ("run.keep", self.run.keep, 1, 1e6),
            ("optim.step_epochs", self.optim.step_epochs, 1, 1e6),
        ]
        for part, factor in self.optim.lr_factors.items():
            bounds.append((f"optim.lr_factors of {reprlib.repr(part)}", factor, 0, 1e6))
        for option, value, low, high in bounds:
            if value is not None and not low <= value <= high:
                found = reprlib.repr(value)
                raise ValueError(f"{option} is {found}: expected {low:.10g} to {high:.10g}")
