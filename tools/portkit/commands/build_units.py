"""`tools/build.py units`: the translation units of a build, and those a patch touches."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from portkit.build import cmakereply, plan, source, standin, toolchain, units
from portkit.build.cmakereply import Reply, Unit
from portkit.build.context import Options
from portkit.build.machine import Machine
from portkit.build.plan import Stage
from portkit.build.stages import Builder
from portkit.commands.building import add_wanted, builder, held, wanted_of
from portkit.cuda import toolkits
from portkit.cuda.toolkits import Toolkit
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.text import archlists

_WORK = "work/units"  # apart from a build, which other architectures would configure anew


def main(arguments: Sequence[str], root: Path, machine: Machine) -> int:
    """Print the units for the architectures of a person or of this GPU."""
    given = _parse(arguments)
    given.work = given.work or root / _WORK
    wanted = wanted_of(given, root)
    options = Options(given.deps, given.affected)
    with (
        held(wanted.work),
        console.progress(quiet=given.json) as events,
        builder(
            root, machine, wanted, options=options, upstream=given.upstream, events=events
        ) as build,
    ):
        reply = _with_stand_ins(build, given) if given.stand_ins else _configured(build)
        changed = [one.path for one in build.series.upstream]
        pinned = dict.fromkeys(build.pinned.paths)
        touched = {one.unit.object: one.touched for one in units.affected(reply, changed, pinned)}
        archs = build.found.archs
    listed = [one for one in reply.units if not given.affected or one.object in touched]
    if given.json:
        rows = [_as_json(one, reply, touched) for one in listed]
        counts = units.counted(listed)
        console.print_json("units", {"archs": list(archs), "counts": counts, "units": rows})
        return Exit.OK
    if not given.count:
        for one in listed:
            mark = f"  ({', '.join(touched[one.object])})" if given.affected else ""
            print(f"{_below(one.source, reply)}{mark}")
    told = ", ".join(f"{name or 'other'} {count}" for name, count in units.counted(listed).items())
    what = "touched by a patch" if given.affected else f"for {' '.join(archs)}"
    print(f"{len(listed)} units {what}: {told}" if listed else f"no units {what}")
    return Exit.OK


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = console.parser(
        "Print the translation units that CMake builds for the architectures, from CMake's own "
        "configure of the patched source.",
        prog="build.py units",
    )
    parser.add_argument(
        "--affected", action="store_true", help="only those that a patch touches through includes"
    )
    parser.add_argument("--count", action="store_true", help="only how many there are, by module")
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        help="configure without torch and third-party sources (on Linux; nothing can be compiled "
        "then, and the units of vllm-flash-attn are missing)",
    )
    add_wanted(parser)
    return parser.parse_args(arguments)


def _configured(build: Builder) -> Reply:
    """A real configure, by the stages of a build."""
    asked = plan.Range(plan.STAGES[: plan.STAGES.index(Stage.CONFIGURE) + 1], frozenset())
    for _ in build.run(asked):
        pass
    return cmakereply.read(build.steps().folder)


def _with_stand_ins(build: Builder, given: argparse.Namespace) -> Reply:
    home = given.cuda_home
    toolkit = Toolkit(home.absolute(), "--cuda-home") if home is not None else toolkits.first()
    if toolkit is None or not toolkit.nvcc.is_file():
        raise BadInput("no CUDA toolkit was found", hint="install one, or name it: --cuda-home DIR")
    archs = build.found.archs = toolchain.parse_archs(given.archs)
    supported = archlists.supported(build.pinned.archs, toolkit.version.release)
    toolchain.check_archs(archs, toolkit, supported)
    folder = build.places.work / "stand-ins"
    source.bring(build.store, build.tree, build.pin, folder / "source", build.events)
    return standin.configure(
        build.machine,
        build.pinned,
        folder / "source",
        folder,
        toolkit=toolkit,
        archs=archs,
        events=build.events,
    )


def _as_json(unit: Unit, reply: Reply, touched: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "source": _below(unit.source, reply),
        "module": unit.target,
        "object": unit.object,
        "archs": list(unit.archs),
        "touched-by": list(touched.get(unit.object, ())),
    }


def _below(path: Path, reply: Reply) -> str:
    root = reply.source
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
