"""The stack: `push`, `pop`, `goto`, and where we stand: `top`, `next`, `applied`, `status`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portkit.commands.arguments import add_patch, add_work, subcommand
from portkit.commands.workbench import Bench, add_bench, bench, count, reading
from portkit.errors import BadInput, Exit
from portkit.face import console

if TYPE_CHECKING:
    from portkit.stack.stack import Stack

    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    push = subcommand(
        subcommands,
        "push",
        "apply the next patch, N of them, those up to PATCH, or all",
        "series.py push -a",
        "series.py push csrc/core/math.hpp",
    )
    pop = subcommand(
        subcommands,
        "pop",
        "take off the last patch, N of them, those above PATCH, or all",
        "series.py pop 3",
        "series.py pop csrc/core/math.hpp",
    )
    _add_move(push, root, _depth_of_push)
    _add_move(pop, root, _depth_of_pop)
    _add_goto(subcommands, root)
    top = subcommand(subcommands, "top", "the last applied patch", "series.py top")
    following = subcommand(subcommands, "next", "the patch that push applies", "series.py next")
    _add_place(top, root, _top, "no patch is applied")
    _add_place(following, root, _next, "every patch is applied")
    _add_applied(subcommands, root)
    _add_status(subcommands, root)


# moving


def _add_move(
    parser: argparse.ArgumentParser,
    root: Path,
    depth: Callable[[Stack, argparse.Namespace], int],
) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("which", nargs="?", metavar="N|PATCH", help="how many, or how far")
    which.add_argument("-a", "--all", action="store_true", help="all patches")
    add_bench(parser)
    parser.set_defaults(run=partial(_move, root=root, depth=depth))


def _move(
    given: argparse.Namespace, root: Path, depth: Callable[[Stack, argparse.Namespace], int]
) -> int:
    with bench(given, root) as at:
        return _go(at, depth(at.stack, given), given.command)


def _go(at: Bench, depth: int, command: str) -> int:
    change = at.stack.change(depth=depth)
    top = at.stack.patches[depth - 1].name if depth else "upstream's own files"
    at.do(change, f"{command} to {top}")
    print(f"now at  {top}")
    return Exit.OK


def _depth_of_push(stack: Stack, given: argparse.Namespace) -> int:
    if given.all:
        return len(stack.patches)
    if given.which is None or given.which.isdecimal():
        wanted = stack.depth + int(given.which or 1)
        if stack.depth == len(stack.patches):
            raise BadInput("every patch is applied")
        if wanted > len(stack.patches):
            raise BadInput(f"only {count(len(stack.unapplied), 'patch is', 'patches are')} left")
        return wanted
    patch = stack.find(given.which)
    if stack.is_applied(patch):
        raise BadInput(f"{patch.name} is applied already", hint="goto takes you back to it")
    return stack.patches.index(patch) + 1


def _depth_of_pop(stack: Stack, given: argparse.Namespace) -> int:
    if given.all:
        return 0
    if given.which is None or given.which.isdecimal():
        wanted = stack.depth - int(given.which or 1)
        if stack.depth == 0:
            raise BadInput("no patch is applied")
        if wanted < 0:
            raise BadInput(f"only {count(stack.depth, 'patch is', 'patches are')} applied")
        return wanted
    patch = stack.find(given.which)
    if not stack.is_applied(patch):
        raise BadInput(f"{patch.name} is not applied", hint="goto takes you up to it")
    return stack.patches.index(patch) + 1


def _add_goto(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "goto",
        "push or pop until PATCH is the last applied one",
        "series.py goto setup.py",
    )
    add_patch(parser)
    add_bench(parser)
    parser.set_defaults(run=partial(_goto, root=root))


def _goto(given: argparse.Namespace, root: Path) -> int:
    with bench(given, root) as at:
        return _go(at, at.stack.patches.index(at.stack.find(given.patch)) + 1, "goto")


# where we stand


def _top(stack: Stack) -> str | None:
    return stack.applied[-1].name if stack.applied else None


def _next(stack: Stack) -> str | None:
    return stack.unapplied[0].name if stack.unapplied else None


def _add_place(
    parser: argparse.ArgumentParser,
    root: Path,
    which: Callable[[Stack], str | None],
    nothing: str,
) -> None:
    add_work(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_place, root=root, which=which, nothing=nothing))


def _place(
    given: argparse.Namespace, root: Path, which: Callable[[Stack], str | None], nothing: str
) -> int:
    with reading(given, root) as stack:
        name = which(stack)
    if given.json:
        console.print_json(given.command, {"patch": name})
    elif name is not None:
        print(name)
    else:
        print(nothing, file=sys.stderr)
    return Exit.OK if name is not None else Exit.WAITING


def _add_applied(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "applied",
        "the applied patches, first to last",
        "series.py applied",
        "series.py applied --not",
    )
    parser.add_argument("--not", dest="other", action="store_true", help="those not applied")
    add_work(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_applied, root=root))


def _applied(given: argparse.Namespace, root: Path) -> int:
    with reading(given, root) as stack:
        names = [patch.name for patch in (stack.unapplied if given.other else stack.applied)]
    if given.json:
        console.print_json("applied", {"unapplied" if given.other else "applied": names})
    else:
        print("".join(f"{name}\n" for name in names), end="")
    return Exit.OK


def _add_status(subcommands: Subcommands, root: Path) -> None:
    parser = subcommand(
        subcommands,
        "status",
        "where the stack stands, and the edits that are in no patch yet",
        "series.py status",
    )
    add_work(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_status, root=root))


def _status(given: argparse.Namespace, root: Path) -> int:
    with reading(given, root) as stack:
        result: dict[str, Any] = {
            "tag": stack.pin.tag,
            "work": stack.work.folder,
            "top": _top(stack),
            "next": _next(stack),
            "applied": stack.depth,
            "patches": len(stack.patches),
            "edits": [_edit(stack, path) for path in stack.edited()],
            "announced": dict(stack.state.subjects),
        }
    if given.json:
        console.print_json("status", result)
        return Exit.OK
    print(f"vLLM {result['tag']}, {result['applied']} of {result['patches']} patches applied")
    for word in ("top", "next"):
        if result[word]:
            print(f"{word:8}{result[word]}")
    for edit in result["edits"]:
        print(f"{edit['kind']:8}{result['work']}/{edit['file']}  ({edit['note']})")
    for path in result["announced"]:
        print(f"new     {path}  (nothing is in this patch yet)")
    return Exit.OK


def _edit(stack: Stack, path: str) -> dict[str, str | None]:
    """A file that is not as the tools left it, and what that means."""
    owner = stack.owner(path)
    if owner is None:
        note = "refresh makes a patch of it"
    elif not stack.is_applied(owner):
        note = f"{owner.name} is not applied"
    elif not stack.is_current(owner):
        note = f"{owner.name} was changed since it was pushed"
    else:
        note = owner.name
    kind = "gone" if stack.work.digest(path) is None else "edited"
    kind = "new" if path not in stack.state.files and kind == "edited" else kind
    return {"file": path, "kind": kind, "patch": owner.name if owner else None, "note": note}
