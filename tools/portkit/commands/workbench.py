"""What the commands that change the stack or the series share: the lock, the stack, one step."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.commands.arguments import add_work
from portkit.face import console

if TYPE_CHECKING:
    from portkit.change.journal import Journal
    from portkit.stack.stack import Change, Stack

AUTHOR = "vllm-windows-build maintainers"


@dataclass(frozen=True)
class Bench:
    """The locked repository and its stack."""

    journal: Journal
    stack: Stack
    quiet: bool = False

    def do(self, change: Change, message: str) -> None:
        """Make one step of `change`, and say what was pushed and popped."""
        self.journal.switch(change.files, message=message, expect=change.expect)
        if self.quiet:
            return
        for name in change.popped:
            print(f"popped  {name}")
        for name in change.pushed:
            print(f"pushed  {name}")


def add_bench(arguments: argparse.ArgumentParser) -> None:
    """The options of every command that works in a work tree."""
    add_work(arguments)
    console.add_upstream(arguments)


@contextmanager
def bench(given: argparse.Namespace, root: Path) -> Iterator[Bench]:
    """The bench for a command with the options of `add_bench`; it holds the lock."""
    from portkit.stack.stack import Stack  # noqa: PLC0415  (slow to import)

    with console.repository(root) as journal:
        work = _work(given)
        stack = Stack.load(root, work, upstream=given.upstream, progress=console.progress)
        with stack.pristine:
            yield Bench(journal, stack, quiet=getattr(given, "json", False))


@contextmanager
def reading(given: argparse.Namespace, root: Path) -> Iterator[Stack]:
    """The stack for a command that only reads."""
    from portkit.stack.stack import Stack  # noqa: PLC0415

    console.settle(root)
    stack = Stack.load(root, _work(given))
    with stack.pristine:
        yield stack


def today() -> date:
    return datetime.now(timezone.utc).date()


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _work(given: argparse.Namespace) -> str:
    from portkit.stack.worktree import DEFAULT  # noqa: PLC0415

    return DEFAULT if given.work is None else str(given.work)
