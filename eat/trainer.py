"""The training loop: epochs, steps, metrics, checkpoints. ``train`` is the way in."""

import difflib
import inspect
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from tensorboardX import SummaryWriter
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from eat.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from eat.config import OptimConfig, TrainConfig
from eat.data.dataset import (
    AestheticsDataset,
    EpochSampler,
    Splits,
    make_loader,
    read_splits,
    targets,
)
from eat.data.identity import fingerprint, identity_hashes
from eat.data.labels import LabelError, vote_columns
from eat.data.transforms import Preprocessing, normalise
from eat.evaluate import measure, predict, tabulate
from eat.files import write_atomically
from eat.losses import LOSSES
from eat.models import EAT, create_model, load_weights
from eat.report import finite

log = logging.getLogger("eat")

Report = Callable[[dict[str, float], bool], None]  # metrics, and whether they are the last


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


def schedule_factor(step: int, steps_per_epoch: int, optim: OptimConfig) -> float:
    """Learning rate over its setting, at a step counted from 0 over the whole run."""
    epoch = step / steps_per_epoch
    if epoch < optim.warmup_epochs:
        return (step + 1) / (optim.warmup_epochs * steps_per_epoch)
    if optim.schedule == "step":
        return optim.step_factor ** (int(epoch) // optim.step_epochs)
    if optim.schedule == "cosine":
        rest = max(optim.epochs - optim.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min((epoch - optim.warmup_epochs) / rest, 1)))
    return 1.0


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


class Trainer:
    """One run: what it trains on, its model, its folder.

    Args:
        config: the run's options.
        report: told the metrics of every epoch, and at the end those of the best.

    Raises:
        ValueError: an option is out of range.
        LabelError: label files or images are wrong.
        WeightsError: the weights to start from are.
        FileExistsError: the folder holds a run already.
    """

    def __init__(self, config: TrainConfig, report: Report | None = None) -> None:
        config.check()
        self.config = config
        self.report = report or (lambda metrics, final: None)
        self.splits = self._read_splits()
        set_seed(config.run.seed)
        self.trained_on = identity_hashes(self.splits.train)
        self.info, model = self._make_model()
        self.folder = self._make_folder()
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.run.precision, config.run.precision),
            cpu=config.run.device == "cpu",
        )
        self.loss = LOSSES[config.optim.loss or ("emd" if model.num_outputs > 1 else "mse")]
        self.sampler = EpochSampler(len(self.splits.train), config.run.seed)
        loader = self._loader(self.splits.train, self.sampler)
        self.eval_split = "val" if self.splits.val is not None else "test"
        self.eval_table = getattr(self.splits, self.eval_split)
        self.eval_loader = self._loader(self.eval_table)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optim.optimizer]
        optimizer = kind(
            model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
        )
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.schedule = LambdaLR(
            self.optimizer.optimizer,
            lambda step: schedule_factor(step, len(self.loader), config.optim),
        )

    def _read_splits(self) -> Splits:
        data = self.config.data
        splits = read_splits(
            data.name,
            data.labels,
            data.images,
            test=data.test,
            val=data.val,
            val_fraction=data.val_fraction,
            missing=data.missing,
            seed=self.config.run.seed,
        )
        if not len(splits.train):
            raise LabelError(f"{data.labels}: no image is left for the training split")
        if splits.test is None and splits.val is None:
            raise LabelError(
                f"{data.labels}: no image is marked as test; give --data.test, or "
                "--data.val_fraction 0.1 to hold some out"
            )
        return splits

    def _make_model(self) -> tuple[CheckpointInfo, EAT]:
        """The model to train, and what its checkpoints will say of it."""
        config, choice = self.config, self.config.model
        check_settings(choice.settings)
        outputs = choice.num_outputs or len(vote_columns(self.splits.train)) or 1
        targets(self.splits.train.iloc[:1], self.splits.dataset, outputs)  # fails early
        model = create_model(choice.name, outputs, config.data.size, **choice.settings)
        if model.img_size[0] != model.img_size[1]:
            raise ValueError(f"training takes square images, not {model.img_size}")
        data = config.data
        preprocessing = Preprocessing(
            model.img_size[0], data.train_resize, data.interpolation, data.flip, data.upright
        )
        info = CheckpointInfo(
            model={
                "name": choice.name,
                "num_outputs": outputs,
                "img_size": list(model.img_size),
                "settings": choice.settings,
            },
            dataset=data.name,
            preprocessing=asdict(preprocessing),
            config=config.to_dict(),
            splits={
                name: {"images": len(table), "fingerprint": fingerprint(table)}
                for name, table in self.splits.tables().items()
            },
        )
        if choice.weights:
            load_weights(model, choice.weights)
        return info, model

    def _make_folder(self) -> Path:
        config = self.config
        name = f"{config.data.name}-{config.model.name}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = Path(config.run.folder or Path("runs") / name)
        if (folder / "config.yaml").exists():
            raise FileExistsError(f"{folder} holds a run already: choose another --run.folder")
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.to_dict(), sort_keys=False)
        write_atomically(folder / "config.yaml", text.encode())
        return folder

    def _loader(self, table: Any, sampler: EpochSampler | None = None) -> Any:
        target = targets(table, self.splits.dataset, self.info.model["num_outputs"])
        dataset = AestheticsDataset(table, self.config.data.images, target, self.info.preprocess)
        return make_loader(dataset, self.config.optim.batch_size, self.config.data.workers, sampler)

    def fit(self) -> dict[str, float]:
        """Train all epochs.

        Returns:
            Metrics of the best epoch; with a validation split, those of its checkpoint on the test
            split.

        Raises:
            TrainingError: the loss became infinite or NaN.
            ImageError: an image cannot be read.
        """
        config, metric = self.config, self.config.run.metric
        self._announce()
        best, best_epoch = {metric: -math.inf}, 0
        with SummaryWriter(str(self.folder / "curves")) as curves:
            for epoch in range(config.optim.epochs):
                record = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
                record |= self._train_epoch(epoch)
                outputs = self._predict(self.eval_loader)
                metrics = measure(outputs, self.eval_table, self.splits.dataset)
                self._write_epoch(record, metrics, curves)
                self.info.epoch, self.info.metrics = epoch + 1, metrics
                self._save("last")
                if not math.isnan(metrics[metric]) and metrics[metric] > best[metric]:
                    best, best_epoch = metrics, epoch + 1
                    self._save("best")
                self.report(metrics, False)
        if best_epoch == 0:
            raise TrainingError(
                f"{metric} was undefined after every epoch, so there is no best checkpoint; "
                f"the last one is in {self.folder / 'checkpoints'}"
            )
        log.info("best epoch %d of %d by %s", best_epoch, config.optim.epochs, metric)
        return self._finish(best, best_epoch)

    def _announce(self) -> None:
        splits, model = self.splits, self.info.model
        sizes = {name: len(table) for name, table in splits.tables().items()}
        log.info(
            "data: %s, %s images",
            splits.dataset.title,
            ", ".join(f"{count} {name}" for name, count in sizes.items()),
        )
        if splits.left_out:
            log.warning("%d labelled images have no file and are left out", len(splits.left_out))
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        log.info(
            "model: %s, %.2f M parameters, %d outputs, %d pixels, on %s in %s",
            model["name"],
            parameters,
            model["num_outputs"],
            model["img_size"][0],
            self.accelerator.device,
            self.config.run.precision,
        )
        if self.eval_split == "test":
            log.info(
                "the best epoch is chosen on the test split, as the field does; "
                "--data.val_fraction 0.1 would hold images out for that"
            )
        if self.config.model.weights is None and splits.dataset.name != "sample":
            log.warning(
                "training starts WITHOUT pretrained weights: on real photographs such a "
                "model does not generalise (about 0.1 PLCC on AVA); give --model.weights "
                "an ImageNet checkpoint of DAT or Swin"
            )

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training split: its mean loss and its speed."""
        config, model = self.config, self.accelerator.unwrap_model(self.model)
        self.model.train()
        model.set_epoch(epoch, config.optim.epochs)
        self.sampler.set_epoch(epoch)
        total, images, start = 0.0, 0, time.perf_counter()
        title = f"epoch {epoch + 1}/{config.optim.epochs}"
        with tqdm(total=len(self.sampler), desc=title, unit="image", disable=None) as bar:
            for batch in self.loader:
                loss = self._step(batch)
                total += loss * len(batch["row"])
                images += len(batch["row"])
                bar.update(len(batch["row"]))
                bar.set_postfix(loss=f"{total / images:.4f}")
        seconds = time.perf_counter() - start
        return {
            "train_loss": total / images,
            "seconds": seconds,
            "images_per_second": images / seconds,
        }

    def _step(self, batch: dict[str, Tensor]) -> float:
        """One step of the optimizer; returns the batch's loss."""
        with self.accelerator.autocast():
            outputs = self.model(normalise(batch["pixels"]))
        loss = self.loss(outputs.float(), batch["target"])
        value = loss.item()
        if not math.isfinite(value):
            rows = [self.splits.train["image"][row] for row in batch["row"].tolist()]
            raise TrainingError(
                f"the loss became {value} after {self.schedule.last_epoch} steps, on the images "
                f"{', '.join(rows)}; a lower --optim.lr, --optim.clip_norm 1 or "
                "--run.precision fp32 may help"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.config.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return value

    def _predict(self, loader: Any, model: EAT | None = None) -> Any:
        model = model or self.accelerator.unwrap_model(self.model)
        return predict(model, loader, self.accelerator.device, self.config.run.precision)

    def _write_epoch(
        self, record: dict[str, float], metrics: dict[str, float], curves: SummaryWriter
    ) -> None:
        """One line of metrics.jsonl, one point of each curve, one line of the log."""
        for name, value in record.items():
            curves.add_scalar(f"train/{name}", value, record["epoch"])
        for name, value in metrics.items():
            curves.add_scalar(f"{self.eval_split}/{name}", value, record["epoch"])
        line = record | {"split": self.eval_split} | finite(metrics)
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{k} {metrics[k]:.4f}" for k in ("srcc", "plcc", "accuracy"))
        log.info(
            "epoch %d: loss %.4f, %s: %s (%.0f images/s)",
            record["epoch"],
            record["train_loss"],
            self.eval_split,
            shown,
            record["images_per_second"],
        )

    def _save(self, name: str) -> None:
        model = self.accelerator.unwrap_model(self.model)
        path = self.folder / "checkpoints" / f"{name}.safetensors"
        save_checkpoint(path, model, self.info, self.trained_on)

    def _finish(self, best: dict[str, float], best_epoch: int) -> dict[str, float]:
        """Predictions and final metrics of the best checkpoint, written and reported."""
        table, loader = self.eval_table, self.eval_loader
        split = self.eval_split
        if split == "val" and self.splits.test is not None:
            table, split = self.splits.test, "test"
            loader = self._loader(table)
        model, _ = load_checkpoint(self.folder / "checkpoints" / "best.safetensors")
        outputs = self._predict(loader, model.to(self.accelerator.device))
        dataset = self.splits.dataset
        metrics = measure(outputs, table, dataset)
        tabulate(outputs, table, dataset, dataset).to_csv(
            self.folder / "predictions.csv", index=False
        )
        result = {"split": split, "best_epoch": best_epoch, **finite(metrics)}
        write_atomically(self.folder / "result.json", json.dumps(result, indent=2).encode())
        log.info(
            "%s split, best epoch: %s",
            split,
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        )
        self.report(metrics, True)
        return metrics


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to the terminal and to train.log in a run's folder."""
    handlers = [logging.StreamHandler(sys.stderr), logging.FileHandler(folder / "train.log")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def train(config: TrainConfig, report: Report | None = None) -> tuple[Path, dict[str, float]]:
    """Carry out one training run.

    Returns:
        The run's folder and the metrics of its best checkpoint.

    Raises:
        As ``Trainer`` and ``Trainer.fit`` do.
    """
    try:
        trainer = Trainer(config, report)
        with logging_to(trainer.folder):
            metrics = trainer.fit()
        return trainer.folder, metrics
    finally:
        # accelerate keeps one state per process, and another run may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
