"""Where lines come from: `annotate`, `why`, and `graph` of what needs what."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portkit.commands.arguments import add_patch, subcommand
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.face.paint import Paint, add_colour

if TYPE_CHECKING:
    from portkit.commands.arguments import Subcommands
    from portkit.model import Patch
    from portkit.stack.blame import Annotated, Dependency, Origin


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    _add_annotate(subcommands, root)
    _add_why(subcommands, root)
    _add_graph(subcommands, root)


def _annotated(given: argparse.Namespace, root: Path, path: str) -> Annotated:
    """The upstream file with all its patches; only its own blob is read."""
    from portkit.patches import pin as pinfile  # noqa: PLC0415
    from portkit.patches import series  # noqa: PLC0415
    from portkit.patches.choose import upstream_path  # noqa: PLC0415
    from portkit.stack import blame  # noqa: PLC0415
    from portkit.upstream.pristine import Pristine  # noqa: PLC0415

    console.settle(root)
    patches = series.load(root).upstream
    path = upstream_path(root, path)
    name, chain = blame.history(patches, path)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, upstream=given.upstream, progress=console.progress) as old:
        data = old.read(name) if name is not None else None
    if data is None and not chain:
        hint = _moved(patches, path) or "give its path in upstream's source"
        raise BadInput(f"there is no file {path} in {pin.tag}", hint=hint)
    return blame.annotate(path, data, chain)


def _moved(patches: Sequence[Patch], path: str) -> str:
    change = next((p.change for p in patches if p.change.old_path == path), None)
    return f"it is {change.new_path} now" if change is not None and change.new_path else ""


# annotate


def _add_annotate(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "annotate",
        "which patch made each line of a file",
        "series.py annotate csrc/core/math.hpp",
        description="Print a file with all patches applied, and beside each line the number of "
        "the patch that made it; lines without one are upstream's.",
    )
    parser.add_argument("file", metavar="FILE", help="a file of upstream or of the work tree")
    parser.add_argument("--ours", action="store_true", help="only the lines that patches made")
    console.add_upstream(parser)
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_annotate, root=root))


def _annotate(given: argparse.Namespace, root: Path) -> int:
    file = _annotated(given, root, given.file)
    numbered = [*enumerate(zip(file.lines, file.origins, strict=True), 1)]
    if given.ours:
        numbered = [one for one in numbered if one[1][1].patch is not None]
    if given.json:
        lines = [
            {
                "line": number,
                "patch": origin.patch,
                "upstream_line": None if origin.line is None else origin.line + 1,
                "text": line.decode("utf-8", "surrogateescape"),
            }
            for number, (line, origin) in numbered
        ]
        names = [patch.name for patch in file.patches]
        console.print_json("annotate", {"path": file.path, "patches": names, "lines": lines})
        return Exit.OK
    paint = Paint(given.color)
    marks = {patch.name: str(number) for number, patch in enumerate(file.patches, 1)}
    width = len(str(len(file.lines)))
    printed: list[bytes] = []
    for number, (line, origin) in numbered:
        mark = marks.get(origin.patch or "", "")
        place = f"{mark:>2} {number:>{width}}  "
        place = paint.bold(place) if mark else paint.dim(place)
        printed += [place.encode(), line.rstrip(b"\n"), b"\n"]
    paint.text(b"".join(printed))
    print()
    for name, mark in marks.items():
        print(f"{mark:>2} {name}")
    if not marks:
        print(f"no patch changes {file.path}")
    return Exit.OK


# why


def _add_why(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "why",
        "which patch made a line, and why",
        "series.py why csrc/core/math.hpp:12",
        description="Say which patch made a line of the patched file, what it replaced, and what "
        "the patch is for.",
    )
    parser.add_argument("place", metavar="FILE:LINE", help="a line of the patched file")
    console.add_upstream(parser)
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_why, root=root))


def _why(given: argparse.Namespace, root: Path) -> int:
    path, number = _place(given.place)
    file = _annotated(given, root, path)
    if not 1 <= number <= len(file.lines):
        raise BadInput(f"{file.path} has {len(file.lines)} lines, there is no line {number}")
    told = _told(root, file, number)
    if given.json:
        console.print_json("why", told)
        return Exit.OK
    paint = Paint(given.color)
    print(f"{file.path}:{number}: {paint.bold(_verdict(told))}")
    paint.line(b"    " + file.lines[number - 1])
    if told["patch"] is None:
        return Exit.OK
    if told["instead_of"]:
        print("instead of upstream's" if len(file.patches) == 1 else "instead of")
        for line in told["instead_of"]:
            paint.line(b"    " + line.encode("utf-8", "surrogateescape"))
    print()
    for line in (told["summary"], *told["body"].split("\n")):
        print(line)
    print()
    print(f"cures {', '.join(told['diagnostics'])}")
    print(f"tests {', '.join(told['tests'])}")
    print(f"patch {told['place']}")
    return Exit.OK


def _place(text: str) -> tuple[str, int]:
    path, colon, line = text.rpartition(":")
    if not (colon and path and line.isdecimal()):
        raise BadInput(f"{text!r} is not FILE:LINE", hint="such as csrc/core/math.hpp:12")
    return path, int(line)


def _told(root: Path, file: Annotated, number: int) -> dict[str, Any]:
    from portkit.patches import header  # noqa: PLC0415

    origin = file.origins[number - 1]
    told: dict[str, Any] = {
        "path": file.path,
        "line": number,
        "text": file.lines[number - 1].decode("utf-8", "surrogateescape"),
        "patch": origin.patch,
        "upstream_line": None if origin.line is None else origin.line + 1,
        "cut_above_by": origin.cut,
    }
    patch = next((patch for patch in file.patches if patch.name == origin.patch), None)
    if patch is None:
        return told
    head = header.parse(patch.header)
    edit, place = _made(root, patch, origin)
    return {
        **told,
        "summary": head.summary,
        "body": head.body,
        "diagnostics": list(head.diagnostics),
        "tests": list(head.tests),
        "place": place,
        "instead_of": [line.decode("utf-8", "surrogateescape").rstrip("\n") for line in edit],
    }


def _made(root: Path, patch: Patch, origin: Origin) -> tuple[list[bytes], str]:
    """What the run of changed lines with this one replaced, and where the patch file has it."""
    from portkit.patches.patchfile import SERIES_FOLDER  # noqa: PLC0415
    from portkit.stack.blame import printed_at  # noqa: PLC0415

    hunk, at = origin.added
    lines = patch.change.hunks[hunk].lines
    first = at
    while first and lines[first - 1][:1] != b" ":
        first -= 1
    removed: list[bytes] = []
    for line in lines[first:]:
        if line[:1] == b" ":
            break
        if line[:1] == b"-":
            removed.append(line[1:])
    where = f"{SERIES_FOLDER}/{patch.name}"
    printed = printed_at((root / where).read_bytes(), patch.change)[hunk][at]
    return removed, f"{where}:{printed}"


def _verdict(told: dict[str, Any]) -> str:
    if told["patch"] is not None:
        return f"made by {told['patch']}"
    cut = told["cut_above_by"]
    return f"upstream's line {told['upstream_line']}" + (
        f"; {cut} removed what stood above it" if cut else ""
    )


# graph


def _add_graph(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "graph",
        "which patch needs which",
        "series.py graph utils.cuh",
        "series.py graph --dot",
        description="Show which patch needs which: by lines (one builds on lines the other made) "
        "and by names (one changes uses of what the other defines anew).",
    )
    add_patch(parser, "?")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="print the graph for Graphviz")
    form.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=partial(_graph, root=root))


def _graph(given: argparse.Namespace, root: Path) -> int:
    from portkit.patches import series  # noqa: PLC0415
    from portkit.patches.choose import choose  # noqa: PLC0415
    from portkit.stack.blame import dependencies  # noqa: PLC0415

    console.settle(root)
    patches = series.load(root).patches
    edges = dependencies(patches)
    names = [patch.name for patch in patches]
    if given.patch is not None:
        chosen = choose(patches, given.patch).name
        reached = _reached(edges, chosen)
        names = [name for name in names if name in reached]
        edges = [edge for edge in edges if {edge.patch, edge.needs} <= reached]
    if given.json:
        found = [
            {"patch": e.patch, "needs": e.needs, "by": e.by, "what": list(e.what)} for e in edges
        ]
        console.print_json("graph", {"patches": names, "edges": found})
    elif given.dot:
        for line in _dot(names, edges):
            print(line)
    else:
        _print_graph(names, edges)
    return Exit.OK


def _reached(edges: Sequence[Dependency], start: str) -> set[str]:
    """`start`, all it needs, and all that need it."""
    found = {start}
    for forth in (True, False):
        pending = [start]
        while pending:
            name = pending.pop()
            for edge in edges:
                one, other = (edge.patch, edge.needs) if forth else (edge.needs, edge.patch)
                if one == name and other not in found:
                    found.add(other)
                    pending.append(other)
    return found


def _dot(names: Sequence[str], edges: Sequence[Dependency]) -> Iterator[str]:
    yield "digraph series {"
    yield "  rankdir=LR; node [shape=box];"
    for name in names:
        yield f"  {json.dumps(name)};"
    for edge in edges:
        label = json.dumps(", ".join(edge.what))
        style = "solid" if edge.by == "lines" else "dashed"
        yield f"  {json.dumps(edge.patch)} -> {json.dumps(edge.needs)} " + (
            f"[label={label}, style={style}];"
        )
    yield "}"


def _print_graph(names: Sequence[str], edges: Sequence[Dependency]) -> None:
    tied = {name for edge in edges for name in (edge.patch, edge.needs)}
    for name in names:
        needs = [edge for edge in edges if edge.patch == name]
        if needs:
            print(name)
        for edge in needs:
            print(f"    needs {edge.needs} by {edge.by}: {', '.join(edge.what)}")
    print(f"{sum(name not in tied for name in names)} patches stand alone")
