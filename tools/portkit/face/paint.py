"""Colours on a terminal that wants them; plain bytes everywhere else."""

from __future__ import annotations

import argparse
import os
import sys

from portkit.face import console

_WHEN = ("auto", "always", "never")
_BOLD, _DIM, _OFF = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def add_colour(arguments: argparse.ArgumentParser) -> None:
    """The option every command with colours has."""
    arguments.add_argument(
        "--color", choices=_WHEN, default="auto", metavar="WHEN",
        help="auto (on a terminal, unless NO_COLOR is set), always or never",
    )  # fmt: skip


class Paint:
    """Writes to standard output, coloured or as it is."""

    def __init__(self, when: str) -> None:
        self.coloured = when == "always" or (when == "auto" and _terminal())
        if self.coloured and os.name == "nt":
            os.system("")

    def diff(self, data: bytes) -> None:
        """Write a patch or a diff."""
        if not self.coloured:
            console.write_bytes(data)
            return
        # Imported here: pipes should not pay for it.
        from pygments import highlight  # noqa: PLC0415
        from pygments.formatters import TerminalFormatter  # noqa: PLC0415
        from pygments.lexers import DiffLexer  # noqa: PLC0415

        text = data.decode("utf-8", "surrogateescape")
        lexer = DiffLexer(stripnl=False, ensurenl=False)
        self._write(highlight(text, lexer, TerminalFormatter()))

    def text(self, data: bytes) -> None:
        """Write bytes of a file, which a console gets in its own encoding."""
        self._write(data.decode("utf-8", "surrogateescape"))

    def line(self, data: bytes = b"") -> None:
        """Write one line of a file."""
        self.text(data.rstrip(b"\n") + b"\n")

    def bold(self, text: str) -> str:
        return f"{_BOLD}{text}{_OFF}" if self.coloured else text

    def dim(self, text: str) -> str:
        return f"{_DIM}{text}{_OFF}" if self.coloured else text

    def _write(self, text: str) -> None:
        # A console takes text in its own encoding, a file the bytes that were.
        if sys.stdout.isatty():
            sys.stdout.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        else:
            console.write_bytes(text.encode("utf-8", "surrogateescape"))


def _terminal() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()
