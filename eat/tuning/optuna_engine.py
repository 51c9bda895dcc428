"""Optuna: a trial's side of it, its storage, and the trials in that."""

import json
import math
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat.system.files import json_object, regular

if TYPE_CHECKING:
    import optuna

CARD = "search.json"  # tells in a search's folder whose it is
STATUSES = {"COMPLETE": "SUCCEEDED", "PRUNED": "EARLY_STOPPED", "FAIL": "FAILED"}  # as nni's


def read_card(folder: Path) -> dict[str, Any]:
    """What tells in a search's folder whose it is; empty if there is nothing.

    Raises:
        ValueError: naming the file; it is damaged.
    """
    card = folder / CARD
    try:
        return json_object(card.read_text()) if card.exists() else {}
    except ValueError as error:
        raise ValueError(
            f"{card}: damaged ({error}): mend it, or search anew with another --out"
        ) from error


def shown(storage: str) -> str:
    """A storage as messages name it: without the password of a URL."""
    return re.sub(r"(://[^/@]*:)[^/]*@", r"\1***@", storage)


@contextmanager
def speaking_to(storage: str) -> Iterator[None]:
    """Have whatever goes wrong with a storage end in one message, of Optuna's many kinds.

    Raises:
        ValueError: naming the storage.
    """
    try:
        yield
    except ImportError as error:
        if error.name == "optuna":
            raise ValueError(
                "a search by Optuna needs it: pip install 'eat-iaa[optuna]', or take --engine nni"
            ) from error
        raise ValueError(f"--storage {shown(storage)}: needs a package: {error}") from error
    except Exception as error:  # a journal raises anything that its lines lead to
        text = " ".join(shown(str(error)).split()) or repr(error)
        raise ValueError(
            f"--storage {shown(storage)}: {type(error).__name__}: {text:.300}; expected a journal "
            "file of Optuna, or the URL of a database such as sqlite:///FILE"
        ) from error


def open_storage(storage: str) -> "optuna.storages.BaseStorage":
    """Open a journal file, or the database of a URL."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in storage:
        return optuna.storages.RDBStorage(storage)
    path = Path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # Optuna would wait for a pipe, and append to any file
        with regular(path).open("rb") as file:
            if b'"op_code"' not in (file.read(64) or b'"op_code"'):
                raise ValueError("there, and no journal")
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(storage))


class OptunaTrial:
    """Optuna behind ``eat.tuning.trial.Engine``.

    Args:
        given: JSON of the storage, the study, the trial's id, its folder, and the epoch from which
            on it may be pruned, or null.

    Raises:
        ValueError: the storage cannot be read.
    """

    name = "Optuna"

    def __init__(self, given: str) -> None:
        facts = json.loads(given)
        self.folder: str | None = facts["folder"]
        self._storage = facts["storage"]
        with speaking_to(self._storage):
            import optuna

            start = facts["start_step"]
            median = optuna.pruners.MedianPruner(n_startup_trials=0, n_warmup_steps=start or 0)
            study = optuna.load_study(
                study_name=facts["study"],
                storage=open_storage(self._storage),
                pruner=median if start is not None else optuna.pruners.NopPruner(),
            )
            self._trial = optuna.trial.Trial(study, facts["trial"])
            self._earlier = {*study.trials[self._trial.number].intermediate_values}
        self._epochs = 0

    def parameters(self) -> Any:
        """What was drawn when the trial was first taken."""
        return self._trial.user_attrs["drawn"]

    def report(self, result: dict[str, float], *, final: bool) -> None:
        """Record a result. A trial below the median stops itself, as at a signal: its state saved.

        A trial that continues reports its earlier epochs once more; they count once.
        """
        value = result["default"]
        with speaking_to(self._storage):
            if final:
                self._trial.set_user_attr("final", value)
                return
            self._epochs += 1
            if self._epochs not in self._earlier:
                self._trial.report(value, self._epochs)
            if self._trial.should_prune():
                self._trial.set_user_attr("pruned", self._epochs)
                os.kill(os.getpid(), signal.SIGTERM)


optuna_trial = cache(OptunaTrial)  # by what it is given: it counts epochs


def read_trials(
    storage: str, name: str | None
) -> tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """A study's name, and its trials: a row of ``eat.tuning.results.Search`` and what was drawn.

    Args:
        storage: journal file or URL.
        name: of the study; None takes the only one.

    Raises:
        ValueError: the storage cannot be read, or has no such study.
    """
    if "://" not in storage and not Path(storage).is_file():
        raise ValueError(f"{storage}: no such file: expected a journal of Optuna")
    with speaking_to(storage):
        import optuna

        opened = open_storage(storage)
        names = sorted(study.study_name for study in opened.get_all_studies())
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise ValueError(
            f"{shown(storage)}: found the studies {', '.join(names) or 'none'}: expected --study "
            "with one of them"
        )
    with speaking_to(storage):
        study = optuna.load_study(study_name=name, storage=opened)
        trials = study.get_trials(deepcopy=False)[: study.user_attrs.get("trials")]
        return study.study_name, [_row(trial) for trial in trials]


def _row(trial: "optuna.trial.FrozenTrial") -> tuple[dict[str, Any], dict[str, Any]]:
    values, own = [*trial.intermediate_values.values()], trial.user_attrs
    status = STATUSES.get(trial.state.name, trial.state.name)
    row = {
        "number": trial.number,
        "trial": str(trial.number),
        "status": status,
        "final": trial.value if status == "SUCCEEDED" else math.nan,
        "best": max(values, default=math.nan),
        "last": values[-1] if values else math.nan,
        "epochs": len(values),
        "seconds": own.get("seconds", math.nan),
        "folder": own.get("folder", ""),
        "error": own.get("error", ""),
    }
    return row, own.get("drawn", trial.params)
