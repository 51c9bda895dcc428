"""The training loop: epochs, steps, metrics, checkpoints. ``train`` is the way in."""

import difflib
import inspect
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from tensorboardX import SummaryWriter
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from eat.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from eat.config import OptimConfig, TrainConfig
from eat.data.cache import CachedPixels
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
from eat.run_folder import logging_to, open_folder
from eat.state import Progress, load_state, save_state

log = logging.getLogger("eat")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Report = Callable[[dict[str, float], bool], None]  # metrics, and whether they are the last


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and where."""


class Interrupted(Exception):
    """A run was told to stop by a signal, and has saved its state."""

    def __init__(self, number: int, folder: Path, progress: Progress) -> None:
        self.exit_code = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} after epoch {progress.epoch}, batch "
            f"{progress.batch}; the state is saved: continue with --run.folder {folder} "
            "--run.resume auto"
        )


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
        self.progress = Progress()
        self.stop_signal: int | None = None
        self.saved_at = time.monotonic()
        self.folder = open_folder(config, self.splits.left_out)

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
            model.img_size[0],
            data.train_resize,
            data.interpolation,
            data.flip,
            data.upright,
            data.decode,
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

    def _loader(self, table: Any, sampler: EpochSampler | None = None) -> Any:
        target = targets(table, self.splits.dataset, self.info.model["num_outputs"])
        data, pixels = self.config.data, self.info.preprocess
        if data.cache:
            training = sampler is not None
            pixels = CachedPixels(
                data.cache, pixels, data.images, table["image"], training=training
            )
        dataset = AestheticsDataset(table, data.images, target, pixels)
        return make_loader(dataset, self.config.optim.batch_size, data.workers, sampler)

    def fit(self) -> dict[str, float]:
        """Train the epochs that are left.

        Returns:
            Metrics of the best epoch; with a validation split, those of its checkpoint on the test
            split.

        Raises:
            TrainingError: the loss became infinite or NaN.
            Interrupted: SIGTERM or SIGINT came; the state is saved.
            ImageError: an image cannot be read.
        """
        epochs, done = self.config.optim.epochs, self.progress
        self._announce()
        self._resume()
        purge = done.epoch + 1 if done.step else None  # of curves that an interrupted run drew
        writer = SummaryWriter(str(self.folder / "curves"), purge_step=purge)
        with writer as curves, self._catching_signals():
            while done.epoch < epochs:
                record = self._train_epoch()
                outputs = self._predict(self.eval_loader)
                metrics = measure(outputs, self.eval_table, self.splits.dataset)
                self._write_epoch(record, metrics, curves)
                self._end_epoch(metrics)
                self.report(metrics, False)
                if self.stop_signal and done.epoch < epochs:
                    raise Interrupted(self.stop_signal, self.folder, done)
        if done.best_epoch == 0:
            raise TrainingError(
                f"{self.config.run.metric} was undefined after every epoch, so there is no best "
                f"checkpoint; the last one is in {self.folder / 'checkpoints'}"
            )
        log.info("best epoch %d of %d by %s", done.best_epoch, epochs, self.config.run.metric)
        return self._finish()

    def _end_epoch(self, metrics: dict[str, float]) -> None:
        """Count the epoch and write its checkpoints, the state last: it vouches for the others."""
        metric, done = self.config.run.metric, self.progress
        done.epoch, done.batch, done.loss, done.images = done.epoch + 1, 0, 0.0, 0
        self.info.epoch, self.info.metrics = done.epoch, metrics
        self._save("last")
        if not math.isnan(metrics[metric]) and metrics[metric] > done.best.get(metric, -math.inf):
            done.best, done.best_epoch = metrics, done.epoch
            self._save("best")
        self._save_state()

    def _save_state(self) -> None:
        parts = {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        save_state(self.folder / "checkpoints", self.progress, parts, self.config.run.keep)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Continue from the newest sound state in the folder, if there is one."""
        found = load_state(self.folder / "checkpoints")
        if found is None:
            return
        progress, parts = found
        vars(self.progress).update(vars(progress))
        self.accelerator.unwrap_model(self.model).load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        # Lines of epochs that the state does not know of are written again.
        metrics = self.folder / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        kept = "".join(f"{line}\n" for line in lines[: progress.epoch])
        write_atomically(metrics, kept.encode())
        log.info("continuing after epoch %d, batch %d", progress.epoch, progress.batch)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as a wish to save the state and stop after the step."""

        def remember(number: int, frame: Any) -> None:
            self.stop_signal = number

        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return
        before = {number: signal.signal(number, remember) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

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

    def _train_epoch(self) -> dict[str, float]:
        """The rest of the epoch under way: its number, learning rate, mean loss and speed."""
        config, done = self.config, self.progress
        self.model.train()
        self.accelerator.unwrap_model(self.model).set_epoch(done.epoch, config.optim.epochs)
        self.sampler.begin(done.epoch, skip=done.batch * config.optim.batch_size)
        lr, start, before = self.optimizer.param_groups[0]["lr"], time.perf_counter(), done.images
        title = f"epoch {done.epoch + 1}/{config.optim.epochs}"
        bar = tqdm(total=len(self.sampler), initial=before, desc=title, unit="image", disable=None)
        with bar:
            for batch in self.loader:
                count = len(batch["row"])
                done.loss += self._step(batch) * count
                done.step, done.batch, done.images = (
                    done.step + 1,
                    done.batch + 1,
                    done.images + count,
                )
                bar.update(count)
                bar.set_postfix(loss=f"{done.loss / done.images:.4f}")
                self._save_if_due()
        seconds = time.perf_counter() - start
        return {
            "epoch": done.epoch + 1,
            "lr": lr,
            "train_loss": done.loss / done.images,
            "seconds": seconds,
            "images_per_second": (done.images - before) / seconds,
        }

    def _save_if_due(self) -> None:
        """Save the state by steps, by time and on a signal; on a signal also stop."""
        run, done = self.config.run, self.progress
        by_steps = run.save_steps and done.step % run.save_steps == 0
        by_time = run.save_minutes and time.monotonic() - self.saved_at > 60 * run.save_minutes
        if by_steps or by_time or self.stop_signal:
            self._save_state()
        if self.stop_signal:
            raise Interrupted(self.stop_signal, self.folder, done)

    def _step(self, batch: dict[str, Tensor]) -> float:
        """One step of the optimizer; returns the batch's loss.

        Drop path and rotation angles hang on (seed, step) alone, so that a run that was
        interrupted draws the same ones.
        """
        torch.manual_seed(hash((self.config.run.seed, self.progress.step)))
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

    def _finish(self) -> dict[str, float]:
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
        result = {"split": split, "best_epoch": self.progress.best_epoch, **finite(metrics)}
        write_atomically(self.folder / "result.json", json.dumps(result, indent=2).encode())
        log.info(
            "%s split, best epoch: %s",
            split,
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
        )
        self.report(metrics, True)
        return metrics


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
