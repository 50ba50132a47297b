"""`series.py lint`: everything that is wrong with the series, one line per fault."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.commands.arguments import subcommand
from portkit.errors import Exit
from portkit.face import console

if TYPE_CHECKING:
    from portkit.commands.arguments import Subcommands
    from portkit.stack.lint import Found
    from portkit.stack.lintrules import Fault


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    parser = subcommand(
        subcommands,
        "lint",
        "check the whole series, one line per fault",
        "series.py lint",
        "series.py lint --offline",
        description="Check that every patch applies exactly, is canonical and has a complete and "
        "true header, that none is unused, doubled or missing, and that no marker, stray carriage "
        "return, tab or file was left. Ends with 1 when there are faults.",
    )
    parser.add_argument(
        "--offline", action="store_true",
        help="leave out what needs upstream's source, unless the cache has it",
    )  # fmt: skip
    console.add_upstream(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_lint, root=root))


def _lint(given: argparse.Namespace, root: Path) -> int:
    from datetime import datetime, timezone  # noqa: PLC0415

    from portkit.stack import lint  # noqa: PLC0415

    console.settle(root)
    found = lint.check(root, today=datetime.now(timezone.utc).date())
    faults, checked = _with_source(given, root, found)
    if given.json:
        listed = [
            {"file": f.file, "line": f.line, "rule": f.rule, "message": f.message} for f in faults
        ]
        console.print_json(
            "lint", {"patches": len(found.listed), "source": checked, "faults": listed}
        )
    else:
        for fault in faults:
            print(fault)
        source = "" if checked else "; upstream's source was not asked"
        print(f"{len(found.listed)} patches, {_count(len(faults))}{source}")
    return Exit.WAITING if faults else Exit.OK


def _count(faults: int) -> str:
    if not faults:
        return "no fault"
    return "1 fault" if faults == 1 else f"{faults} faults"


def _with_source(given: argparse.Namespace, root: Path, found: Found) -> tuple[list[Fault], bool]:
    """All faults, and whether upstream's source was asked."""
    from portkit.errors import BadFile, IntegrityError, Unavailable  # noqa: PLC0415
    from portkit.patches import patched  # noqa: PLC0415
    from portkit.patches import pin as pinfile  # noqa: PLC0415
    from portkit.stack import lint  # noqa: PLC0415
    from portkit.stack.lintrules import Fault  # noqa: PLC0415
    from portkit.upstream.pristine import Pristine  # noqa: PLC0415

    faults = [*found.faults]
    try:
        pin = pinfile.read(root / pinfile.PIN_FILE)
    except BadFile:
        return faults, False
    with Pristine(
        pin, upstream=given.upstream, progress=console.progress, offline=given.offline
    ) as pristine:
        try:
            faults += lint.check_source(found.listed, pristine)
        except Unavailable:
            if not given.offline:
                raise
            return faults, False
        if not faults:
            patches = [one.patch for one in found.listed if one.patch.group != "deps"]
            try:
                patched.verified_tree(pristine.store, pin, patches)
            except IntegrityError as error:
                faults.append(Fault(pinfile.PIN_FILE, 1, "pin", error.message))
    return sorted(faults), True
