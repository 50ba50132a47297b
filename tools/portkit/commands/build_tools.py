"""The commands of `tools/build.py` that build nothing: `verify`, `manifest`, and `units`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from portkit.build import cmakereply, manifest, plan, verify, wheels
from portkit.build.machine import Machine
from portkit.build.pinned import package_files
from portkit.build.words import failed
from portkit.commands import build_units
from portkit.commands.building import (
    add_wanted,
    checks_as_json,
    print_checks,
    wanted_of,
)
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.upstream.pristine import Pristine


def main(arguments: Sequence[str], root: Path, machine: Machine) -> int:
    """Run one of `COMMANDS`."""
    return COMMANDS[arguments[0]](arguments[1:], root, machine)


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
    state = plan.State.load(wanted.work / plan.STATE_FILE)
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
    "units": build_units.main,
    "verify": _verify,
    "manifest": _manifest,
}
