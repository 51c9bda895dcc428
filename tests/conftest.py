"""Shared by all tests: a small sample data set, and one short run on it."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from eat.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from eat.sample.make import make_sample

# A shell has its background jobs ignore Ctrl-C, and Python and its children leave it at that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Small models gain nothing from more threads, and lose much where cores are busy. The variable is
# for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared"
SMALL = {"dims": [16, 32, 32, 64], "heads": [1, 1, 2, 4], "stages": ["L", "S", "LE", "E"]}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin each worker's share with some of the long tests, so that workers end at one time.

    pytest-xdist deals out contiguous shares, and a worker that is done takes from another's end.
    With ``long(together=True)`` one worker has a file's tests, and makes what they share once.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    long: dict[object, list[pytest.Item]] = {}
    short: list[pytest.Item] = []
    for item in items:
        if (mark := item.get_closest_marker("long")) is None:
            short.append(item)
        else:
            long.setdefault(item.path if mark.kwargs.get("together") else item, []).append(item)
    size = -(-len(items) // workers)
    items.clear()
    for worker in range(workers):
        own = [item for group in [*long.values()][worker::workers] for item in group]
        items += own
        count = size - len(own)
        items += short[:count]
        del short[:count]


@contextmanager
def full_disk(room: int = 1000) -> Iterator[None]:
    """A disk on which no file can grow beyond ``room`` bytes."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 16 test images of 96 pixels."""
    return make_sample(tmp_path_factory.mktemp("data") / "sample", train=48, test=16, size=96)


def small_run(sample: Path, folder: Path) -> TrainConfig:
    """Two epochs of a very small model on a sample, in the main process."""
    return TrainConfig(
        data=DataConfig(
            name="sample", labels=str(sample), images=str(sample / "images"), size=64, workers=0
        ),
        model=ModelConfig(name="eat_nano", settings=SMALL),
        optim=OptimConfig(epochs=2, batch_size=16, lr=1e-3),
        run=RunConfig(folder=str(folder), device="cpu"),
    )


def rows_on(sample: Path) -> Callable[[Mapping[str, Any]], TrainConfig]:
    """The options of an experiment's row: its settings over those of one epoch of ``small_run``."""

    def configure(row: Mapping[str, Any]) -> TrainConfig:
        config = small_run(sample, Path("unused"))
        config.optim.epochs = 1
        given = {name.removeprefix("model.settings."): value for name, value in row.items()}
        config.model.settings = config.model.settings | given
        return config

    return configure


@pytest.fixture
def folder(sample: Path, tmp_path: Path) -> Path:
    """Five photographs, a broken one and a text file."""
    images = sorted((sample / "images").iterdir())[:5]
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for image in images[:4]:
        shutil.copy(image, tmp_path / "photos")
    shutil.copy(images[4], tmp_path / "photos" / "more")
    (tmp_path / "photos" / "broken.jpg").write_bytes(images[0].read_bytes()[:500])
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"


@pytest.fixture
def config(sample: Path, tmp_path: Path) -> TrainConfig:
    """Options of a short run into a fresh folder."""
    return small_run(sample, tmp_path / "run")


@pytest.fixture(scope="session")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run of two epochs."""
    from eat.training.trainer import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    train(small_run(sample, folder))
    return folder


@pytest.fixture(scope="session")
def checkpoint(run: Path) -> Path:
    """The best checkpoint of that run."""
    return run / "checkpoints" / "best.safetensors"


def shared_folder(name: str) -> Path:
    """A folder of published material beside the repository; skips the test where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"the published {name} are not on this machine")
    return SHARED / name


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU; with ``EAT_GPU=cpu`` the CPU stands in for it, to try the tests."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("EAT_GPU") == "cpu":
        return torch.device("cpu")
    pytest.skip("needs a GPU")


@pytest.fixture
def cuda(gpu: torch.device) -> torch.device:
    """The GPU itself."""
    if gpu.type != "cuda":
        pytest.skip("needs a GPU: nothing stands in for it here")
    return gpu


@pytest.fixture(scope="session")
def labels() -> Path:
    """The published label files."""
    return shared_folder("labels")


@pytest.fixture(scope="session")
def photos() -> Path:
    """Graded photographs with labels in four formats."""
    return shared_folder("photos")
