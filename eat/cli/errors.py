"""Exit codes, and errors that end a command with one message."""

import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from typing import Any

from eat.system.plugins import blamed
from eat.system.processes import is_first_here, is_main
from eat.system.stops import Interrupted, TrainingError, number_of

PLAIN = warnings.formatwarning
FAILED, USAGE = 1, 2  # some work could not be done; the call itself was wrong


def one_message(error: Exception | str) -> str:
    """An error's text: the system's with the file first, and long words cut."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}...{word[0][-40:]}", text)


def _warning(prog: str, message: Warning | str, kind: type[Warning], *where: Any) -> str:
    """A warning in print: one of ours by what it says, without the place in the code."""
    if kind.__module__.startswith("eat."):
        return f"{prog}: warning: {message}\n"
    return PLAIN(message, kind, *where)


def guarded(run: Callable[[], int], prog: str) -> int:
    """Run a command; an error that the user can mend is one message and exit code 2."""
    warnings.formatwarning = partial(_warning, prog)
    if isinstance(sys.stdout, TextIOWrapper):  # no file name ends a command by its letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, TrainingError) as error:
        if is_first_here() or not isinstance(error, ValueError):  # wrong options are wrong in all
            sys.stderr.write(f"{prog}: error: {one_message(blamed(error) or error)}\n")
        return USAGE
    except Interrupted as stop:
        if is_main():
            sys.stderr.write(f"{prog}: {stop}\n")
        return stop.exit_code
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 128 + number_of(stop)
    except Exception as error:
        told = blamed(error)
        if told is None:
            raise
        sys.stderr.write(f"{prog}: error: {one_message(told)}\n")
        return USAGE
