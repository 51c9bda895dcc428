"""Options of version 0.1 under their present names, so that its runs load and continue."""

from typing import Any

Options = dict[str, dict[str, Any]]
# A fault's old choice between stopping and going on; its old limit, and that limit's default.
WORDS = ("fail", "replace", "skip", "restart")  # those choices
BUDGETS = {"images": ("max_images", 10), "steps": ("max_steps", 10), "workers": ("max_workers", 3)}

# Options that a later version added, and what runs did before, if that is not their default.
ADDED: Options = {"data": {"colours": "as_stored"}}


def is_legacy(options: dict[str, Any]) -> bool:
    """Whether options hold a name or a value that version 0.1 alone had."""
    run, faults = options.get("run") or {}, options.get("faults") or {}
    return "passes" in run or any(
        limit in faults or faults.get(kind) in WORDS for kind, (limit, _) in BUDGETS.items()
    )


def translate(options: dict[str, Any]) -> Options:
    """Options as this version names them; those of version 0.1 keep their meaning.

    What an old run did not set keeps its old default: the loss of the authors' code, weight
    decay of all parameters, and one learning rate. Present options are returned as they are.

    Args:
        options: nested plain values, as in a run's ``config.yaml`` or a checkpoint.
    """
    if not is_legacy(options):
        return options
    new: Options = {group: dict(values or {}) for group, values in options.items()}
    run, optim = new.setdefault("run", {}), new.setdefault("optim", {})
    run["accumulation_steps"] = run.pop("passes", 1)
    optim.setdefault("decay", "all")
    optim.setdefault("interest_lr", None)
    optim["loss"] = optim.get("loss") or "released"
    model = new.setdefault("model", {})
    model["name"] = model.get("name") or "eat_base"
    faults = new.setdefault("faults", {})
    for kind, (limit, default) in BUDGETS.items():
        budget = faults.pop(limit, default)
        if faults.get(kind, "fail") in WORDS:
            faults[kind] = 0 if faults.get(kind, "fail") == "fail" else budget
    return new
