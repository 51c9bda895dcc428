"""What all parts of the page share: how its events run, and how errors are told."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from eat.demo.fragments import framed
from eat.system.stops import TrainingError

F = TypeVar("F", bound=Callable[..., Any])

# One at a time works with the model, whatever is asked for. Nothing is an interface for programs.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUEUED = PRIVATE | {"concurrency_id": "model", "concurrency_limit": 1}
AT_ONCE = PRIVATE | {"queue": False, "show_progress": "hidden"}


def guarded(act: F) -> F:
    """Have an error that the visitor can mend shown in the page, without a traceback."""

    @wraps(act)
    def acted(*given: Any, **more: Any) -> Any:
        try:
            return act(*given, **more)
        except (ValueError, OSError, TrainingError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    return acted  # type: ignore[return-value]


def picture(title: str) -> gr.Image:
    """A picture to look at, under its title."""
    gr.HTML(framed(f"<h2>{title}</h2>"))
    return gr.Image(
        label=title,
        show_label=False,
        interactive=False,
        buttons=["download", "fullscreen"],
    )


def gallery(label: str, *, columns: int, height: int) -> gr.Gallery:
    """Small pictures, one of which may be chosen."""
    return gr.Gallery(
        label=label,
        columns=columns,
        height=height,
        object_fit="contain",
        interactive=False,
        allow_preview=False,
        buttons=[],
    )
