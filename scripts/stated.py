"""Results that a document states: a CSV with how each came about, and its table.

Used by the other scripts.
"""

import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from eat.system.provenance import describe


def state(measured: pd.DataFrame, out: Path, title: str, settings: dict[str, Any]) -> None:
    """Write and print what was measured.

    Args:
        measured: a row each, of what the document shows.
        out: folder, which gives FOLDER.csv and FOLDER.md in it their name.
        title: of the latter.
        settings: "seed" first, and what else the numbers depend on.
    """
    about = describe()
    found = settings | {
        "command": shlex.join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": about["git"],
        "machine": (about["gpus"] or [about["processor"]])[0],
        "threads": about["threads"],
        "python": platform.python_version(),
        "torch": about["packages"]["torch"],
    }
    out.mkdir(parents=True, exist_ok=True)
    measured.assign(**found).to_csv(out / f"{out.name}.csv", index=False)
    rows = measured.astype(str).to_numpy().tolist()
    lines = [[*measured], ["---"] * len(measured.columns), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    run = ", ".join(f"{name} {value}" for name, value in found.items())
    (out / f"{out.name}.md").write_text(f"# {title}\n\n{run}\n\n{text}", encoding="utf-8")
    print(text)
