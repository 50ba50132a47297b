"""`ci/matrix.py`: the cells of the CI matrix, for a workflow's `fromJSON` and for people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from portkit.ci import cells as matrix
from portkit.ci import plan as planfile
from portkit.ci.cells import KINDS, Cell, Kind, Upstream
from portkit.ci.plan import Plan
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.patches.patchfile import SERIES_FOLDER
from portkit.upstream.git import git
from portkit.upstream.pristine import Pristine


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Show or write the cells of the repository at `root`."""
    given = _parser().parse_args(arguments)
    console.settle(root)
    plan = planfile.read(root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, upstream=given.upstream, progress=console.progress) as pristine:
        at = matrix.upstream(pin.tag, pristine.read)
    archs = _concerned(plan, root, given.changed_since) if given.changed_since else None
    kinds: tuple[Kind, ...] = (given.kind,) if given.kind else KINDS
    found = {kind: matrix.cells(plan, at, kind, archs) for kind in kinds}
    if given.output is not None:
        with given.output.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{kind}={_json(cells)}\n" for kind, cells in found.items())
    elif given.json:
        print(_json([cell for cells in found.values() for cell in cells]))
    else:
        _show(plan, at, found, listed=given.kind is not None)
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "Print the cells of the CI matrix: the combinations of ci/matrix.toml that exist at the "
        "pin, by upstream's own lists and torch's builds.",
        prog="matrix.py",
    )
    parser.add_argument("--kind", choices=KINDS, help="one kind of cell (default: all)")
    parser.add_argument(
        "--changed-since", metavar="REV",
        help="only architectures that the changes since the commit REV concern, by the `Archs` "
        "field of the patches changed; all of them if anything else was changed that builds use, "
        "or if REV is empty",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true", help='one line, `{"include": […]}`, for fromJSON'
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="append a line `KIND={\"include\": […]}` for each kind, as $GITHUB_OUTPUT takes it",
    )  # fmt: skip
    console.add_upstream(parser)
    return parser


def _concerned(plan: Plan, root: Path, since: str) -> list[str]:
    """The architectures that the commits since `since` concern."""
    names = git("diff", "--name-only", "-z", f"{since}...HEAD", cwd=root)
    changed = [name.decode("utf-8", "replace") for name in names.split(b"\0") if name]
    patches = {f"{SERIES_FOLDER}/{patch.name}": patch for patch in series.load(root).patches}
    return matrix.concerned(plan, changed, patches)


def _json(cells: Iterable[Cell]) -> str:
    return json.dumps({"include": [_entry(cell) for cell in cells]}, separators=(",", ":"))


def _entry(cell: Cell) -> dict[str, Any]:
    filled = {key: value for key, value in asdict(cell).items() if value}
    return {**filled, "runner": list(cell.runner), "name": cell.name}


def _show(plan: Plan, at: Upstream, found: dict[Kind, list[Cell]], *, listed: bool) -> None:
    print(f"vLLM {at.tag}, torch {at.torch}, Python {at.pythons}")
    pairs, gaps = matrix.combinations(plan, at)
    width = max(len(arch) for arch in plan.architectures) + 2
    print("\n" + " " * 10 + "".join(f"{arch:>{width}}" for arch in plan.architectures))
    for toolkit in plan.toolkits:
        marks = ("yes" if (toolkit, arch) in pairs else "-" for arch in plan.architectures)
        print(f"CUDA {toolkit:5}" + "".join(f"{mark:>{width}}" for mark in marks))
    for gap in gaps:
        print(f"  no {gap.arch} with CUDA {gap.toolkit}: {gap.reason}")
    print()
    for kind, cells in found.items():
        print(f"{kind:8} {len(cells)} cells")
        for cell in cells if listed else ():
            print(f"  {cell.name:32} on {' '.join(cell.runner)}")
    if not listed:
        print("--kind KIND lists the cells")
