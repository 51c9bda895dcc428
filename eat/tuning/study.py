"""A search's record by Optuna, which processes and machines share.

A trial belongs to the folder that holds its run. Whoever has the lock ``.search`` in the run folder
carries the trial out, on this machine or another one that has the folder; the system takes the lock
back when that process ends. So a lock that is free tells of a trial to take up. Trials in the
record that belong to other folders, of machines with disks of their own, are left to those.
"""

import json
import os
import platform
import signal
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat.system.files import write_atomically
from eat.training.folder import PATIENCE, FolderLock, differing_options
from eat.tuning.optuna_engine import CARD, open_storage, read_card, shown, speaking_to
from eat.tuning.results import last_words
from eat.tuning.space import Space
from eat.tuning.trial import OPTUNA, PARENT

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"


@dataclass
class Taken:
    """A trial that this process carries out.

    Attributes:
        id: in the storage.
        number: from 0, in the study.
        folder: of its run.
        drawn: its parameters, under the names of the search space.
        earlier: epochs that it reported before it was taken.
        lock: held for as long as it is.
    """

    id: int
    number: int
    folder: Path
    drawn: dict[str, Any]
    earlier: int
    lock: FolderLock


class Study:
    """A search recorded by Optuna, and of its trials those whose runs are in ``out``.

    Args:
        out: folder of the search; made if it is not there.
        storage: journal file or URL; None takes a journal in ``out``.
        name: of the study.
        trials: how many it shall have, those of other folders included.
        start_step: epoch from which on a trial may be pruned; None for never.
        space: of the parameters.
        options: of a run, without those; a study is continued with the same ones only.

    Raises:
        ValueError: the storage cannot be opened, or it, or ``out``, holds another search.
    """

    def __init__(
        self,
        out: Path,
        storage: str | None,
        name: str,
        *,
        trials: int,
        start_step: int | None,
        space: Space,
        options: Mapping[str, Any],
    ) -> None:
        self.out, self.name, self.trials, self.start_step = out, name, trials, start_step
        self.space = space
        self.storage = storage or str(out / JOURNAL)
        if "://" not in self.storage:
            self.storage = str(Path(self.storage).expanduser().resolve())
        out.mkdir(parents=True, exist_ok=True)
        with closing(FolderLock(out, PATIENCE)):
            card = self._read_card()
            self.place = card["place"]
            with speaking_to(self.storage):
                import optuna

                self._study = optuna.create_study(
                    study_name=name,
                    storage=open_storage(self.storage),
                    direction="maximize",
                    load_if_exists=True,
                    sampler=optuna.samplers.TPESampler(constant_liar=True),  # for many at once
                )
                known = self._study.user_attrs.get("search")
                if known is None and not self._study.trials:
                    known = {"space": space.rules, "options": dict(options)}
                    self._study.set_user_attr("search", known)
            self._check_same(known, options)
            with speaking_to(self.storage):
                if self._study.user_attrs.get("trials") != trials:
                    self._study.set_user_attr("trials", trials)
            write_atomically(out / CARD, (json.dumps(card, indent=2) + "\n").encode())

    def _read_card(self) -> dict[str, Any]:
        """The facts that tell in ``out`` whose it is, with a name of the folder itself."""
        card = self.out / CARD
        facts = {"engine": "optuna", "study": self.name, "storage": shown(self.storage)}
        if not (found := read_card(self.out)):
            return facts | {"place": uuid.uuid4().hex}
        differing = [key for key, value in facts.items() if found.get(key) != value]
        if differing or not isinstance(found.get("place"), str):
            raise ValueError(
                f"{card} tells of another search ({', '.join(differing) or 'place'} differs): take "
                "the same options, or another --out"
            )
        return found

    def _check_same(self, known: Mapping[str, Any] | None, options: Mapping[str, Any]) -> None:
        if known is None:
            raise ValueError(
                f"{self.name}: a study of that name, not of eat search, is in "
                f"{shown(self.storage)}: give another --name"
            )
        differing = differing_options(known["options"], dict(options))
        if known["space"] != self.space.rules:
            differing.append("--space")
        if differing:
            raise ValueError(
                f"{self.out} holds a search with other options: {', '.join(differing)}; take the "
                "same ones to continue it, or another --out"
            )

    def _trials(self) -> list["optuna.trial.FrozenTrial"]:
        # Folders that make the last trial at once make one too many, which nobody starts.
        return self._study.get_trials(deepcopy=False)[: self.trials]

    def take(self) -> Taken | None:
        """Take up a trial that nobody carries out any more, or else a new one; None without any."""
        with closing(FolderLock(self.out, PATIENCE)), speaking_to(self.storage):
            taken = self._take_left()
            if taken is None and len(self._trials()) < self.trials:
                from optuna.trial import TrialState, create_trial

                # Whose it is stands in the record from the first moment on.
                new = create_trial(state=TrialState.RUNNING, user_attrs={"place": self.place})
                self._study.add_trial(new)
                taken = self._take_left()
            return taken

    def _take_left(self) -> Taken | None:
        import optuna

        for trial in self._trials():
            state, place = trial.state, trial.user_attrs.get("place")
            if state != optuna.trial.TrialState.RUNNING or place != self.place:
                continue
            folder = self.out / f"trial-{trial.number:04}"
            folder.mkdir(exist_ok=True)
            try:
                lock = FolderLock(folder, name=".search")
            except FileExistsError:
                continue
            live = optuna.trial.Trial(self._study, trial._trial_id)
            if "drawn" not in trial.user_attrs:
                live.set_user_attr("drawn", self.space.draw(live))
            live.set_user_attr("folder", str(folder.resolve()))
            live.set_user_attr("machine", platform.node())
            drawn, earlier = live.user_attrs["drawn"], len(trial.intermediate_values)
            return Taken(trial._trial_id, trial.number, folder, drawn, earlier, lock)
        return None

    def environment(self, taken: Taken) -> dict[str, str]:
        """Variables that tell a process which trial it is."""
        facts = {
            "storage": self.storage,
            "study": self.name,
            "trial": taken.id,
            "folder": str(taken.folder),
            "start_step": self.start_step,
        }
        return {OPTUNA: json.dumps(facts), PARENT: str(os.getpid())}

    def settle(self, taken: Taken, code: int, seconds: float, *, stopped: bool) -> str:
        """Record how a trial's process has ended, let go of the trial, and say it in words.

        Args:
            code: of its exit; below zero for a signal.
            seconds: that it ran.
            stopped: by us; a trial without a result is then left to be taken up again.
        """
        with closing(taken.lock), speaking_to(self.storage):
            import optuna

            state = optuna.trial.TrialState
            trial = optuna.trial.Trial(self._study, taken.id)
            found = trial.user_attrs
            trial.set_user_attr("seconds", round(found.get("seconds", 0.0) + seconds, 3))
            if code == 0 and "final" in found:
                self._study.tell(trial, found["final"])
                return f"{found['final']:.4f}"
            if "pruned" in found:
                self._study.tell(trial, state=state.PRUNED)
                return f"pruned after epoch {found['pruned']}"
            if stopped:
                return "stopped, its state saved"
            reason = last_words(taken.folder)
            if code < 0:
                reason = f"killed by {signal.Signals(-code).name}; {reason}".rstrip("; ")
            trial.set_user_attr("error", reason or f"exit code {code}, and no result")
            self._study.tell(trial, state=state.FAIL)
            return f"failed: {reason or f'exit code {code}'}"
