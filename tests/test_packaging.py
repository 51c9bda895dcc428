"""The wheel, as pip installs it where there is no checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from test_walls import EAT, imports

from eat.config.files import find_config

ROOT = EAT.parent
ONNX = "onnx", "onnxruntime", "onnxscript"
# What extras bring, and what brings us.
OF_EXTRAS = {"fastapi", "gradio", "mlflow", "nni", "pillow_heif", "pyiqa", "pytorch_grad_cam"}
OF_EXTRAS |= {"fsspec", "optuna", "pyarrow", "rawpy", "ray", "uvicorn", *ONNX}
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("eat", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def dependencies(site: Path) -> set[str]:
    """Names of the distributions that the wheel needs without any extra, as PyPI spells them."""
    needed = PathDistribution(next(site.glob("*.dist-info"))).requires or []
    names = (re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line)
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


def test_the_wheel_has_every_module_and_config_and_its_types_and_pages(site: Path) -> None:
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"eat"}
    modules = {path.relative_to(EAT) for path in EAT.rglob("*.py")}
    assert {path.relative_to(site / "eat") for path in site.rglob("*.py")} == modules
    assert sorted(path.relative_to(site / "eat") for path in site.rglob("*.yaml")) == CONFIGS
    assert (site / "eat" / "py.typed").is_file()
    assets = EAT / "pictures" / "assets"
    shipped = site / assets.relative_to(EAT.parent)
    assert {file.name for file in shipped.iterdir()} == {file.name for file in assets.iterdir()}


def test_an_installed_package_trains_by_the_name_of_a_config(site: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "eat", "train", "--config", "sample", "--print_config"]
    env = os.environ | {"PYTHONPATH": str(site)}
    printed = subprocess.check_output(argv, cwd=tmp_path, env=env, text=True)
    options = yaml.safe_load(printed)
    for group, values in yaml.safe_load((ROOT / "configs" / "sample.yaml").read_text()).items():
        assert {key: options[group][key] for key in values} == values


def test_every_package_that_is_imported_is_a_dependency(site: Path) -> None:
    homes = packages_distributions()
    missing = {
        (name, path.relative_to(EAT).as_posix())
        for path in EAT.rglob("*.py")
        for name in {module.partition(".")[0] for module in imports(path)}
        if name not in {*sys.stdlib_module_names, "eat", *OF_EXTRAS}
        and not {home.lower().replace("_", "-") for home in homes[name]} & dependencies(site)
    }
    assert missing == set()


def test_a_path_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("sample") == ROOT / "configs" / "sample.yaml"
    Path("sample").write_text("run: {seed: 7}")
    assert find_config("sample") == Path("sample")


def test_an_unknown_config_is_refused_with_the_names_of_the_shipped_ones() -> None:
    with pytest.raises(ValueError, match="no such file.*there are .*ava_paper, .*sample"):
        find_config("sampel")
