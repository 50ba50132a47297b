"""What a person sees: the stages of the start, the addresses, and one sentence for an error."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TextIO

from .errors import LauncherError

GIB = 1 << 30
STAGES = (
    (re.compile(r"Starting to load model (\S+?)(?:\.\.\.)?(?: |$)"), "loading   {0}"),
    (re.compile(r"Loading weights took ([\d.]+) seconds"), "weights   loaded in {0} s"),
    (re.compile(r"Model loading took ([\d.]+ GiB)"), "weights   {0} of memory"),
    (re.compile(r"Available KV cache memory: ([\d.]+ GiB)"), "KV cache  {0} available"),
    (re.compile(r"Graph capturing finished in ([\d.]+ secs?)"), "graphs    captured in {0}"),
)
"""Lines of vLLM's own log that tell a stage of the start, and how we say it."""


class Console:
    """Lines for a person on standard error, each with the seconds since the start."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._begun = time.monotonic()

    def line(self, text: str) -> None:
        """One line; what the terminal's encoding lacks is replaced."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding)
        print(text, file=self.stream, flush=True)

    def stage(self, text: str) -> None:
        self.line(f"[{time.monotonic() - self._begun:5.1f} s] {text}")

    def error(self, error: LauncherError) -> None:
        self.line(f"error: {error.message}")
        if error.hint:
            self.line(f"hint: {error.hint}")

    def ready(self, url: str, tokens: int, size: int, longest: int) -> None:
        """The server answers: how much it can hold, and where it is."""
        if tokens:
            at_once = f", {tokens / longest:.1f} requests of {longest:,} tokens at once"
            room = f"{tokens:,} tokens in {size / GIB:.2f} GiB"
            self.stage(f"KV cache  {room}{at_once if longest else ''}")
        self.stage("ready")
        self.line(f"\n  open  {url}/\n  API   {url}/v1\n  stop  Ctrl-C\n")

    def open_to_others(self, host: str) -> None:
        """The loud warning for a server that others can reach and anybody may use."""
        self.line(
            "*"
            * 78
            + f"\nWARNING: {host} can be reached from other machines and no --api-key is set:\n"
            "anybody who reaches this port can use the model and read what the server\n"
            "says about itself.  Set --api-key, or leave --host out to serve this machine.\n"
            + "*"
            * 78
        )


class Stages(logging.Handler):
    """Shows the stages among vLLM's log messages."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        for pattern, text in STAGES:
            if found := pattern.search(message):
                self._console.stage(text.format(*found.groups()))


SPEAKERS = ("vllm.v1", "vllm.model_executor.model_loader")
"""The loggers among whose INFO messages the stages are."""


@contextlib.contextmanager
def stages_shown(console: Console) -> Iterator[None]:
    """Show the stages of the start while vLLM's own log is kept to warnings.

    The handlers of vLLM's root logger stay at the level of `VLLM_LOGGING_LEVEL`.
    """
    handler = Stages(console)
    loggers = [logging.getLogger(name) for name in SPEAKERS]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)
            logger.removeHandler(handler)


def quiet() -> None:
    """Keep vLLM's log to warnings unless the user chose a level; before vLLM is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    # Said because the engine is in this process, which is what the launcher is for.
    logging.getLogger("vllm.engine.arg_utils").addFilter(
        lambda record: not str(record.msg).startswith("The global random seed is set")
    )
