"""``eat search``: trials as processes of their own, on Optuna's or nni's word."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eat.config.commands import SearchOptions
from eat.system.cores import available_cores, share_of_cores
from eat.system.files import write_atomically
from eat.system.stops import Interrupted, StopSignals
from eat.tuning.nni_engine import Say, experiment_files, run_experiment, write_experiment
from eat.tuning.optuna_engine import CARD, read_card
from eat.tuning.space import Space
from eat.tuning.study import Study, Taken

# Seconds: between two looks at our trials, and for trials that others have left; for trials to
# save their states and end.
PAUSE, LOOK, LEAVE = 0.3, 10.0, 120.0


def slots(concurrency: int | None, device: str) -> list[dict[str, str]]:
    """Environment variables of the trials that run at a time: each has a GPU, or a share of cores.

    Args:
        concurrency: how many; None takes one a GPU, without GPUs two.
        device: run.device; cpu leaves GPUs alone.
    """
    count = 0
    if device != "cpu":
        import torch

        count = torch.cuda.device_count()
    named = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word]
    gpus = (named or [str(number) for number in range(count)])[:count]
    trials = concurrency or len(gpus) or min(2, available_cores())
    threads = os.environ.get("OMP_NUM_THREADS") or str(share_of_cores(trials))
    return [
        {"OMP_NUM_THREADS": threads}
        | ({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})
        for place in range(trials)
    ]


@dataclass
class Running:
    """A trial and its process."""

    taken: Taken
    process: "subprocess.Popen[bytes]"
    since: float

    def settle(self, study: Study, say: Say, *, stopped: bool) -> None:
        """Record how it has ended."""
        seconds = time.monotonic() - self.since
        told = study.settle(self.taken, self.process.wait(), seconds, stopped=stopped)
        say(f"trial {self.taken.number}: {told}")


def start(study: Study, taken: Taken, command: Sequence[str], slot: Mapping[str, str]) -> Running:
    """Start a trial's process. What it prints is added to files in its folder."""
    with (
        (taken.folder / "trial.stdout").open("ab") as out,
        (taken.folder / "trial.stderr").open("ab") as error,
    ):
        process = subprocess.Popen(
            command,
            env={**os.environ, **slot, **study.environment(taken)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            start_new_session=True,  # a terminal's Ctrl-C is for the search, which passes it on
        )
    return Running(taken, process, time.monotonic())


def end(running: Sequence[Running]) -> None:
    """Have trials save their states and end; kill those that do not, and what they started."""
    for one in running:
        one.process.terminate()
    last = time.monotonic() + LEAVE
    for one in running:
        try:
            one.process.wait(max(0.0, last - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(one.process.pid, signal.SIGKILL)


def run_trials(
    study: Study, command: Sequence[str], slots: Sequence[Mapping[str, str]], say: Say
) -> None:
    """Carry out the trials of a study that are left, one a slot, and return when there are none.

    Raises:
        ValueError: the storage cannot be read or written; the trials were stopped.
        Interrupted: a signal came; the trials were stopped, and can be taken up again.
    """
    running: dict[int, Running] = {}
    none_until = 0.0  # the time until which no trial is looked for
    with StopSignals() as stop:
        try:
            while stop.received is None:
                for place, slot in enumerate(slots):
                    if place in running or time.monotonic() < none_until:
                        continue
                    if (taken := study.take()) is None:
                        none_until = time.monotonic() + LOOK
                        continue
                    running[place] = start(study, taken, command, slot)
                    words = ", ".join(f"{name} {value}" for name, value in taken.drawn.items())
                    past = f", after epoch {taken.earlier}" if taken.earlier else ""
                    say(f"trial {taken.number}{past}: {words}")
                if not running:
                    break
                time.sleep(PAUSE)
                for place, one in [*running.items()]:
                    if one.process.poll() is not None:
                        del running[place]
                        one.settle(study, say, stopped=stop.received is not None)
        finally:
            end([*running.values()])
        for one in running.values():
            one.settle(study, say, stopped=True)
    if stop.received is not None:
        raise Interrupted(stop.received, "the trials were stopped; the same command goes on")


def search_with_optuna(
    options: SearchOptions, space: Space, words: Sequence[str], config: Mapping[str, Any], say: Say
) -> None:
    """Search by Optuna, with the errors of ``Study`` and ``run_trials``."""
    out = Path(options.out)
    study = Study(
        out,
        options.storage,
        options.name or out.resolve().name,
        trials=options.trials,
        start_step=options.start_step,
        space=space,
        options=config,
    )
    places = slots(options.concurrency, config["run"]["device"])
    say(f"{len(places)} trials at a time, of {places[0]['OMP_NUM_THREADS']} threads each, in {out}")
    run_trials(study, [sys.executable, "-m", "eat", "train", *words], places, say)


def search_with_nni(
    options: SearchOptions, space: Space, words: Sequence[str], config: Mapping[str, Any], say: Say
) -> None:
    """Write and run what ``nnictl create`` would be given, or go on with it as ``nnictl resume``.

    Raises:
        ValueError: ``options.out`` holds another search, or as ``run_experiment``.
    """
    out = Path(options.out)
    mode = {"optimize_mode": "maximize"}
    algorithms: dict[str, Any] = {"tuner": {"name": "TPE", "classArgs": mode}}
    if options.start_step is not None:
        median = mode | {"start_step": options.start_step}
        algorithms["assessor"] = {"name": "Medianstop", "classArgs": median}
    files = experiment_files(
        options.name or out.resolve().name,
        space.rules,
        ["train", *words],
        trials=options.trials,
        algorithms=algorithms,
        machines=options.nni,
        concurrency=options.concurrency,
    )
    card = out / CARD
    known = read_card(out).get("nni")
    if card.exists():
        differing = [name for name, text in files.items()
                     if not (out / name).is_file() or (out / name).read_text() != text]  # fmt: skip
        if known is None or differing:
            raise ValueError(
                f"{out} holds another search ({', '.join(differing) or CARD} differs): take the "
                "same options to continue it, or another --out"
            )
    path = write_experiment(out, files)

    def keep(experiment: str) -> None:
        write_atomically(card, (json.dumps({"engine": "nni", "nni": experiment}) + "\n").encode())

    run_experiment(
        path,
        machines=options.nni,
        port=options.port,
        say=say,
        known=None if known is None else str(known),
        keep=keep,
    )


def search(
    options: SearchOptions, space: Space, words: Sequence[str], config: Mapping[str, Any], say: Say
) -> None:
    """Search by the chosen engine, until ``options.trials`` have ended.

    Args:
        space: what to search.
        words: options of a run, as on the command line.
        config: the same options, by group and name.
        say: told what happens.
    """
    engine = search_with_nni if options.engine == "nni" else search_with_optuna
    engine(options, space, words, config, say)
