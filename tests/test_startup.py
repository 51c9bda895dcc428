"""What the command line and ``import eat`` load before there is work to do."""

import platform
import re
import subprocess
import sys
from dataclasses import fields

import pytest

import eat
from eat.cli import COMMANDS, main

HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "pandas",
    "scipy",
    "matplotlib",
    "mlflow",
    "accelerate",
    "gradio",
    "nni",
    "onnx",
    "onnxruntime",
    "tensorboardX",
    "wandb",
)


def loaded(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has imported after running some code."""
    code += f"\nimport sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def call(*argv: str) -> str:
    """Code that runs a command and survives its exit."""
    return f"""
from eat.cli import main
try:
    main({list(argv)!r})
except SystemExit:
    pass
"""


def test_no_help_loads_what_only_work_needs() -> None:
    calls = [call("--help"), *(call(command, "--help") for command in ["train", *COMMANDS])]
    assert loaded("import eat\n" + "\n".join(calls)) == set()


def test_a_misspelt_option_is_refused_before_anything_is_loaded() -> None:
    assert loaded(call("score", "photo.jpg", "--chekpoint", "x")) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    entries = re.split(r"\n  --", capsys.readouterr().out)[1:]
    found = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
    for option in fields(COMMANDS[name].options):
        assert re.search(r"[a-z]+ [a-z]+.*type: ", found[option.name]), option.name


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"eat {eat.__version__}\n"


def test_scoring_loads_nothing_that_only_training_needs() -> None:
    assert loaded("import eat.scoring") == {"torch"}


def test_the_package_gives_its_names_when_they_are_used() -> None:
    assert set(eat.__all__) <= set(dir(eat))
    for name in eat.__all__:
        assert getattr(eat, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = eat.create_modle


def test_a_reader_that_has_enough_is_no_error() -> None:
    code = "import sys; from eat.cli import guarded; sys.exit(guarded(lambda: print('x' * 9), 'x'))"
    pipe = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pipe.stdout.close()
    assert (pipe.stderr.read(), pipe.wait()) == ("", 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_command_keeps_the_memory_that_it_frees_for_its_next_tensors() -> None:
    code = """
import resource, sys
from eat.cli import main
if sys.argv[1] == "eat":
    main(["--help"])
import torch
for _ in range(20):  # the first ones still look for room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**26, dtype=torch.uint8).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        who: int(subprocess.check_output([sys.executable, "-c", code, who], text=True).split()[-1])
        for who in ("eat", "none")
    }
    if faults["none"] < 1000:
        pytest.skip(f"this system faults in {faults['none']} pages for 64 MiB, whoever asks")
    assert faults["eat"] < 100
