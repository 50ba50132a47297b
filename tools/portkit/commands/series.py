"""`tools/series.py`: the daily work on the patch series.

Each `series_*` module holds some of the commands; its `add` describes them, each with the
function that runs it as `run`.  What is slow to import is imported by these functions.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from portkit.commands import (
    series_completion,
    series_edit,
    series_lint,
    series_log,
    series_show,
    series_stack,
    series_transfer,
)
from portkit.face import console

_MODULES = (
    series_stack,
    series_edit,
    series_show,
    series_lint,
    series_log,
    series_transfer,
    series_completion,
)


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Parse the arguments and run one subcommand on the repository at `root`."""
    whole = parser(root)
    if series_completion.ASKED in os.environ:
        series_completion.answer(whole, root)
    given = whole.parse_args(arguments)
    code: int = given.run(given)
    return code


def parser(root: Path) -> argparse.ArgumentParser:
    """The parser of every subcommand; what it parses has `run`, a function of itself."""
    whole = console.parser("Work on the patch series.", prog="series.py")
    subcommands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _MODULES:
        module.add(subcommands, root)
    return whole
