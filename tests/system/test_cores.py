"""Threads beside those of other processes, in each entry: set before PyTorch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eat.system import cores

ROOT = Path(__file__).parents[2]
MAIN = "import sys; from eat.cli import main; sys.exit(main())"  # as the script eat has it
ENTRIES = {
    "main_nni.py": ["main_nni.py", "--config", "sample"],
    "python -m eat": ["-m", "eat", "score", "photo.jpg", "--checkpoint", "best.safetensors"],
    "eat": ["-c", MAIN, "score", "photo.jpg", "--checkpoint", "best.safetensors"],
    "eat train": ["-c", MAIN, "train", "--config", "sample"],
    "eat reproduce": ["-c", MAIN, "reproduce", "table5", "--quick", "true"],
}
# In the place of PyTorch: what its OpenMP would read.
TORCH = """
import os
names = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"
print([os.environ.get(name) for name in names], flush=True)
os._exit(0)
"""


def read_by_torch(entry: str, folder: Path, **given: str) -> str:
    """OpenMP's variables at the moment at which an entry imports PyTorch."""
    (folder / "stub" / "torch").mkdir(parents=True)
    (folder / "stub" / "torch" / "__init__.py").write_text(TORCH)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    own["PYTHONPATH"] = f"{folder / 'stub'}{os.pathsep}{ROOT}"
    words = [sys.executable, *ENTRIES[entry]]
    return subprocess.check_output(words, cwd=ROOT, env=own | given, text=True).strip()


@pytest.mark.parametrize("entry", ENTRIES)
def test_waiting_threads_soon_sleep_in_each_entry(entry: str, tmp_path: Path) -> None:
    assert read_by_torch(entry, tmp_path) == "['5000', None, None]"


@pytest.mark.parametrize("entry", ["main_nni.py", "python -m eat"])
@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"}, "[None, 'ACTIVE', '3']"),
        ({"GOMP_SPINCOUNT": "7"}, "['7', None, None]"),
    ],
)
def test_what_a_user_has_set_stays(
    entry: str, given: dict[str, str], read: str, tmp_path: Path
) -> None:
    assert read_by_torch(entry, tmp_path, **given) == read


@pytest.mark.parametrize(
    ("processes", "threads"), [(1, "8"), (2, "4"), (3, "2"), (8, "1"), (20, "1")]
)
def test_processes_share_the_cores(
    processes: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    cores.share_cores(processes)
    assert os.environ["OMP_NUM_THREADS"] == threads
    cores.share_cores(1)
    assert os.environ["OMP_NUM_THREADS"] == threads
