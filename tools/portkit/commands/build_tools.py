"""The commands of `tools/build.py` that build nothing: `units`, `verify`, `manifest`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from portkit import console, patched, series
from portkit import pin as pinfile
from portkit.build import cmakereply, manifest, plan, units, verify, wheels
from portkit.build.context import Options
from portkit.build.machine import Machine
from portkit.build.pinned import package_files
from portkit.build.plan import Stage
from portkit.build.words import failed
from portkit.commands.building import (
    add_wanted,
    builder,
    checks_as_json,
    print_checks,
    wanted_of,
)
from portkit.errors import BadInput, Exit
from portkit.pristine import Pristine


def main(arguments: Sequence[str], root: Path, machine: Machine) -> int:
    """Run one of `COMMANDS`."""
    return COMMANDS[arguments[0]](arguments[1:], root, machine)


def _units(arguments: Sequence[str], root: Path, machine: Machine) -> int:
    parser = console.parser(
        "Print the translation units that CMake builds for the architectures, from CMake's own "
        "configure of the patched source.",
        prog="build.py units",
    )
    parser.add_argument(
        "--affected", action="store_true", help="only those that a patch touches through includes"
    )
    parser.add_argument("--count", action="store_true", help="only how many there are, by module")
    add_wanted(parser)
    given = parser.parse_args(arguments)
    wanted = wanted_of(given, root)
    with (
        console.progress(quiet=given.json) as events,
        builder(
            root,
            machine,
            wanted,
            options=Options(given.deps, given.affected),
            upstream=given.upstream,
            events=events,
        ) as build,
    ):
        asked = plan.Range(plan.STAGES[: plan.STAGES.index(Stage.CONFIGURE) + 1], frozenset())
        for _ in build.run(asked):
            pass
        reply = cmakereply.read(build.steps().folder)
        changed = [one.path for one in build.series.upstream]
        touched = {
            one.unit.object: one.touched
            for one in units.affected(reply, changed, dict.fromkeys(build.pinned.paths))
        }
        archs = build.found.archs
    listed = [one for one in reply.units if not given.affected or one.object in touched]
    counts = units.counted(listed)
    if given.json:
        rows = [
            {
                "source": _below(one.source, reply.source),
                "module": one.target,
                "object": one.object,
                "archs": list(one.archs),
                "touched-by": list(touched.get(one.object, ())),
            }
            for one in listed
        ]
        result = {"archs": list(archs), "counts": counts, "units": rows}
        console.print_json("units", result)
        return Exit.OK
    if not given.count:
        for one in listed:
            mark = f"  ({', '.join(touched[one.object])})" if given.affected else ""
            print(f"{_below(one.source, reply.source)}{mark}")
    told = ", ".join(f"{name or 'other'} {count}" for name, count in counts.items())
    what = "touched by a patch" if given.affected else f"for {' '.join(archs)}"
    print(f"{len(listed)} units {what}: {told}" if listed else f"no units {what}")
    return Exit.OK


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _verify(arguments: Sequence[str], root: Path, _: Machine) -> int:
    parser = console.parser(
        "Check a wheel: its name, its RECORD, the metadata, every file of the pin with its "
        "patches, third-party Python files, and what its compiled modules are.",
        prog="build.py verify",
    )
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--archs",
        nargs="*",
        default=[],
        metavar="ARCH",
        help="it was built for these, so their modules must be there",
    )
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)
    console.settle(root)
    wheel = wheels.opened(given.wheel)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    expected = manifest.load(pin.tag)
    with Pristine(pin, upstream=given.upstream, progress=console.progress) as pristine:
        tree = patched.verified_tree(pristine.store, pin, series.load(root).upstream)
        files = package_files(pristine.store, tree)
    with console.progress(quiet=given.json) as events:
        checks = verify.verify(wheel, expected, files, archs=given.archs, events=events)
    if given.json:
        result = {"wheel": str(given.wheel), "checks": checks_as_json(checks)}
        console.print_json("verify", result)
    else:
        print_checks(checks)
    return Exit.WAITING if failed(checks) else Exit.OK


def _manifest(arguments: Sequence[str], root: Path, machine: Machine) -> int:
    parser = console.parser(
        "Record what wheels of the pin must hold beside upstream's own files, from the configured "
        "build; modules that only some architectures have keep the ones recorded before.",
        prog="build.py manifest",
    )
    add_wanted(parser)
    given = parser.parse_args(arguments)
    wanted = wanted_of(given, root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    state = plan.State.load(wanted.work / "state.json")
    found = manifest.of_build(cmakereply.read(_configured(state)), pin.tag)
    path = manifest.path_of(pin.tag)
    recorded = manifest.load(pin.tag) if path.is_file() else None
    path.write_bytes(manifest.render(manifest.merged(found, recorded)))
    if given.json:
        console.print_json("manifest", {"file": str(path), "modules": list(found.modules)})
    else:
        print(f"{path}: {len(found.modules)} modules, {len(found.payload)} third-party files")
    return Exit.OK


def _configured(state: plan.State) -> Path:
    left = state.left.get("steps")
    if not isinstance(left, list) or not left:
        raise BadInput("nothing is configured yet", hint="tools/build.py --to configure")
    return Path(left[0][1])


COMMANDS: dict[str, Callable[[Sequence[str], Path, Machine], int]] = {
    "units": _units,
    "verify": _verify,
    "manifest": _manifest,
}
