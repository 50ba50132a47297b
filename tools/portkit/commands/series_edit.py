"""Editing the series: what a work tree's edits become, and what is done to whole patches."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.commands.arguments import add_patch, subcommand
from portkit.commands.workbench import AUTHOR, Bench, add_bench, bench, count, today
from portkit.errors import BadInput, Exit
from portkit.face import console

if TYPE_CHECKING:
    from portkit.model import Patch
    from portkit.patches.series import Series
    from portkit.stack.editing import Edited

    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    _add_new(subcommands, root)
    _add_edit(subcommands, root)
    _add_refresh(subcommands, root)
    _add_revert(subcommands, root)
    _add_fold(subcommands, root)
    _add_drop(subcommands, root)
    _add_rename(subcommands, root)
    _add_reorder(subcommands, root)
    _add_split(subcommands, root)


def _finish(parser: argparse.ArgumentParser, run: partial[int]) -> None:
    add_bench(parser)
    parser.set_defaults(run=run)


# the work tree


def _add_new(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "new",
        "announce a patch for a file that has none; refresh fills it",
        'series.py new vllm/utils/paths.py -m "Let paths hold spaces"',
    )
    parser.add_argument("path", metavar="PATH", help="the upstream file, there or not yet")
    parser.add_argument("-m", "--message", required=True, help="its description")
    _finish(parser, partial(_new, root=root))


def _new(given: argparse.Namespace, root: Path) -> int:
    from portkit.stack.editing import refuse_name  # noqa: PLC0415

    with bench(given, root) as at:
        path = at.stack.path(given.path)
        owner = at.stack.owner(path)
        if owner is not None:
            raise BadInput(f"{path} has a patch: {owner.name}", hint=f"series.py edit {path}")
        refuse_name(path)
        if not given.message.strip():
            raise BadInput("the description is empty")
        subjects = {**at.stack.state.subjects, path: given.message}
        show = [] if path in at.stack.edited() else [path]
        at.do(at.stack.change(show=show, subjects=subjects), f"new {path}")
        print(f"edit {at.stack.work.place(path)}, then: series.py refresh")
    return Exit.OK


def _add_edit(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "edit",
        "open a file with its patch and everything before it applied",
        "series.py edit csrc/core/math.hpp",
        "series.py edit --no-editor csrc/quantization",
    )
    parser.add_argument(
        "path", metavar="PATH", help="a file or a folder of upstream, or a patch; . is everything"
    )
    parser.add_argument("--no-editor", action="store_true", help="only write it there")
    _finish(parser, partial(_edit, root=root))


def _edit(given: argparse.Namespace, root: Path) -> int:
    from portkit.face.rehead import open_editor  # noqa: PLC0415
    from portkit.patches.diffparse import MODES  # noqa: PLC0415

    with bench(given, root) as at:
        stack = at.stack
        path = stack.path(given.path).rstrip("/")
        entries = stack.pristine.files
        below = [
            one
            for one, entry in entries.items()
            if (path in ("", ".") or one.startswith(f"{path}/")) and entry.mode in MODES
        ]
        if below:
            there = {*stack.state.files, *stack.work.paths()}
            change = stack.change(show=[one for one in below if one not in there])
            at.do(change, f"edit {path}")
            print(f"{count(len(below), 'file', 'files')} in {stack.work.place(path)}")
            return Exit.OK
        if path in entries and stack.owner(path) is None:
            show, need = [] if stack.work.digest(path) is not None else [path], []
        else:
            patch = stack.find(given.path)
            path, show, need = patch.path, [], [patch.name]
            if patch.change.new_path is None:
                raise BadInput(f"{patch.name} deletes the file", hint=f"series.py drop {path}")
        at.do(stack.change(show=show, need=need), f"edit {path}")
        file = root / stack.work.place(path)
        print(stack.work.place(path))
    if not given.no_editor:
        open_editor(file)
    return Exit.OK


def _add_refresh(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "refresh",
        "take the work tree's edits into their patches; a file without one gets a new one",
        "series.py refresh",
        "series.py refresh setup.py --dry-run",
    )
    parser.add_argument("patch", nargs="*", metavar="PATCH", help="only these patches or files")
    parser.add_argument("--dry-run", action="store_true", help="show it; write nothing")
    parser.add_argument("-m", "--message", default="", help="the description of a new patch")
    parser.add_argument("--author", default=AUTHOR, help="author of new patches")
    console.add_json(parser)
    _finish(parser, partial(_refresh, root=root))


def _refresh(given: argparse.Namespace, root: Path) -> int:
    from portkit.stack import editing  # noqa: PLC0415

    with bench(given, root) as at:
        paths = _edited_paths(at, given.patch)
        edited = editing.refreshed(
            at.stack, paths, message=given.message, author=given.author, today=today()
        )
        if not given.dry_run and paths:
            subjects = {p: m for p, m in at.stack.state.subjects.items() if p not in paths}
            change = at.stack.change(series=edited.series, need=edited.added, subjects=subjects)
            at.do(change, f"refresh of {_named(edited)}")
    _say(edited, given, "refresh")
    return Exit.OK


def _edited_paths(at: Bench, wanted: Sequence[str]) -> list[str]:
    """The edited files, or those of them a person names by file or by patch."""
    edited = at.stack.edited()
    if not wanted:
        return edited
    found: list[str] = []
    for text in wanted:
        path = at.stack.path(text)
        if path in edited:
            found.append(path)
        else:
            patch = at.stack.find(text)
            mine = [one for one in edited if at.stack.owner(one) is patch]
            if not mine:
                raise BadInput(f"{patch.path} is not edited", hint="see: series.py status")
            found += mine
    return list(dict.fromkeys(found))


def _add_revert(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "revert",
        "drop the edits of files; undo brings them back",
        "series.py revert setup.py",
    )
    parser.add_argument("path", nargs="+", metavar="FILE", help="a file of the work tree")
    _finish(parser, partial(_revert, root=root))


def _revert(given: argparse.Namespace, root: Path) -> int:
    with bench(given, root) as at:
        edited = at.stack.edited()
        paths = [at.stack.path(text) for text in given.path]
        for path in paths:
            if path not in edited:
                raise BadInput(f"{path} is not edited", hint="see: series.py status")
        at.do(at.stack.change(discard=paths), f"revert {_list(paths)}")
        for path in paths:
            print(f"reverted {path}")
    return Exit.OK


# whole patches


def _add_fold(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "fold",
        "take a diff on the patched source into the patches of its files",
        "series.py fold fix.patch",
    )
    parser.add_argument("other", type=Path, metavar="OTHER.patch")
    parser.add_argument("--dry-run", action="store_true", help="show it; write nothing")
    parser.add_argument("--author", default=AUTHOR, help="author of new patches")
    console.add_json(parser)
    _finish(parser, partial(_fold, root=root))


def _fold(given: argparse.Namespace, root: Path) -> int:
    from portkit.stack import editing  # noqa: PLC0415

    try:
        data = given.other.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {given.other}: {error.strerror or error}") from None
    with bench(given, root) as at:
        edited = editing.folded(
            at.stack, data, str(given.other), author=given.author, today=today()
        )
        if not given.dry_run:
            at.do(at.stack.change(series=edited.series), f"fold of {given.other.name}")
    _say(edited, given, "fold")
    return Exit.OK


def _add_drop(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands, "drop", "remove patches from the series", "series.py drop setup.py"
    )
    add_patch(parser, nargs="+")
    _finish(parser, partial(_drop, root=root))


def _drop(given: argparse.Namespace, root: Path) -> int:
    with bench(given, root) as at:
        gone = {at.stack.find(text).name for text in given.patch}
        kept = [patch for patch in at.stack.series.patches if patch.name not in gone]
        change = at.stack.change(series=at.stack.series.with_patches(kept))
        at.do(change, f"drop {_list(sorted(gone))}")
        print("".join(f"dropped {name}\n" for name in sorted(gone)), end="")
    return Exit.OK


def _add_rename(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "rename",
        "put a patch into another group, or give its file another name",
        "series.py rename vllm/x.py build/vllm/x.py.patch",
        "series.py rename vllm/win.py vllm/windows.py",
        description="NEW is a patch name, such as build/setup.py.patch, or a file. With another "
        "file the patch renames the upstream file, or adds it under the new name.",
    )
    add_patch(parser)
    parser.add_argument("new", metavar="NEW", help="the name of the patch or of its file")
    _finish(parser, partial(_rename, root=root))


def _rename(given: argparse.Namespace, root: Path) -> int:
    from portkit.stack import editing  # noqa: PLC0415

    with bench(given, root) as at:
        old = at.stack.find(given.patch)
        new = editing.renamed(at.stack, old, given.new)
        patches = [new if one.name == old.name else one for one in at.stack.series.patches]
        series = at.stack.series.with_patches(patches, {old.name: new.name})
        need = [new.name] if at.stack.is_applied(old) else []
        at.do(at.stack.change(series=series, need=need), f"rename {old.name} to {new.name}")
        print(f"renamed {old.name} to {new.name}")
    return Exit.OK


def _add_reorder(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "reorder",
        "move a patch to another place in the series",
        "series.py reorder setup.py --before CMakeLists.txt",
        "series.py reorder setup.py --last",
    )
    add_patch(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--before", metavar="OTHER", help="in front of another patch")
    where.add_argument("--after", metavar="OTHER", help="behind another patch")
    where.add_argument("--first", action="store_true", help="in front of all")
    where.add_argument("--last", action="store_true", help="behind all")
    _finish(parser, partial(_reorder, root=root))


def _reorder(given: argparse.Namespace, root: Path) -> int:
    with bench(given, root) as at:
        patch = at.stack.find(given.patch)
        rest = [one for one in at.stack.series.patches if one.name != patch.name]
        index = 0 if given.first else len(rest)
        if given.before or given.after:
            other = at.stack.find(given.before or given.after)
            if other.name == patch.name:
                raise BadInput(f"{patch.name} cannot stand beside itself")
            index = rest.index(other) + bool(given.after)
        series = _moved(at.stack.series, patch, rest, index)
        at.do(at.stack.change(series=series), f"reorder {patch.name}")
        print(f"{patch.name} is now patch {index + 1} of {len(rest) + 1}")
    return Exit.OK


def _moved(series: Series, patch: Patch, rest: Sequence[Patch], index: int) -> Series:
    """`series` with `patch` in front of the one at `index` of `rest`, the others.

    Comments stay where they are, since most are headings of what follows: a patch that comes to
    be the first of its group stands below the heading.
    """
    placed = series.with_patches(rest).with_patches([*rest[:index], patch, *rest[index:]])
    entries = [*placed.entries]
    if index < len(rest) and rest[index].group == patch.group:
        heading = entries[index + 1].above
        entries[index] = replace(entries[index], above=heading)
        entries[index + 1] = replace(entries[index + 1], above=())
    return replace(placed, entries=tuple(entries))


def _add_split(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "split",
        "take hunks out of a patch into a diff of their own, which fold takes back",
        "series.py split setup.py --hunk 2 --hunk 4",
        description="A file has one patch, so the hunks leave the series: they are written to "
        "work/split/, as a diff on the source without them.",
    )
    add_patch(parser)
    parser.add_argument(
        "--hunk", type=int, action="append", required=True, metavar="N", help="1 is the first"
    )
    _finish(parser, partial(_split, root=root))


def _split(given: argparse.Namespace, root: Path) -> int:
    from portkit.stack import editing  # noqa: PLC0415

    with bench(given, root) as at:
        patch = at.stack.find(given.patch)
        series, file, data = editing.split(at.stack, patch, given.hunk, today())
        if (root / file).exists():
            raise BadInput(f"{file} is there already", hint="move it away first")
        change = at.stack.change(series=series)
        at.do(replace(change, files={**change.files, file: data}), f"split {patch.name}")
        print(f"{count(len(set(given.hunk)), 'hunk', 'hunks')} of {patch.name} moved to {file}")
        if series.find(patch.name) is None:
            print(f"dropped {patch.name}: nothing is left in it")
    return Exit.OK


# saying what was done


def _say(edited: Edited, given: argparse.Namespace, command: str) -> None:
    words: Mapping[str, Sequence[str]] = {
        "added": edited.added,
        "changed": edited.changed,
        "dropped": edited.dropped,
    }
    if given.json:
        lists = {word: list(names) for word, names in words.items()}
        console.print_json(command, {**lists, "written": not given.dry_run})
        return
    for word, names in words.items():
        why = "  (nothing is left in it)" if word == "dropped" else ""
        for name in names:
            print(f"{word:8}{name}{why}")
    number = sum(map(len, words.values()))
    if not number:
        print("nothing to do: no file is edited" if command == "refresh" else "nothing changes")
    elif given.dry_run:
        print(f"nothing was written: {count(number, 'patch', 'patches')} would be")
    elif edited.added:
        print("fill in the headers of new patches: series.py header PATCH --edit")


def _named(edited: Edited) -> str:
    return _list([*edited.added, *edited.changed, *edited.dropped])


def _list(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} more" if names else "nothing"
