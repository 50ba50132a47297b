"""Reading the series: `show`, `diff`, `log`, `files`, `list`, and `header`, which can edit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portkit.commands import series_trace
from portkit.commands.arguments import add_patch, add_work, subcommand
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.face.paint import Paint, add_colour

if TYPE_CHECKING:
    from portkit.commands.arguments import Subcommands
    from portkit.model import FileChange, Patch
    from portkit.patches.header import Header


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module, and those that trace lines."""
    _add_show(subcommands, root)
    _add_diff(subcommands, root)
    _add_log(subcommands, root)
    _add_header(subcommands, root)
    _add_files(subcommands, root)
    _add_list(subcommands, root)
    series_trace.add(subcommands, root)


def _load(root: Path) -> tuple[Patch, ...]:
    """The patches of the series, whole again if a command was killed."""
    from portkit.patches import series  # noqa: PLC0415

    console.settle(root)
    return series.load(root).patches


def _chosen(root: Path, names: Sequence[str]) -> list[Patch]:
    """The patches that are named, all of them if none is."""
    from portkit.patches.choose import choose  # noqa: PLC0415

    patches = _load(root)
    return [choose(patches, name) for name in names] if names else [*patches]


def _header(patch: Patch) -> Header:
    from portkit.patches import header  # noqa: PLC0415

    return header.parse(patch.header)


# show and diff


def _add_show(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "show",
        "print patches, header and change",
        "series.py show setup.py",
    )
    add_patch(parser, "+")
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_show, root=root))


def _show(given: argparse.Namespace, root: Path) -> int:
    from portkit.patches.patchfile import format_patch  # noqa: PLC0415

    patches = _chosen(root, given.patch)
    if given.json:
        console.print_json("show", {"patches": [_as_json(patch) for patch in patches]})
        return Exit.OK
    paint = Paint(given.color)
    for number, patch in enumerate(patches):
        if number:
            paint.line()
        paint.diff(format_patch(patch))
    return Exit.OK


def _as_json(patch: Patch) -> dict[str, Any]:
    head = _header(patch)
    return {
        **_summary(patch, head),
        "body": head.body,
        "header": {field.name: field.value for field in head.fields},
        "change": _change_as_json(patch.change),
    }


def _change_as_json(change: FileChange) -> dict[str, Any]:
    return {
        "old_path": change.old_path,
        "new_path": change.new_path,
        "old_mode": change.old_mode,
        "new_mode": change.new_mode,
        "hunks": [
            {
                "old_start": hunk.old_start,
                "old_count": hunk.old_count,
                "new_start": hunk.new_start,
                "new_count": hunk.new_count,
                "lines": [line.decode("utf-8", "surrogateescape") for line in hunk.lines],
            }
            for hunk in change.hunks
        ],
    }


def _add_diff(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "diff",
        "the change of patches, or what the work tree has that no patch has yet",
        "series.py diff setup.py",
    )
    add_patch(parser, "*")
    add_work(parser)
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_diff, root=root))


def _diff(given: argparse.Namespace, root: Path) -> int:
    from portkit.patches.patchfile import format_change  # noqa: PLC0415

    if given.patch:
        changes = [patch.change for patch in _chosen(root, given.patch)]
    else:
        changes = _local_changes(given, root)
    if given.json:
        console.print_json("diff", {"changes": [_change_as_json(change) for change in changes]})
        return Exit.OK
    Paint(given.color).diff(b"".join(map(format_change, changes)))
    return Exit.OK


def _local_changes(given: argparse.Namespace, root: Path) -> list[FileChange]:
    """What a person changed in the work tree since the tools wrote it."""
    from portkit.commands.workbench import reading  # noqa: PLC0415
    from portkit.stack.revise import made  # noqa: PLC0415
    from portkit.stack.stack import paths_of  # noqa: PLC0415

    found: list[FileChange] = []
    with reading(given, root) as stack:
        owners = {path: patch for patch in stack.applied for path in paths_of(patch)}
        for path in stack.edited():
            if stack.work.is_link(path):
                raise BadInput(f"{stack.work.place(path)} is a symbolic link", hint="remove it")
            before = stack.file_of(stack.content(path, owners), None)
            change = made(path, before, stack.file_of(stack.work.read(path), before))
            found += [change] if change is not None else []
    return found


# log, files, list


def _add_log(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "log",
        "what each patch does, and who changed it when",
        "series.py log --since 2026-11-01",
    )
    add_patch(parser, "*")
    parser.add_argument("--oneline", action="store_true", help="a line per patch")
    parser.add_argument("--since", metavar="DATE", help="those updated on DATE or later")
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_log, root=root))


def _log(given: argparse.Namespace, root: Path) -> int:
    if given.since is not None:
        _check_date(given.since)
    described = [(patch, _header(patch)) for patch in _chosen(root, given.patch)]
    since = given.since or ""
    described = [(patch, head) for patch, head in described if head.last_update >= since]
    if given.json:
        logged = [{**_summary(p, head), "body": head.body} for p, head in described]
        console.print_json("log", {"patches": logged})
        return Exit.OK
    paint = Paint(given.color)
    for number, (patch, head) in enumerate(described):
        if given.oneline:
            print(f"{head.last_update}  {paint.bold(patch.name)}  {head.summary}")
            continue
        if number:
            print()
        print(paint.bold(f"patch {patch.name}"))
        print(f"Author: {head.value('Author')}")
        print(f"Date:   {head.last_update}")
        print()
        for line in (head.summary, "", *head.body.split("\n")):
            print(f"    {line}".rstrip())
    return Exit.OK


def _check_date(text: str) -> None:
    from datetime import date  # noqa: PLC0415

    try:
        date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a date", hint="dates read YYYY-MM-DD") from None


def _add_files(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "files",
        "the upstream files that patches change, with lines added and removed",
        "series.py files",
    )
    add_patch(parser, "*")
    console.add_json(parser)
    parser.set_defaults(run=partial(_files, root=root))


def _files(given: argparse.Namespace, root: Path) -> int:
    patches = _chosen(root, given.patch)
    if given.json:
        console.print_json("files", {"files": [_file_as_json(patch) for patch in patches]})
        return Exit.OK
    for patch in patches:
        added, removed = _size(patch)
        was = patch.change.old_path
        renamed = f" (was {was})" if was not in (None, patch.path) else ""
        print(f"{_kind(patch.change)} {f'+{added}':>5} {f'-{removed}':>5}  {patch.path}{renamed}")
    return Exit.OK


def _file_as_json(patch: Patch) -> dict[str, Any]:
    added, removed = _size(patch)
    change = patch.change
    return {
        "path": patch.path,
        "old_path": change.old_path,
        "new_path": change.new_path,
        "kind": _kind(change),
        "patch": patch.name,
        "added": added,
        "removed": removed,
    }


def _kind(change: FileChange) -> str:
    """The letter git has for the change: added, deleted, renamed or modified."""
    if change.old_path is None:
        return "A"
    if change.new_path is None:
        return "D"
    return "M" if change.old_path == change.new_path else "R"


def _size(patch: Patch) -> tuple[int, int]:
    kinds = [line[:1] for hunk in patch.change.hunks for line in hunk.lines]
    return kinds.count(b"+"), kinds.count(b"-")


def _add_list(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "list",
        "the patches, all or those that fit what is asked for",
        "series.py list --archs 12.0 --diagnostic C1061",
    )
    parser.add_argument("--archs", metavar="ARCH", help="built for this CUDA architecture")
    parser.add_argument("--diagnostic", metavar="ID", help="curing this compiler code or exception")
    parser.add_argument("--group", metavar="NAME", help="of build, kernels, runtime or deps")
    parser.add_argument("--forwarded", metavar="STATE", help="no, not-needed, yes or an address")
    parser.add_argument("--test", metavar="TEXT", help="covered by a test with TEXT in its name")
    add_colour(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_list, root=root))


def _list(given: argparse.Namespace, root: Path) -> int:
    described = [(patch, _header(patch)) for patch in _load(root)]
    chosen = [(patch, head) for patch, head in described if _fits(given, patch, head)]
    if given.json:
        console.print_json("list", {"patches": [_summary(*one) for one in chosen]})
        return Exit.OK
    paint = Paint(given.color)
    for patch, head in chosen:
        facts = "; ".join((", ".join(head.diagnostics), f"archs {' '.join(head.archs)}"))
        print(f"{paint.bold(patch.name)}\n    {head.summary}\n    {paint.dim(facts)}")
    if not chosen:
        print("no patch fits", file=sys.stderr)
    return Exit.OK


def _fits(given: argparse.Namespace, patch: Patch, head: Header) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "archs": lambda wanted: _builds_for(head.archs, wanted),
        "diagnostic": lambda wanted: wanted.lower() in [d.lower() for d in head.diagnostics],
        "group": lambda wanted: wanted == patch.group,
        "forwarded": lambda wanted: wanted == head.forwarded,
        "test": lambda wanted: any(wanted in test for test in head.tests),
    }
    return all(fits(wanted) for name, fits in tests.items() if (wanted := getattr(given, name)))


def _builds_for(archs: Sequence[str], wanted: str) -> bool:
    """Whether code for `archs` is built for `wanted`; 12.0a and 12.0f are kinds of 12.0."""
    return "all" in archs or wanted in archs or wanted in {arch.rstrip("af") for arch in archs}


def _summary(patch: Patch, head: Header) -> dict[str, Any]:
    return {
        "name": patch.name,
        "path": patch.path,
        "group": patch.group,
        "summary": head.summary,
        "author": head.value("Author"),
        "last_update": head.last_update,
        "forwarded": head.forwarded,
        "diagnostics": list(head.diagnostics),
        "tests": list(head.tests),
        "archs": list(head.archs),
    }


# header


def _add_header(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "header",
        "print or edit the header of a patch",
        "series.py header setup.py --edit",
    )
    add_patch(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--edit", action="store_true", help="in $VISUAL or $EDITOR")
    how.add_argument("--replace", metavar="FILE", help="by what FILE holds (- is standard input)")
    console.add_json(parser)
    parser.set_defaults(run=partial(_show_header, root=root))


def _show_header(given: argparse.Namespace, root: Path) -> int:
    from portkit.face import rehead  # noqa: PLC0415

    if given.edit or given.replace is not None:
        (patch,) = _chosen(root, [given.patch])
        if given.edit:
            patch, changed = rehead.edit(root, patch)
        else:
            patch, changed = rehead.replace(root, patch, _text_of(given.replace))
        if not given.json:
            print(f"{patch.name}: {'header written' if changed else 'header unchanged'}")
            for line, fault in rehead.faults(patch):
                print(f"note: patch_series/{patch.name}:{line}: {fault}", file=sys.stderr)
            return Exit.OK
    else:
        (patch,) = _chosen(root, [given.patch])
    if given.json:
        shown = _as_json(patch)
        del shown["change"]
        console.print_json("header", shown)
    else:
        console.write_bytes(patch.header)
    return Exit.OK


def _text_of(place: str) -> bytes:
    if place == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {place}: {error.strerror or error}") from None
