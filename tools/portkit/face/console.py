"""What every command has in common: arguments, progress, errors as one sentence, exit codes."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from portkit.errors import Exit, PortError
from portkit.model import Event, Events, silent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from portkit.change.journal import Journal

ROOT = Path(__file__).resolve().parents[3]  # of the repository this file lies in
JSON_SCHEMA = 1

_EXIT_CODES = (
    "exit codes: 0 done, 1 something waits for a person, 2 bad input, 3 network or disk did not "
    "serve, 4 another command is at work, 5 a hash does not match, 6 a build step failed "
    "(docs/exit-codes.md)"
)

Main = Callable[[Sequence[str]], int]


def run(main: Main, arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code; errors become `error: …` and `hint: …` on stderr."""
    _make_safe(sys.stdout)
    _make_safe(sys.stderr)
    try:
        with uncollected():
            code = main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except PortError as error:
        return _failed(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _failed("interrupted", "", Exit.INTERRUPTED)
    except BrokenPipeError:
        _forget_output()
        return Exit.UNAVAILABLE
    except OSError as error:
        if _is_closed_pipe(error):
            _forget_output()
            return Exit.UNAVAILABLE
        return _failed(_os_sentence(error), "", Exit.UNAVAILABLE)
    return code


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: a command is short, and its many values form no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parser(description: str, **options: Any) -> argparse.ArgumentParser:
    """An argument parser that names the exit codes below its help."""
    return argparse.ArgumentParser(
        description=description, epilog=_EXIT_CODES, allow_abbrev=False, **options
    )


def add_json(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")


def add_upstream(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument(
        "--upstream",
        type=Path,
        metavar="PATH",
        help="a local git clone, source folder or source archive of upstream",
    )


@contextmanager
def repository(root: Path) -> Iterator[Journal]:
    """The locked journal of the repository, whole again if a command was killed in it."""
    from portkit.change.journal import Journal  # noqa: PLC0415  (slow to import)

    journal = Journal(root)
    with journal.lock() as recovered:
        _note(recovered)
        yield journal


def settle(root: Path) -> None:
    """Make the repository whole if a command was killed in it, for one that only reads it."""
    if not (root / ".port/journal/staged").exists():
        return  # nothing is under way; reading commands need not import the journal
    from portkit.change.journal import Journal  # noqa: PLC0415

    _note(Journal(root).settle())


def print_json(command: str, result: dict[str, Any]) -> None:
    """Print `result` with the schema's version; plain ASCII, so any console can show it."""
    print(json.dumps({"schema": JSON_SCHEMA, "command": command, **result}, indent=2))


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Events]:
    """Events drawn as one line on stderr while the block runs; nothing unless it is a terminal."""
    if quiet or not (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
        yield silent
        return
    from rich.console import Console  # noqa: PLC0415  (slow to import)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
    )
    both = sys.stdout.isatty()  # what goes into a pipe must not be drawn above the bar instead
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=both) as bar:
        yield _drawn_on(bar)


def _drawn_on(bar: Progress) -> Events:
    tasks: dict[str, TaskID] = {}

    def draw(event: Event) -> None:
        if event.stage not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[event.stage] = bar.add_task(event.stage, amount="")
        bar.update(
            tasks[event.stage],
            completed=event.done,
            total=event.total,
            amount=_amount(event),
            visible=True,
        )

    return draw


def _amount(event: Event) -> str:
    if not event.unit:
        return ""
    numbers = [event.done] if event.total is None else [event.done, event.total]
    if event.unit == "bytes":
        return "/".join(f"{number / 1e6:.1f}" for number in numbers) + " MB"
    return "/".join(str(number) for number in numbers) + f" {event.unit}"


def _note(text: str) -> None:
    if text:
        print(f"note: {text}", file=sys.stderr)


def _make_safe(stream: TextIO) -> None:
    """Let characters the console cannot show become `?` instead of an error."""
    with suppress(AttributeError, ValueError):
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]


def _failed(message: str, hint: str, code: Exit) -> int:
    # A closed stderr must not hide the exit code.
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        print(f"error: {message}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
    return code


def _os_sentence(error: OSError) -> str:
    place = f": {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{place}"
    return f"{(error.strerror or str(error)).lower()}{place}"


def _is_closed_pipe(error: OSError) -> bool:
    # Windows says EINVAL when the reader of our output is gone.
    return os.name == "nt" and error.errno == errno.EINVAL and error.filename is None


def _forget_output() -> None:
    """Point stdout at nothing, so that Python's own flush at exit stays quiet."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
