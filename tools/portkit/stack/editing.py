"""What becomes of the series when a person edits: refresh, fold, rename, split.

Each gives a new series, or raises and nothing has happened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date

from portkit.change.managed import WORK_FOLDER
from portkit.errors import BadInput
from portkit.model import FileChange, Patch
from portkit.patches import header
from portkit.patches.apply import DoesNotApply, apply_change
from portkit.patches.diffparse import parse_diff, unsafe_path
from portkit.patches.monolith import inserted, merged
from portkit.patches.patchfile import canonical_change, format_patch, parse_patch
from portkit.patches.series import GROUPS, Series, name_for
from portkit.stack.revise import File, divided, headed, made, revised, updated
from portkit.stack.stack import Stack

SPLIT_FOLDER = f"{WORK_FOLDER}/split"


@dataclass(frozen=True)
class Edited:
    """A new series, and the names of the patches that are new, changed and gone in it."""

    series: Series
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


# refresh


def refreshed(
    stack: Stack, paths: Sequence[str], *, message: str = "", author: str, today: date
) -> Edited:
    """The series with what the work tree has in these files, each in the patch of its file.

    `message` is the description of new patches that `new` did not announce.  Raises `BadInput`
    that names every file whose edits cannot be taken, and why.
    """
    results: dict[str, Patch | None] = {}
    new: list[Patch] = []
    problems: list[str] = []
    for path in paths:
        try:
            owner = stack.owner(path)
            if owner is None:
                subject = stack.state.subjects.get(path, message)
                new.append(_new(stack, path, subject, author, today))
            else:
                results[owner.name] = _refreshed(stack, owner, path, today)
        except BadInput as error:
            problems.append(error.message)
    if problems:
        raise BadInput(
            "edits cannot be taken, nothing was done:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            hint="series.py refresh FILE takes the others, revert FILE drops edits",
        )
    return _series_with(stack.series, results, new)


def _new(stack: Stack, path: str, subject: str, author: str, today: date) -> Patch:
    refuse_name(path)
    base = stack.pristine.file(path)
    change = made(path, base, _lying(stack, path, base))
    assert change is not None  # it would not count as edited
    stack.pristine.base.read(change)  # refuses a file where upstream has a folder
    head = headed(path, subject, author=author, today=today)
    return Patch(name_for(path), head, change)


def _refreshed(stack: Stack, owner: Patch, path: str, today: date) -> Patch | None:
    if not stack.is_applied(owner):
        raise BadInput(f"{path}: {owner.name} is not applied, so its changes are not in the file")
    if not stack.is_current(owner):
        raise BadInput(f"{path}: {owner.name} was changed in the series since it was pushed")
    if owner.change.new_path is not None and path != owner.change.new_path:
        raise BadInput(f"{path}: {owner.name} renames it to {owner.path}")
    change = canonical_change(owner.change)
    base = None if change.old_path is None else stack.pristine.file(change.old_path)
    before = stack.patched(owner)
    after = _lying(stack, path, before or base)
    result = revised(change, base, before, after)
    return None if result is None else _named(updated(owner, result, today))


def _named(patch: Patch) -> Patch:
    """`patch` with the name its file asks for: one that deletes a renamed file loses that name."""
    if patch.name.endswith(f"/{patch.path}.patch"):
        return patch
    return replace(patch, name=name_for(patch.path, patch.group))


def _lying(stack: Stack, path: str, like: File | None) -> File | None:
    """The file as it lies in the work tree; raises `BadInput` unless a patch can carry it."""
    if stack.work.is_link(path):
        raise BadInput(f"{path}: is a symbolic link, patches carry files")
    file = stack.file_of(stack.work.read(path), like)
    if file is not None and b"\0" in file.data:
        raise BadInput(f"{path}: holds NUL bytes, patches carry text only")
    return file


def refuse_name(path: str) -> None:
    """Raise `BadInput` for an upstream path that no patch can be named after."""
    if any(char.isspace() for char in path):
        raise BadInput(f"{path}: quilt's series cannot hold a name with spaces")
    if reason := unsafe_path(path):
        raise BadInput(f"{path!a}: {reason}")


def _series_with(series: Series, results: dict[str, Patch | None], new: Sequence[Patch]) -> Edited:
    """`series` with patches replaced or gone (None) by name, and new ones behind their group."""
    patches = [results.get(patch.name, patch) for patch in series.patches]
    kept = [patch for patch in patches if patch is not None]
    names = {name: patch.name for name, patch in results.items() if patch is not None}
    whole = inserted(series.with_patches(kept, names), new).series
    return Edited(
        whole,
        tuple(patch.name for patch in new),
        tuple(
            patch.name
            for patch in kept
            if patch.name in names.values() and patch not in series.patches
        ),
        tuple(name for name, patch in results.items() if patch is None),
    )


# fold


def folded(stack: Stack, data: bytes, origin: str, *, author: str, today: date) -> Edited:
    """The series with the diff `data`, made on the patched or on the pristine source, taken in.

    Raises `BadInput` that names every file that cannot be taken.
    """
    results: dict[str, Patch | None] = {}
    new: list[Patch] = []
    problems: list[str] = []
    seen: set[str] = set()
    for change in parse_diff(data, origin):
        try:
            if seen & _paths(change):
                raise BadInput(f"{change.path}: is changed twice")
            seen |= _paths(change)
            owners = {o.name: o for o in map(stack.owner, _paths(change)) if o is not None}
            if owners:
                for name, owner in owners.items():
                    results[name] = _folded(stack, owner, change, today)
            else:
                head = _header_in(data, origin) or headed(
                    change.path, "", author=author, today=today
                )
                new.append(_folded_new(stack, change, head))
        except BadInput as error:
            problems.append(error.message)
    if problems:
        raise BadInput(
            f"{origin} cannot be folded in, nothing was done:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            hint="it must apply exactly to the patched or to the pristine source",
        )
    return _series_with(stack.series, results, new)


def _header_in(data: bytes, origin: str) -> bytes:
    """The header of a patch of one file as the series has them, else nothing."""
    try:
        patch = parse_patch(origin, data)
    except BadInput:
        return b""
    return patch.header if header.parse(patch.header).summary else b""


def _folded_new(stack: Stack, change: FileChange, head: bytes) -> Patch:
    refuse_name(change.path)
    stack.pristine.base.read(change)  # refuses paths and modes that do not fit upstream's
    base = None if change.old_path is None else stack.pristine.file(change.old_path)
    after = _applied(change, base)
    if change.old_path in (None, change.new_path) or after is None:
        fitted = made(change.path, base, after)
    else:
        assert base is not None
        whole = FileChange(change.old_path, change.new_path)
        fitted = revised(whole, base, File(base.data, base.mode), after)
    if fitted is None:
        raise BadInput(f"{change.path}: nothing changes")
    return Patch(name_for(change.path), head, fitted)


def _folded(stack: Stack, owner: Patch, change: FileChange, today: date) -> Patch | None:
    ours = canonical_change(owner.change)
    base = None if ours.old_path is None else stack.pristine.file(ours.old_path)
    before = stack.patched(owner)
    if change.old_path not in (None, change.new_path) and change.new_path is not None:
        raise BadInput(f"{change.path}: cannot rename a file that {owner.name} is about")
    if owner.change.new_path is not None and change.path != owner.path:
        raise BadInput(f"{change.path}: {owner.name} renames it to {owner.path}")
    try:
        result = revised(ours, base, before, _applied(change, before))
    except DoesNotApply as error:
        try:
            _applied(change, base)
            result = merged(ours, change, stack.pristine.base)
        except DoesNotApply:
            raise error from None
    return None if result is None else _named(updated(owner, result, today))


def _applied(change: FileChange, before: File | None) -> File | None:
    if change.old_mode is not None and before is not None and change.old_mode != before.mode:
        raise DoesNotApply(change.path, f"has mode {before.mode}, not {change.old_mode}")
    data = apply_change(change, None if before is None else before.data)
    if data is None:
        return None
    if b"\0" in data:
        raise BadInput(f"{change.path}: holds NUL bytes, patches carry text only")
    return File(data, change.new_mode or (before.mode if before is not None else "100644"))


def _paths(change: FileChange) -> set[str]:
    return {path for path in (change.old_path, change.new_path) if path is not None}


# rename and split


def renamed(stack: Stack, patch: Patch, text: str) -> Patch:
    """`patch` in another group or with its file under another name, as `text` asks.

    Raises `BadInput` for a name that cannot be.
    """
    group, path = _wanted(patch, text)
    if path == patch.path:
        return replace(patch, name=name_for(path, group))
    if patch.change.new_path is None:
        raise BadInput(f"{patch.name} deletes its file, which cannot have another name")
    refuse_name(path)
    change = replace(patch.change, new_path=path)
    stack.pristine.base.read(change)  # refuses a name that upstream uses
    if change.old_path == change.new_path and not (change.hunks or change.old_mode):
        raise BadInput(f"{patch.name} would change nothing then", hint="drop it instead")
    return replace(patch, name=name_for(path, group), change=change)


def _wanted(patch: Patch, text: str) -> tuple[str, str]:
    """The group and the file that a person asks for by a patch's name or by a path."""
    wanted = text.replace("\\", "/").removeprefix("patch_series/").removeprefix("./")
    if wanted.endswith(".patch"):
        group, slash, path = wanted.removesuffix(".patch").partition("/")
        if group not in GROUPS or not slash or not path:
            raise BadInput(
                f"{text} is not the name of a patch", hint=f"begin with {', '.join(GROUPS)}"
            )
        return group, path
    return patch.group, wanted


def split(
    stack: Stack, patch: Patch, hunks: Collection[int], today: date
) -> tuple[Series, str, bytes]:
    """The series without these hunks of `patch`; the file to keep them in, and its content."""
    rest, taken = divided(patch.change, set(hunks))
    empty = not rest.hunks and rest.old_mode is None and rest.old_path == rest.new_path
    left = None if empty else updated(patch, rest, today)
    series = _series_with(stack.series, {patch.name: left}, ()).series
    numbers = "-".join(map(str, sorted(set(hunks))))
    name = patch.path.rpartition("/")[2]
    data = format_patch(replace(patch, change=taken))
    return series, f"{SPLIT_FOLDER}/{name}-{numbers}.patch", data
