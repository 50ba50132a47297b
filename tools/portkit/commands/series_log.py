"""`undo`, `redo` and `oplog`: every command that changes anything is a step that can be undone."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.commands.arguments import subcommand
from portkit.errors import BadInput, Busy, Exit
from portkit.face import console

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    undo = subcommand(
        subcommands,
        "undo",
        "put back, byte for byte, what the last command changed",
        "series.py undo",
        "series.py undo 3",
    )
    redo = subcommand(subcommands, "redo", "take back an undo", "series.py redo")
    for parser, back in ((undo, True), (redo, False)):
        parser.add_argument("steps", nargs="?", type=int, default=1, metavar="N", help="steps")
        parser.set_defaults(run=partial(_flip, root=root, back=back))
    oplog = subcommand(
        subcommands, "oplog", "the last commands that changed anything", "series.py oplog"
    )
    console.add_json(oplog)
    oplog.set_defaults(run=partial(_oplog, root=root))


def _flip(given: argparse.Namespace, root: Path, back: bool) -> int:
    if given.steps < 1:
        raise BadInput(f"{given.steps} is not a number of steps")
    with console.repository(root) as journal:
        if (root / ".port/refresh.json").exists():
            raise Busy(
                "a refresh to another release is under way",
                hint="end it first: tools/refresh.py --status",
            )
        for _ in range(given.steps):
            entry = journal.undo() if back else journal.redo()
            print(f"{'undone' if back else 'redone'}: {entry.message}")
    return Exit.OK


def _oplog(given: argparse.Namespace, root: Path) -> int:
    from portkit.change.journal import Journal  # noqa: PLC0415  (slow to import)

    console.settle(root)
    entries = Journal(root).log()
    if given.json:
        console.print_json("oplog", {"steps": [asdict(entry) for entry in entries]})
        return Exit.OK
    for entry in entries[::-1]:
        time = entry.time.replace("T", " ").removesuffix("+00:00")
        print(f"{entry.number:5}  {time}  {entry.message}{'  (undone)' if entry.undone else ''}")
    return Exit.OK
