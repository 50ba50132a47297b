"""`tools/build.py`: from the pinned source to a wheel, stage by stage."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from portkit.build import plan, preview
from portkit.build.context import Options
from portkit.build.environment import shown_environment
from portkit.build.machine import Machine
from portkit.build.plan import STAGES, WHAT, Stage
from portkit.build.running import shown
from portkit.build.stages import Builder, Done
from portkit.build.words import Status
from portkit.commands import build_tools
from portkit.commands.building import (
    add_wanted,
    builder,
    checks_as_json,
    held,
    recall,
    remember,
    wanted_of,
)
from portkit.errors import BuildFailed, Exit
from portkit.face import console
from portkit.upstream.tree import long_path

_EXAMPLE = """\
stages, each with its log in the work folder's logs/:
{stages}

examples:
  tools/build.py --dry-run                what would be done, every command and variable
  tools/build.py                          all of it; again after a stop, it goes on
  tools/build.py --archs "8.6 8.9" --jobs 4
  tools/build.py --from configure         this stage and those behind it, done or not
  tools/build.py --only compile --affected   only the units that a patch touches
  tools/build.py units --archs 8.6        the translation units of a build
  tools/build.py verify WHEEL             whether a wheel is what it should be
  tools/build.py manifest                 record what wheels of the pin must hold
"""


def main(
    arguments: Sequence[str], root: Path = console.ROOT, machine: Machine | None = None
) -> int:
    """Run the command on the repository at `root`."""
    machine = machine or Machine()
    if arguments[:1] and arguments[0] in build_tools.COMMANDS:
        return build_tools.main(arguments, root, machine)
    given = _parse(arguments)
    asked = plan.asked(given.first, given.last, given.only)
    recall(given, wanted_of(given, root).work)
    wanted = wanted_of(given, root)
    options = Options(given.deps, given.affected, tuple(given.units or ()), given.keep_going)
    with (
        console.progress(quiet=given.json) as events,
        builder(
            root, machine, wanted, options=options, upstream=given.upstream, events=events
        ) as build,
    ):
        if given.dry_run:
            return _dry_run(build, asked, given.json)
        with held(wanted.work):
            if given.clean:
                _clean(build)
            remember(given, build.state)
            return _run(build, asked, given.json)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    stages = "\n".join(f"  {one.value:11} {WHAT[one]}" for one in STAGES)
    parser = console.parser(
        "Build the patched vLLM: from the pinned source to a wheel that was imported.",
        prog="build.py",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{_EXAMPLE.format(stages=stages)}\n{parser.epilog}"
    names = [one.value for one in STAGES]
    parser.add_argument(
        "--from",
        dest="first",
        choices=names,
        metavar="STAGE",
        help="do this stage and those behind it, though they are done",
    )
    parser.add_argument(
        "--to", dest="last", choices=names, metavar="STAGE", help="stop behind this stage"
    )
    parser.add_argument(
        "--only", choices=names, metavar="STAGE", help="do this stage alone, though it is done"
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="forget what was built; sources and fetched projects stay",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan: every command and variable"
    )
    parser.add_argument(
        "--affected", action="store_true", help="compile only the units that a patch touches"
    )
    parser.add_argument(
        "--units", nargs="+", metavar="PATTERN", help="compile only the units whose source matches"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="compile what can be compiled after a failure"
    )
    add_wanted(parser)
    return parser.parse_args(arguments)


def _run(build: Builder, asked: plan.Range, as_json: bool) -> int:
    done: list[Done] = []
    try:
        for one in build.run(asked):
            done.append(one)
            if not as_json:
                _print(one)
    except BuildFailed as error:
        if as_json:
            _print_json(done, _failed(error))
        raise
    if as_json:
        _print_json(done, None)
    return Exit.OK


def _print(one: Done) -> None:
    took = "" if one.fresh else f"  {_time(one.seconds)}"
    print(f"{one.stage.value:11} {one.said}{took}", flush=True)
    for check in one.checks:
        if check.status in (Status.WARN, Status.FAIL):
            print(f"{'':11} {check.status.value}: {check.name}: {check.said}")
            print(f"{'':11} {' ' * len(check.status.value)}  {check.remedy}", flush=True)


def _print_json(done: Sequence[Done], failed: dict[str, Any] | None) -> None:
    console.print_json("build", {"stages": [_as_json(one) for one in done], "failed": failed})


def _failed(error: BuildFailed) -> dict[str, Any]:
    """What failed, each step with its source, its first error and what is known of it."""
    steps = [
        {
            "source": one.source,
            "error": one.error,
            "line": one.line,
            "known": one.known.name if one.known is not None else None,
            "remedy": one.known.remedy if one.known is not None else "",
        }
        for one in error.failures
    ]
    checks = checks_as_json(error.checks)
    return {"message": error.message, "hint": error.hint, "steps": steps, "checks": checks}


def _as_json(one: Done) -> dict[str, Any]:
    return {
        "stage": one.stage.value,
        "up-to-date": one.fresh,
        "said": one.said,
        "seconds": round(one.seconds, 1),
        "log": str(one.log),
        "checks": checks_as_json(one.checks),
    }


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _dry_run(build: Builder, asked: plan.Range, as_json: bool) -> int:
    shown_plan = preview.preview(build, asked)
    if as_json:
        console.print_json("build", preview.as_json(shown_plan))
        return Exit.OK
    print("environment, beside that of Visual Studio:" if build.machine.windows else "environment:")
    for line in shown_environment(shown_plan.environment, build.machine):
        print(f"  {line}")
    for stage in shown_plan.stages:
        state = "up to date" if stage.fresh else "to do"
        print(f"{stage.stage.value}: {WHAT[stage.stage]} ({state})")
        for step in stage.steps:
            print(f"  in {step.folder}:\n    {shown(step.command)}")
        for line in stage.notes:
            print(f"  {line}")
    return Exit.OK


def _clean(build: Builder) -> None:
    """Remove what was configured, compiled and packed; generated sources go with the source."""
    places = build.places
    for folder in (places.source, places.dist, places.trial, places.work / "logs"):
        if folder.is_dir():
            shutil.rmtree(long_path(folder))
    build.state.done = {
        name: key for name, key in build.state.done.items() if name == Stage.DEPS.value
    }
    build.state.left.pop("steps", None)
    build.state.save()
