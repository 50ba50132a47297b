"""undo redo oplog."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(subcommands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    """Add the commands of this module."""
