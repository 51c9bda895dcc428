"""The demo's server: on loopback unless told otherwise, and silent to the rest of the world."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any
from warnings import simplefilter

from PIL.Image import DecompressionBombWarning

from eat.checkpoint import read_info
from eat.config.demo import DemoOptions
from eat.demo.fragments import STYLE
from eat.demo.gate import Gate
from eat.demo.photographs import Studio
from eat.scoring import Scorer
from eat.system.schema import check_range

# Gradio and the hub's client, which it brings, read these when they are imported.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
FONTS, CODE = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # the visitor's own
LIMITS = ("files", "megabytes", "megapixels")
SERVED = {*LIMITS, "host", "port"}  # options that are none of the model's
GRACE = 1  # seconds that requests under way have at the end


def serve(options: DemoOptions) -> None:
    """Serve the page until a signal ends it. What was uploaded is then deleted.

    Prints the page's address when it can be opened.

    Raises:
        ValueError: gradio is not installed, an option is out of range, or as ``Scorer``.
        WeightsError: as ``Scorer``.
        OSError: the host and port cannot be had.
        KeyboardInterrupt: by SIGINT or SIGTERM, with its number.
    """
    check_range("port", options.port, 0, 2**16 - 1)
    for name in LIMITS:
        check_range(name, getattr(options, name), 1, 10_000)
    simplefilter("ignore", DecompressionBombWarning)  # large ones are refused by our own limit
    with ended_by_signals(), listening(options.host, options.port or 0) as listener:
        with TemporaryDirectory(prefix="eat-demo-", ignore_cleanup_errors=True) as name:
            folder = Path(name).resolve()
            start_gradio(folder)
            run(Studio(load(options), folder, options), listener, options.host)


def start_gradio(folder: Path) -> None:
    """Import gradio, which puts what is uploaded into a folder; a ValueError if it is not there."""
    os.environ.update(SILENT, GRADIO_TEMP_DIR=str(folder))
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError(f"the page needs gradio ({error}): pip install 'eat-iaa[demo]'") from error


def load(options: DemoOptions) -> Scorer:
    """The model, with percentiles if its checkpoint knows them."""
    given = {name: value for name, value in asdict(options).items() if name not in SERVED}
    return Scorer(**given, percentile=bool(read_info(options.checkpoint).score_quantiles))


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound, before any model is loaded.

    Raises:
        OSError: naming the host and port.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise OSError(
            f"--host {host} --port {port}: {error.strerror}; --port null takes a free port"
        ) from error
    with listener:
        yield listener


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM end the work as SIGINT does, so that nothing is left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(studio: Studio, listener: socket.socket, host: str) -> None:
    """Serve a studio's page on a bound socket."""
    import uvicorn

    app = Gate(make_app(studio), studio.folder, host)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_level="error",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )
    # A second Ctrl-C cuts the application short, which is no fault of it.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "KeyboardInterrupt" not in record.getMessage()
    )
    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    print(f"http://{shown}:{port}/", flush=True)
    if not ip_address(address).is_loopback:
        sys.stderr.write("eat demo: whoever can reach it has the page, without a password\n")
    server.run(sockets=[listener])


def make_app(studio: Studio) -> Any:
    """Gradio's application of a studio's page."""
    import gradio as gr
    from fastapi import FastAPI

    from eat.demo.page import make_page
    from eat.demo.taste import KEYS

    page = make_page(studio)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        "/",
        theme=gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=CODE),
        css=STYLE,
        head=KEYS,
        footer_links=[],
        max_file_size=int(studio.options.megabytes * 1e6),
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    page.has_launched = True  # else Gradio takes paths from outside for a developer's own
    return app
