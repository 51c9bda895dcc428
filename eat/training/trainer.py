"""The training loop: epochs, steps, metrics, checkpoints. Start at ``train``."""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from numpy.typing import NDArray
from tqdm import tqdm

from eat.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from eat.config import TrainConfig
from eat.data.decoding import ImageError
from eat.data.labels.identity import hash_images
from eat.data.loading import LoaderError, loaded
from eat.data.scales import mean_scores
from eat.evaluation.measure import measure, predict, tabulate
from eat.evaluation.points import Health, PointWatch
from eat.models import AestheticModel
from eat.system.files import finite, write_atomically
from eat.system.processes import from_main, summed, watching_others
from eat.system.stops import STOP_SIGNALS, Interrupted, StopSignals, TrainingError
from eat.training.faults import Faults
from eat.training.folder import (
    SPLITS,
    FolderLock,
    check_restarts,
    check_same_labels,
    keep_old_defaults,
    label_digests,
    open_folder,
)
from eat.training.log import (
    EpochLog,
    describe_beginning,
    describe_continuation,
    describe_data,
    describe_model,
    logging_to,
)
from eat.training.setup import (
    RunData,
    make_accelerator,
    make_loss,
    make_model,
    read_run_splits,
    resolve_model,
)
from eat.training.sharding import shard
from eat.training.state import Progress, load_state, save_state
from eat.training.step import MicroBatch, TrainStep
from eat.training.trackers import check_trackers

log = logging.getLogger("eat")
Report = Callable[[dict[str, float], bool], None]  # metrics, and whether they are the last
Draw = Callable[[AestheticModel, CheckpointInfo, Path, Path], object]  # a photo to a picture
Metrics = dict[str, float]


class Trainer:
    """One run: its data, model, folder and progress.

    Started by torchrun, each process has a trainer of its own; the main one writes, and calls
    ``report`` with the metrics of every epoch, and at the end with those of the best epoch, both
    on the split that chooses it. ``draw`` makes the pictures of ``run.draw_every``.

    Raises:
        ValueError: an option is out of range.
        LabelError: label files or images are wrong.
        WeightsError: the weights to start from are.
        FileExistsError: the folder holds a run already, or another process writes into it.
    """

    def __init__(
        self, config: TrainConfig, report: Report | None = None, draw: Draw | None = None
    ) -> None:
        config.check()
        check_restarts(config.run)
        check_trackers(config)
        self.config = config = resolve_model(keep_old_defaults(config))
        self.report: Report = report or (lambda metrics, final: None)
        self.draw = draw
        self.accelerator = make_accelerator(config.run)
        self.is_main = self.accelerator.is_main_process
        self.splits = read_run_splits(config)
        set_seed(config.run.seed)
        self.info, model, self.weights = make_model(config, self.splits)
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        self.data = RunData(config, self.splits, self.info, processes, process)
        self.data.check_batches(model)
        for split in self.data.tables:  # what is wrong with a cache is said before a folder is made
            self.data.loader(split)
        self.labels = label_digests(self.data.tables, [*self.info.scales])
        self.trained_on = hash_images(
            self.splits.train, config.data.images if self.is_main else None
        )
        votes = self.info.num_votes > 0
        loss = make_loss(config.optim.loss, self.info.model.name, model.num_outputs, votes=votes)
        steps = self.data.batches.steps
        pixels = self.info.preprocessing
        self.step = TrainStep(
            model, pixels, loss, config.optim, config.run, self.accelerator, steps
        )
        self.progress = Progress()
        self.stop = StopSignals()
        self.saved_at = time.monotonic()
        self.lock: FolderLock | None = None
        self.epoch_log: EpochLog | None = None  # of the main process
        self.folder = from_main(self._open_folder)
        self.faults = Faults(config.faults, self.folder, self.progress)

    def _open_folder(self) -> Path:
        folder, self.lock = open_folder(self.config, self.splits.left_out)
        return folder

    def close(self) -> None:
        """Let another run into the folder."""
        if self.lock is not None:
            self.lock.close()

    def fit(self) -> Metrics:
        """Train the epochs that are left.

        Returns:
            Metrics of the best epoch; with a validation split, those of its checkpoint on the test
            split.

        Raises:
            TrainingError: something broke that the run's options do not allow for.
            Interrupted: SIGTERM or SIGINT came; the state is saved.
            ImageError: an image to evaluate on cannot be read.
        """
        self._announce()
        self._resume()
        from_main(self._open_epoch_log)
        advice = f"; continue with --run.folder {self.folder} --run.resume auto"
        with self.epoch_log or nullcontext(), self.stop, watching_others(advice):
            self._train_epochs()
            try:
                self.stop.raise_at_once()  # all is saved
                return self._finish()
            except KeyboardInterrupt:
                raise self._interrupted(self.stop.received or signal.SIGINT) from None

    def _train_epochs(self) -> None:
        """Train the epochs that are left, each with its evaluation, checkpoints and state."""
        epochs, done = self.config.optim.epochs, self.progress
        while done.epoch < epochs:
            record = self._train_epoch()
            metrics, health = self._evaluate()
            if self.epoch_log is not None:
                self.epoch_log.write(record, metrics, health)
            self._end_epoch(metrics)
            if self.is_main:
                self._draw_points()
                self.report(metrics, False)
            flags = torch.tensor(self.stop.flags(), device=self.accelerator.device)
            self._stop_if_signalled(summed(flags).tolist())
        if done.best_epoch == 0:
            raise TrainingError(
                f"{self.config.run.metric} was undefined after every epoch, so there is no best "
                f"checkpoint; the last one is in {self.folder / 'checkpoints'}"
            )
        log.info("best epoch %d of %d by %s", done.best_epoch, epochs, self.config.run.metric)

    def _train_epoch(self) -> dict[str, float]:
        """Train the rest of the epoch and return its number, rate, mean loss, speed and faults."""
        optim, done, batches = self.config.optim, self.progress, self.data.batches
        self.step.model.train()
        self.step.raw_model.set_epoch(done.epoch, optim.epochs)
        batches.begin(done.epoch)
        images = self.splits.train["image"].to_numpy()[[row for row, _ in batches.keys()]]
        lr = self.step.lr(back=done.batch)
        start, first = time.perf_counter(), done.batch * optim.batch_size
        bar = tqdm(
            total=batches.size,
            initial=first,
            desc=f"epoch {done.epoch + 1}/{optim.epochs}",
            unit="image",
            disable=None if self.is_main else True,
        )
        with bar:
            for loaded_batches in self._batches(images):
                place = done.batch * optim.batch_size
                names = images[place : place + optim.batch_size]
                self._step(loaded_batches, names.tolist())
                bar.update(len(names))
                bar.set_postfix(loss=f"{done.loss / max(done.images, 1):.4f}")
        seconds = time.perf_counter() - start
        return {
            "epoch": done.epoch + 1,
            "lr": lr,
            "train_loss": done.loss / done.images if done.images else math.nan,
            "seconds": seconds,
            "images_per_second": max(batches.size - first, 0) / seconds,
            "replaced_images": done.replaced,
            "skipped_steps": done.skipped,
            "fp16_overflows": done.overflows,
        }

    def _batches(self, images: NDArray) -> Iterator[list[dict[str, Any]]]:
        """This process's micro-batches of each step that is left of the epoch."""
        done, batches = self.progress, self.data.batches
        accumulation_steps, workers = self.config.run.accumulation_steps, self.config.data.workers
        while done.batch < batches.steps:
            batches.begin(done.epoch, skip=done.batch)
            loading = loaded(self.data.loader("train"))
            try:
                while done.batch < batches.steps:
                    yield [next(loading) for _ in range(accumulation_steps)]
            except LoaderError as error:
                self.data.drop("train")
                ahead = 1 + 2 * workers // accumulation_steps  # steps that are loaded at once
                first = done.batch * batches.batch_size
                last = first + ahead * batches.batch_size
                self.faults.dead_worker(error, images[first:last].tolist())

    def _end_epoch(self, metrics: Metrics) -> None:
        """Count the epoch and write its checkpoints, the state last: it vouches for the others."""
        metric, done = self.config.run.metric, self.progress
        done.epoch, done.batch, done.loss, done.images = done.epoch + 1, 0, 0.0, 0
        done.replaced = done.overflows = 0
        self.info.epoch, self.info.metrics = done.epoch, metrics
        self._save("last")
        if not math.isnan(metrics[metric]) and metrics[metric] > done.best.get(metric, -math.inf):
            done.best, done.best_epoch = metrics, done.epoch
            self._save("best")
        self._save_state()

    def _step(self, batches: Sequence[dict[str, Any]], images: list[str]) -> None:
        """Train on this process's micro-batches of ``images``, the batch of all processes.

        Drop path and rotation angles depend on (seed, step) alone, so that a continued run draws
        the same ones. The state is saved if it is time.
        """
        done = self.progress
        places = self.data.batches.micro_batches(done.batch)
        micro_batches, broken = [], []
        for batch, (first, count) in zip(batches, places, strict=True):
            micro_batches.append(MicroBatch(batch["pixels"], batch["target"], first, count))
            broken += [error for error in batch["error"][:count] if error]
        self.faults.broken_images(broken)
        seed = hash((self.config.run.seed, done.step))
        local_sums = [len(broken), *self.stop.flags()]
        statistics = self.step.gradients(micro_batches, len(images), seed, local_sums)
        replaced, *stops = statistics.sums
        self.faults.count_replaced(int(replaced))
        if self.faults.is_sound(statistics, images, record=self.is_main):
            self.step.update()
            done.loss += statistics.loss * len(images)
            done.images += len(images)
        else:
            self.step.skip()
        done.step, done.batch = done.step + 1, done.batch + 1
        if any(stops) or self._is_time_to_save():
            self._save_state()
        self._stop_if_signalled(stops)

    def _is_time_to_save(self) -> bool:
        run, minutes = self.config.run, (time.monotonic() - self.saved_at) / 60
        if run.save_steps and self.progress.step % run.save_steps == 0:
            return True
        return bool(run.save_minutes and minutes > run.save_minutes)

    def _stop_if_signalled(self, processes: Sequence[float]) -> None:
        """Stop, with the state saved, if some ``processes`` got one of the STOP_SIGNALS.

        Raises:
            Interrupted: they did.
        """
        for number, count in zip(STOP_SIGNALS, processes, strict=True):
            if count:
                raise self._interrupted(number)

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(
            number,
            f"epoch {self.progress.epoch}, batch {self.progress.batch}; the state is saved: "
            f"continue with --run.folder {self.folder} --run.resume auto",
        )

    def _evaluate(self) -> tuple[Metrics, Health]:
        """Metrics of the present model on the split that chooses the best epoch, and of points."""
        split, scales, model = self.data.eval_split, self.info.scales, self.step.eval_model
        watch = PointWatch(model.enhanced_blocks())
        outputs = self._predict(split, model, watch)
        scores = next(iter(mean_scores(outputs, scales).values()))
        self.info.score_quantiles = tuple(np.quantile(scores, np.linspace(0, 1, 101)).tolist())
        return measure(outputs, self.data.tables[split], scales), watch.health()

    def _draw_points(self) -> None:
        """Draw the points in the first image of the split that chooses the best epoch."""
        every, epoch = self.config.run.draw_every, self.progress.epoch
        if self.draw is None or every is None or epoch % every:
            return
        photo = Path(
            str(self.config.data.images), self.data.tables[self.data.eval_split]["image"].iloc[0]
        )
        picture = self.folder / "points" / f"epoch-{epoch:04}.png"
        try:
            self.draw(self.step.eval_model.eval(), self.info, photo, picture)
        except (ImageError, ValueError) as error:
            log.warning("no picture of points: %s", error)

    def _predict(
        self, split: str, model: AestheticModel, watch: PointWatch | None = None
    ) -> NDArray:
        """Outputs (N, K) for a split, of which each process computes a share."""
        device, precision = self.accelerator.device, self.config.run.precision
        batches, rows = self._eval_batches(split), len(self.data.tables[split])
        pixels = self.info.preprocessing
        outputs = predict(model, batches, rows, pixels, device, precision, watch)
        own = self.data.own_rows(split, torch.from_numpy(outputs))
        return summed(own.to(device)).cpu().numpy()

    def _eval_batches(self, split: str) -> Iterator[dict[str, Any]]:
        """The batches that this process evaluates, each once, also if loading them broke down."""
        done = 0
        while True:
            try:
                for batch in islice(loaded(self.data.loader(split)), done, None):
                    yield batch
                    done += 1
                return
            except LoaderError as error:
                self.data.drop(split)
                self.faults.dead_worker(error, self.data.tables[split]["image"].tolist())

    def _finish(self) -> Metrics:
        """Write predictions and metrics of the best checkpoint on the final split."""
        split, scales = self.data.final_split, self.info.scales
        best = self.folder / "checkpoints" / "best.safetensors"
        name = self.config.model.name
        state = from_main(lambda: load_checkpoint(best, name)[0].state_dict())
        model = self.info.model.build(name)
        model.load_state_dict(state)
        if self.step.sharded:
            shard(model, self.accelerator.device)
        outputs = self._predict(split, model.to(self.accelerator.device))
        table = self.data.tables[split]
        metrics = measure(outputs, table, scales)

        def write() -> None:
            predictions = tabulate(outputs, table, scales).to_csv(index=False)
            write_atomically(self.folder / "predictions.csv", predictions.encode())
            result = {"split": split, "best_epoch": self.progress.best_epoch, **finite(metrics)}
            write_atomically(self.folder / "result.json", json.dumps(result, indent=2).encode())
            values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            log.info("%s split, best epoch: %s", SPLITS[split], values)
            if self.epoch_log is not None:
                best = {"best_epoch": self.progress.best_epoch}
                self.epoch_log.trackers.log_result(best | metrics)
            self.report(self.progress.best, True)  # a search must not choose by the test split

        from_main(write)
        return metrics

    def _save(self, name: str) -> None:
        weights = self.step.weights()  # of all processes, which may each have a shard
        if self.is_main:
            path = self.folder / "checkpoints" / f"{name}.safetensors"
            save_checkpoint(path, weights, self.info, self.trained_on)

    def _save_state(self) -> None:
        state = self.step.state() | {"labels": self.labels, "files": self.info.files}
        state["processes"] = self.accelerator.num_processes
        checkpoints, keep = self.folder / "checkpoints", self.config.run.keep
        # No process leaves before it is written.
        from_main(lambda: save_state(checkpoints, self.progress, state, keep))
        self.saved_at = time.monotonic()

    def _announce(self) -> None:
        describe_data(self.config, self.splits, self.data.eval_split)
        describe_model(self.config, self.info, self.step.raw_model, self.accelerator)
        if self.config.model.weights and self.config.model.pretrained:
            log.info("model.weights is taken, and model.pretrained left out")
        if self.weights is not None:
            log.info("weights: %s", self.weights)
        if self.weights is not None or "model.name" in self.info.files:  # whose file may load some
            return
        if frozen := [*self.step.raw_model.frozen, *self.config.optim.frozen]:
            log.warning(
                "%s: frozen, and WITHOUT pretrained weights, so that random ones stay; give "
                "--model.weights", ", ".join(frozen),
            )  # fmt: skip
        if self.info.dataset != "sample":
            log.warning(
                "training starts WITHOUT pretrained weights: on real photographs such a "
                "model does not generalise (about 0.1 PLCC on AVA); give --model.weights "
                "an ImageNet checkpoint of DAT or Swin, or timm/NAME"
            )

    def _resume(self) -> None:
        """Continue from the newest sound state in the folder, if there is one."""
        found = from_main(lambda: load_state(self.folder / "checkpoints", self.step.load))
        if found is None:
            describe_beginning(self.folder)
            return
        progress, state = found
        check_same_labels(state.get("labels"), self.labels, self.folder)
        before = state.get("files", {})
        for option, digest in self.info.files.items():
            if before.get(option, digest) != digest:
                log.warning("%s: the file has changed since the run was stopped", option)
        vars(self.progress).update(vars(progress))
        processes = self.accelerator.num_processes
        if processes > 1:
            self.step.order_gradients(self.data.batches.micro_batches(0)[-1][1])
            self.step.load(state)
        describe_continuation(progress, state.get("processes", processes), processes)

    def _open_epoch_log(self) -> None:
        """Open the log of epochs, and report those of earlier starts once more."""
        done, split = self.progress.epoch, self.data.eval_split
        self.epoch_log = EpochLog(self.config, self.folder, split, done)
        for metrics in self.epoch_log.earlier_metrics():  # whoever listens then has them all
            self.report(metrics, False)


def train(
    config: TrainConfig, report: Report | None = None, draw: Draw | None = None
) -> tuple[Path, Metrics]:
    """Carry out one training run, or this process's part of it, with the errors of ``Trainer``.

    Returns:
        The run's folder and the metrics of its best checkpoint.
    """
    try:
        with closing(Trainer(config, report, draw)) as trainer, logging_to(trainer.folder):
            return trainer.folder, trainer.fit()
    finally:
        # accelerate keeps one state per process, and another run may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
