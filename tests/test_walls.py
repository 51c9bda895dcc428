"""The walls of the house: which room may import which, and what stands at its top."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

EAT = Path(__file__).parents[1] / "eat"
MODULES = sorted(EAT.rglob("*.py"))

# A room imports itself and what stands to the right of it, never its own neighbours on a level.
DIRECTION = (
    "__init__, __main__ -> cli -> experiments, demo -> tuning, pictures, bulk, sharing"
    " -> training, personal -> evaluation, scoring -> checkpoint -> sample -> data, models"
    " -> config, system -> version"
)
LEVEL = {
    room: number
    for number, rooms in enumerate(DIRECTION.split(" -> "))
    for room in rooms.split(", ")
}
# einops is not: its import takes 10 ms, PyTorch's a hundred times as long.
HEAVY = {
    "accelerate",
    "gradio",
    "fsspec",
    "matplotlib",
    "mlflow",
    "nni",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "pyarrow",
    "ray",
    "scipy",
    "tensorboardX",
    "timm",
    "torchvision",
    "wandb",
}


def room_of(path: Path) -> str:
    """``models`` for ``eat/models/weights.py``, ``version`` for ``eat/version.py``."""
    return path.relative_to(EAT).with_suffix("").parts[0]


ROOMS = {room_of(path) for path in MODULES}


def imported(node: ast.AST, path: Path) -> Iterator[str]:
    """Full names that one node imports; of ``from a import b`` both ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            package = path.relative_to(EAT.parent).parts[: -node.level]
            module = ".".join([*package, *filter(None, [module])])
        if module != "eat":  # else it is the names that count
            yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
        yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def imports(path: Path) -> set[str]:
    """Everything that a file imports: at its top, in functions, and for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in imported(node, path)}


def imports_at_start(path: Path) -> set[str]:
    """What is imported as soon as the file itself is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[ast.AST] = list(tree.body)
    found = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        found |= set(imported(node, path))
        nodes += ast.iter_child_nodes(node)
    return found


def file_of(module: str) -> Path | None:
    """The source of a module of ours."""
    path = EAT.parent.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def users(*packages: str) -> set[str]:
    """Rooms that import one of these packages, and main_nni."""
    files: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in MODULES:
        files[room_of(path)] |= imports(path)
    files["main_nni"] = imports(EAT.parent / "main_nni.py")
    return {
        room for room, names in files.items() if {n.partition(".")[0] for n in names} & {*packages}
    }


def test_the_top_holds_what_a_user_touches_and_rooms() -> None:
    assert ROOMS == set(LEVEL)
    files = {path.name for path in EAT.iterdir() if path.is_file()}
    touched = {"__init__.py", "__main__.py", "version.py"}
    assert files == touched | {"py.typed"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(EAT).as_posix())
def test_imports_go_down_the_house(path: Path) -> None:
    here = room_of(path)
    names = [name.split(".") for name in imports(path) if name.partition(".")[0] == "eat"]
    # What is no module is a name of the package itself: eat.Scorer.
    rooms = {name[1] if len(name) > 1 and name[1] in ROOMS else "__init__" for name in names}
    assert {room for room in rooms if LEVEL[room] <= LEVEL[here]} <= {here}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(EAT).as_posix())
def test_a_file_has_one_subject_that_its_name_and_docstring_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    assert not {"utils", "util", "helpers", "common", "misc"} & {*path.with_suffix("").parts}
    assert path.name == "version.py" or ast.get_docstring(ast.parse(text))


def test_test_files_of_all_rooms_have_names_of_their_own() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted({*names})  # pytest imports no second file of a name


def test_only_tuning_knows_engines_of_searches() -> None:
    assert users("nni") == users("optuna") == {"tuning"}


def test_only_bulk_knows_ray() -> None:
    assert users("ray") <= {"bulk"}


def test_only_the_demo_knows_gradio() -> None:
    assert users("gradio", "gradio_client", "uvicorn", "fastapi") == {"demo"}


def test_only_the_command_line_and_the_single_run_entry_parse_arguments() -> None:
    assert users("argparse", "jsonargparse") <= {"cli", "main_nni"}


def test_losses_and_metrics_know_nothing_of_ours() -> None:
    for name in ("training/losses.py", "evaluation/metrics.py"):
        assert not {module for module in imports(EAT / name) if module.startswith("eat.")}


def test_scoring_starts_without_heavy_packages() -> None:
    waiting, seen = ["eat.cli", "eat.scoring", "eat.checkpoint"], set[str]()
    while waiting:
        module = waiting.pop()
        path = file_of(module)
        if path is None or module in seen:
            continue
        seen.add(module)
        names = imports_at_start(path)
        assert not HEAVY & {name.partition(".")[0] for name in names}, module
        # A module's packages are imported before it.
        waiting += [n.rsplit(".", depth)[0] for n in names for depth in range(n.count(".") + 1)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("def f():\n    from eat.data import cache", "eat.data.cache"),
        ("if TYPE_CHECKING:\n    import eat.cli as c", "eat.cli"),
        ("from eat import Scorer", "eat.Scorer"),
        ("from ..data.cache import make_cache", "eat.data.cache"),
        ("from . import weights", "eat.models"),
        ('importlib.import_module("eat.cli")', "eat.cli"),
    ],
)
def test_no_form_of_import_goes_unseen(line: str, name: str) -> None:
    found = [imported(node, EAT / "models" / "new.py") for node in ast.walk(ast.parse(line))]
    assert name in {module for modules in found for module in modules}
