"""The training loop: epochs, steps, metrics, checkpoints. ``train`` is the way in."""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from numpy.typing import NDArray
from tensorboardX import SummaryWriter
from tqdm import tqdm

from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.config import RunConfig, TrainConfig
from eat.data.dataset import LoaderError, loaded
from eat.data.labels.identity import identity_hashes
from eat.evaluation.measure import measure, predict, tabulate
from eat.models import EAT
from eat.models.deformable import InterestPoints
from eat.system.files import append_line, finite, write_atomically
from eat.system.processes import from_main, summed
from eat.system.stops import Interrupted, TrainingError
from eat.training.faults import Faults
from eat.training.folder import logging_to, open_folder
from eat.training.losses import LOSSES
from eat.training.run_data import RunData
from eat.training.run_model import make_model
from eat.training.state import Progress, load_state, save_state
from eat.training.step import Learner, Part

log = logging.getLogger("eat")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Report = Callable[[dict[str, float], bool], None]  # metrics, and whether they are the last


def make_accelerator(run: RunConfig) -> Accelerator:
    """The engine of this process, which meets the others if torchrun has started several.

    Raises:
        ValueError: the precision needs a GPU.
    """
    if run.precision == "fp16" and (run.device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("run.precision is fp16, which needs a GPU: expected bf16 or fp32 on a CPU")
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(run.precision, run.precision),
        cpu=run.device == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
        ],
    )


class Trainer:
    """One run: what it trains on, its model, its folder.

    Started by torchrun, each process has a trainer of its own; the main one writes and reports.

    Args:
        config: the run's options.
        report: told the metrics of every epoch, and at the end those of the best.

    Raises:
        ValueError: an option is out of range.
        LabelError: label files or images are wrong.
        WeightsError: the weights to start from are.
        FileExistsError: the folder holds a run already, or another process writes into it.
    """

    def __init__(self, config: TrainConfig, report: Report | None = None) -> None:
        config.check()
        self.config = config
        self.report = report or (lambda metrics, final: None)
        self.accelerator = make_accelerator(config.run)
        self.data = RunData(config, self.accelerator.num_processes, self.accelerator.process_index)
        set_seed(config.run.seed)
        self.info, model = make_model(config, self.data)
        self.trained_on = identity_hashes(self.data.splits.train)
        loss = LOSSES[config.optim.loss or ("emd" if model.num_outputs > 1 else "mse")]
        steps = self.data.batches.steps
        self.learner = Learner(model, loss, config.optim, config.run, self.accelerator, steps)
        self.progress = Progress()
        self.stop_signal = 0
        self.saved_at = time.monotonic()
        self.lock = None
        self.folder = from_main(self._open_folder)
        self.faults = Faults(config.faults, self.folder, self.progress)

    def _open_folder(self) -> Path:
        folder, self.lock = open_folder(self.config, self.data.splits.left_out)
        return folder

    def close(self) -> None:
        """Let another run into the folder."""
        if self.lock is not None:
            self.lock.close()

    def fit(self) -> dict[str, float]:
        """Train the epochs that are left.

        Returns:
            Metrics of the best epoch; with a validation split, those of its checkpoint on the test
            split.

        Raises:
            TrainingError: something broke, and the run's options say to stop then.
            Interrupted: SIGTERM or SIGINT came; the state is saved.
            ImageError: an image to evaluate on cannot be read.
        """
        epochs, done = self.config.optim.epochs, self.progress
        self._announce()
        self._resume()
        purge = done.epoch + 1 if done.step else None  # of curves that an interrupted run drew
        curves = None
        if self.accelerator.is_main_process:
            curves = SummaryWriter(str(self.folder / "curves"), purge_step=purge)
        with curves or nullcontext(), self._catching_signals():
            while done.epoch < epochs:
                record = self._train_epoch()
                metrics = self._evaluate()
                if curves is not None:
                    self._write_epoch(record, metrics, curves)
                self._end_epoch(metrics)
                if self.accelerator.is_main_process:
                    self.report(metrics, False)
                told = torch.tensor([float(s == self.stop_signal) for s in STOP_SIGNALS])
                self._stop_if_told(summed(told.to(self.accelerator.device)).tolist())
        if done.best_epoch == 0:
            raise TrainingError(
                f"{self.config.run.metric} was undefined after every epoch, so there is no best "
                f"checkpoint; the last one is in {self.folder / 'checkpoints'}"
            )
        log.info("best epoch %d of %d by %s", done.best_epoch, epochs, self.config.run.metric)
        return self._finish()

    def _evaluate(self) -> dict[str, float]:
        """Metrics of the model as it is, on the split that chooses the best epoch."""
        split = self.data.eval_split
        outputs = self._predict(split, self.learner.result)
        return measure(outputs, self.data.tables[split], self.data.dataset.scale)

    def _end_epoch(self, metrics: dict[str, float]) -> None:
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

    def _save(self, name: str) -> None:
        if self.accelerator.is_main_process:
            path = self.folder / "checkpoints" / f"{name}.safetensors"
            save_checkpoint(path, self.learner.result, self.info, self.trained_on)

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            parts = self.learner.state()
            save_state(self.folder / "checkpoints", self.progress, parts, self.config.run.keep)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Continue from the newest sound state in the folder, if there is one."""
        found = from_main(lambda: load_state(self.folder / "checkpoints"))
        if found is None:
            return
        progress, parts = found
        vars(self.progress).update(vars(progress))
        self.learner.load(parts)
        if self.accelerator.is_main_process:
            self._report_again()
        log.info("continuing after epoch %d, batch %d", progress.epoch, progress.batch)

    def _report_again(self) -> None:
        """Report the epochs before this start once more, so that whoever listens has them all."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        # Lines of epochs that the state does not know of are written again later.
        kept = lines[: self.progress.epoch]
        write_atomically(file, "".join(f"{line}\n" for line in kept).encode())
        for line in map(json.loads, kept):
            names = list(line)[list(line).index("split") + 1 :]
            metrics = {name: math.nan if line[name] is None else line[name] for name in names}
            self.report(metrics, False)

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
        data, model = self.data, self.info.model
        sizes = {name: len(table) for name, table in self.data.tables.items()}
        log.info(
            "data: %s, %s images",
            data.dataset.title,
            ", ".join(f"{count} {name}" for name, count in sizes.items()),
        )
        if data.splits.left_out:
            count = len(data.splits.left_out)
            log.warning("%d labelled images have no file and are left out", count)
        parameters = sum(p.numel() for p in self.learner.bare.parameters()) / 1e6
        log.info(
            "model: %s, %.2f M parameters, %d outputs, %d pixels, on %s in %s",
            model.name,
            parameters,
            model.num_outputs,
            model.img_size[0],
            self.accelerator.device,
            self.config.run.precision,
        )
        parts = self.accelerator.num_processes * self.config.run.passes
        if parts > 1:
            log.info(
                "a step's %d images: %d processes, %d passes each",
                self.config.optim.batch_size,
                self.accelerator.num_processes,
                self.config.run.passes,
            )
            modules = self.learner.bare.modules()
            if any(isinstance(m, InterestPoints) and m.average for m in modules):
                log.warning(
                    "this profile averages interest points over the images of a pass, so that its "
                    "results hang on the numbers of processes and passes"
                )
        if self.data.eval_split == "test":
            log.info(
                "the best epoch is chosen on the test split, as the field does; "
                "--data.val_fraction 0.1 would hold images out for that"
            )
        if self.config.model.weights is None and data.dataset.name != "sample":
            log.warning(
                "training starts WITHOUT pretrained weights: on real photographs such a "
                "model does not generalise (about 0.1 PLCC on AVA); give --model.weights "
                "an ImageNet checkpoint of DAT or Swin"
            )

    def _train_epoch(self) -> dict[str, float]:
        """The rest of the epoch under way: its number, learning rate, mean loss and speed."""
        optim, done, batches = self.config.optim, self.progress, self.data.batches
        self.learner.model.train()
        self.learner.bare.set_epoch(done.epoch, optim.epochs)
        batches.begin(done.epoch)
        images = self.data.splits.train["image"].to_numpy()
        names = images[[row for row, _ in batches.keys()]]
        lr, start, trained = self.learner.lr, time.perf_counter(), 0
        bar = tqdm(
            total=batches.size,
            initial=done.batch * optim.batch_size,
            desc=f"epoch {done.epoch + 1}/{optim.epochs}",
            unit="image",
            disable=None if self.accelerator.is_main_process else True,
        )
        with bar:
            for parts in self._steps(names):
                whole, first = batches.whole(done.batch), done.batch * optim.batch_size
                self._step(parts, names[first : first + whole])
                trained += whole
                bar.update(whole)
                bar.set_postfix(loss=f"{done.loss / max(done.images, 1):.4f}")
        seconds = time.perf_counter() - start
        return {
            "epoch": done.epoch + 1,
            "lr": lr,
            "train_loss": done.loss / done.images if done.images else math.nan,
            "seconds": seconds,
            "images_per_second": trained / seconds,
            "replaced_images": done.replaced,
            "skipped_steps": done.skipped,
            "fp16_overflows": done.overflows,
        }

    def _steps(self, names: NDArray) -> Iterator[list[dict[str, Any]]]:
        """This process's batches of each step that is left of the epoch."""
        done, batches = self.progress, self.data.batches
        while done.batch < batches.steps:
            batches.begin(done.epoch, skip=done.batch)
            loading = loaded(self.data.loader("train", self.info.preprocess))
            try:
                while done.batch < batches.steps:
                    yield [next(loading) for _ in range(batches.passes)]
            except LoaderError as error:
                self.data.drop("train")
                ahead = 1 + 2 * self.config.data.workers // batches.passes  # what is loaded at once
                first, last = (
                    step * batches.batch_size for step in (done.batch, done.batch + ahead)
                )
                self.faults.dead_worker(error, names[first:last].tolist())

    def _step(self, batches: Sequence[dict[str, Any]], names: NDArray) -> None:
        """One step of the optimizer; then the state is saved if it is time.

        Drop path and rotation angles hang on (seed, step) alone, so that a run that was
        interrupted draws the same ones.
        """
        done = self.progress
        parts, broken = [], []
        shares = self.data.batches.parts(done.batch)
        for batch, (first, count) in zip(batches, shares, strict=True):
            parts.append(Part(batch["pixels"], batch["target"], first, count))
            broken += [error for error in batch["error"][:count] if error]
        self.faults.broken_images(broken)
        seed = hash((self.config.run.seed, done.step))
        told = [len(broken), *(float(s == self.stop_signal) for s in STOP_SIGNALS)]
        step = self.learner.gradients(parts, len(names), seed, told)
        replaced, *stopping = step.notes
        self.faults.count_replaced(int(replaced))
        if self.faults.sound(step, names.tolist(), record=self.accelerator.is_main_process):
            self.learner.update()
            done.loss, done.images = done.loss + step.loss * len(names), done.images + len(names)
        else:
            self.learner.skip()
        done.step, done.batch = done.step + 1, done.batch + 1
        run, now = self.config.run, time.monotonic()
        by_steps = run.save_steps and done.step % run.save_steps == 0
        by_time = run.save_minutes and now - self.saved_at > 60 * run.save_minutes
        if by_steps or by_time or any(stopping):
            self._save_state()
        self._stop_if_told(stopping)

    def _stop_if_told(self, processes: Sequence[float]) -> None:
        """Stop if any process got one of the STOP_SIGNALS; the state has been saved.

        Raises:
            Interrupted: unless the last epoch is over.
        """
        for number, count in zip(STOP_SIGNALS, processes, strict=True):
            if count and self.progress.epoch < self.config.optim.epochs:
                raise Interrupted(number, self.folder, self.progress.epoch, self.progress.batch)

    def _predict(self, split: str, model: EAT) -> NDArray:
        """Outputs (N, K) for a whole split, of which each process computes a share."""
        device, precision = self.accelerator.device, self.config.run.precision
        while True:
            try:
                loader = self.data.loader(split, self.info.preprocess)
                outputs = predict(model, loader, device, precision)
                break
            except LoaderError as error:
                self.data.drop(split)
                self.faults.dead_worker(error, self.data.tables[split]["image"].tolist())
        outputs = self.data.gathered(split, torch.from_numpy(outputs))
        return summed(outputs.to(device)).cpu().numpy()

    def _write_epoch(
        self, record: dict[str, float], metrics: dict[str, float], curves: SummaryWriter
    ) -> None:
        """One line of metrics.jsonl, one point of each curve, one line of the log."""
        for name, value in record.items():
            curves.add_scalar(f"train/{name}", value, record["epoch"])
        for name, value in metrics.items():
            curves.add_scalar(f"{self.data.eval_split}/{name}", value, record["epoch"])
        line = finite(record) | {"split": self.data.eval_split} | finite(metrics)
        append_line(self.folder / "metrics.jsonl", json.dumps(line))
        shown = ", ".join(f"{k} {metrics[k]:.4f}" for k in ("srcc", "plcc", "accuracy"))
        log.info(
            "epoch %d: loss %.4f, %s: %s (%.0f images/s)",
            record["epoch"],
            record["train_loss"],
            self.data.eval_split,
            shown,
            record["images_per_second"],
        )

    def _finish(self) -> dict[str, float]:
        """Predictions and final metrics of the best checkpoint, written and reported."""
        split = self.data.final_split
        best = self.folder / "checkpoints" / "best.safetensors"
        state = from_main(lambda: load_checkpoint(best)[0].state_dict())
        model = self.info.model.build()
        model.load_state_dict(state)
        outputs = self._predict(split, model.to(self.accelerator.device))
        scale, table = self.data.dataset.scale, self.data.tables[split]
        metrics = measure(outputs, table, scale)
        if not self.accelerator.is_main_process:
            return metrics
        predictions = tabulate(outputs, table, scale).to_csv(index=False)
        write_atomically(self.folder / "predictions.csv", predictions.encode())
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
    """Carry out one training run, or this process's part of it.

    Returns:
        The run's folder and the metrics of its best checkpoint.

    Raises:
        As ``Trainer`` and ``Trainer.fit`` do.
    """
    trainer = None
    try:
        trainer = Trainer(config, report)
        with logging_to(trainer.folder):
            metrics = trainer.fit()
        return trainer.folder, metrics
    finally:
        if trainer is not None:
            trainer.close()
        # accelerate keeps one state per process, and another run may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
