"""What the commands of `tools/build.py` and `tools/doctor.py` share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from portkit.build.context import Options
from portkit.build.examine import Wanted
from portkit.build.machine import Machine
from portkit.build.plan import STATE_FILE, State
from portkit.build.stages import Builder
from portkit.build.words import Check, Status
from portkit.errors import Busy
from portkit.face import console
from portkit.model import Events
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.upstream.pristine import Pristine

WORK = "work/build"


@contextmanager
def builder(
    root: Path,
    machine: Machine,
    wanted: Wanted,
    *,
    options: Options,
    upstream: Path | None,
    events: Events,
) -> Iterator[Builder]:
    """A build of the pin of the repository at `root`, with its source in the cache."""
    console.settle(root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, upstream=upstream, progress=console.progress) as pristine:
        yield Builder(machine, pristine.store, pin, series.load(root), wanted, options, events)


def add_wanted(parser: argparse.ArgumentParser) -> None:
    """The options that say what to build with."""
    parser.add_argument(
        "--python",
        type=Path,
        metavar="PATH",
        help="the Python to build for (default: the active environment's)",
    )
    parser.add_argument(
        "--cuda-home",
        type=Path,
        metavar="DIR",
        help="the CUDA toolkit (default: the one torch was built with)",
    )
    parser.add_argument(
        "--archs",
        default="",
        metavar="LIST",
        help='CUDA architectures such as "8.6 12.0" (default: this GPU\'s)',
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="compiles at once (default: what memory and cores hold)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help=f"the work folder (default: {WORK})"
    )
    parser.add_argument(
        "--deps",
        type=Path,
        metavar="DIR",
        help="a folder with the third-party sources, one folder each; nothing is fetched then",
    )
    console.add_upstream(parser)
    console.add_json(parser)


_RECALLED = {"python": Path, "cuda_home": Path, "archs": str, "deps": Path}


def recall(given: argparse.Namespace, work: Path) -> None:
    """Take what is not given from the last build in this work folder, and say so.

    So a build that was started with options goes on without them, with the same inputs.
    """
    asked = State.load(work / STATE_FILE).left.get("asked")
    taken = []
    for name, kind in _RECALLED.items():
        value = asked.get(name) if isinstance(asked, dict) else None
        if value and not getattr(given, name):
            setattr(given, name, kind(value))
            taken.append(f"--{name.replace('_', '-')} {value}")
    if taken and not given.json:
        print(f"as in the last build here: {' '.join(taken)}", flush=True)


def remember(given: argparse.Namespace, state: State) -> None:
    """Keep what was asked for, for the next build in this work folder."""
    asked = {name: str(getattr(given, name) or "") for name in _RECALLED}
    for name in ("python", "cuda_home", "deps"):
        asked[name] = str(Path(asked[name]).absolute()) if asked[name] else ""
    state.left["asked"] = asked
    state.save()


@contextmanager
def held(work: Path) -> Iterator[None]:
    """The work folder, for one build at a time; raises `Busy` when another holds it."""
    work.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(work / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(
            f"another build is at work in {work}", hint="wait for it, or name another --work"
        ) from None
    try:
        yield
    finally:
        lock.release()


def wanted_of(given: argparse.Namespace, root: Path) -> Wanted:
    work = (given.work or root / WORK).absolute()
    return Wanted(work, given.python, given.cuda_home, given.archs, given.jobs)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of jobs")
    return int(text)


def checks_as_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "status": one.status.value, "said": one.said, "remedy": one.remedy}
        for one in checks
    ]


def print_checks(checks: Sequence[Check]) -> None:
    """One line each, with the remedy below what is not right."""
    width = max((len(one.name) for one in checks), default=0)
    for one in checks:
        print(f"{one.status.value:5} {one.name:{width}}  {one.said}")
        if one.remedy and one.status in (Status.WARN, Status.FAIL):
            print(f"{'':5} {'':{width}}  -> {one.remedy}")
