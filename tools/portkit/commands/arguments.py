"""What the subcommands of `tools/series.py` share: their help and their common arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subcommands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

PATCH_HELP = "a patch: its name, the file it changes, or the end of either"


def subcommand(
    subcommands: Subcommands,
    name: str,
    summary: str,
    *examples: str,
    description: str = "",
) -> argparse.ArgumentParser:
    """A subcommand whose `--help` ends with `examples`, each without `tools/`."""
    lines = [f"  tools/{example}" for example in examples]
    return subcommands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n".join(["example:" if len(lines) == 1 else "examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_patch(arguments: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """PATCH, which completion knows the names for."""
    arguments.add_argument("patch", nargs=nargs, metavar="PATCH", help=PATCH_HELP)


def add_work(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument(
        "--work", type=Path, metavar="DIR", help="the work tree (default: work/tree)"
    )
