"""One big patch and the series: `split` makes per-file patches of it, `join` makes it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum
from itertools import pairwise

from portkit.errors import BadInput
from portkit.model import FileChange, Patch, Pin, split_lines
from portkit.patches import header
from portkit.patches.apply import DoesNotApply, apply_change, edits_of, hunks_from_edits
from portkit.patches.diffparse import MODES, parse_diff
from portkit.patches.patchfile import canonical_change, format_change
from portkit.patches.series import GROUPS, Series, name_for
from portkit.upstream.git import Store


class Existing(Enum):
    """What `split` does with a file that the series patches already."""

    REFUSE = "refuse"
    MERGE = "merge"  # both patches' edits, where they are apart
    REPLACE = "replace"  # the imported change under the existing header


@dataclass(frozen=True)
class Split:
    """What `split` made: the new series, and the names it added and changed."""

    series: Series
    added: tuple[str, ...]
    changed: tuple[str, ...]


class Base:
    """The pristine files of the pin, as far as a diff needs them."""

    def __init__(self, store: Store, tree: str) -> None:
        self._store = store
        self._files = store.files(tree)
        self._folders = {
            path[:end] for path in self._files for end, char in enumerate(path) if char == "/"
        }

    def read(self, change: FileChange) -> bytes | None:
        """The old content of the file `change` is about, None when there must be none.

        Raises `DoesNotApply` when the paths or modes do not fit the tree.
        """
        path = change.path
        folder = next((path[:end] for end in _slashes(path) if path[:end] in self._files), None)
        if folder or path in self._folders:
            raise DoesNotApply(path, f"{folder or path} is both a file and a folder")
        if change.new_path not in (None, change.old_path) and change.new_path in self._files:
            raise DoesNotApply(path, "the new file exists already")
        if change.old_path is None:
            return None
        entry = self._files.get(change.old_path)
        if entry is None:
            raise DoesNotApply(path, f"there is no file {change.old_path}")
        if entry.mode not in MODES:
            raise DoesNotApply(path, "is a symbolic link or a submodule")
        if change.old_mode not in (None, entry.mode):
            raise DoesNotApply(path, f"has mode {entry.mode}, not {change.old_mode}")
        return self._store.read(entry.oid)

    def mode(self, path: str) -> str:
        return self._files[path].mode


def split(
    data: bytes,
    origin: str,
    base: Base,
    series: Series,
    *,
    existing: Existing = Existing.REFUSE,
    group: str | None = None,
    author: str,
    today: date,
) -> Split:
    """The series with the changes of the diff `data` as per-file patches.

    Every change must apply exactly to the pin's files; new patches get a stub for a header and
    stand behind the others of their group (`group`, or the one their path belongs to).  Raises
    `BadInput` that lists all files that cannot be taken.
    """
    changes = parse_diff(data, origin)
    _refuse_repeated(changes)
    known = {path: patch for patch in series.upstream for path in _paths(patch.change)}
    problems: list[str] = []
    taken: list[Patch] = []
    for change in changes:
        patches = {known[path].name: known[path] for path in _paths(change) if path in known}
        try:
            fitted = _fitted(change, base)
            if patches:
                taken.append(_combined(list(patches.values()), fitted, base, existing))
            else:
                stub = header.stub(change.path, author=author, today=today)
                taken.append(Patch(name_for(change.path, group), stub, fitted))
        except DoesNotApply as error:
            problems.append(error.message)
    if problems:
        raise BadInput(
            f"{origin}: {len(problems)} of {len(changes)} files cannot be imported:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            hint="nothing was written; --existing merge or replace takes files patched already",
        )
    return inserted(series, taken)


def join(series: Series, pin: Pin) -> bytes:
    """Every upstream patch of the series as one git patch, for `git apply`."""
    patches = series.upstream
    head = f"{len(patches)} patches on {pin.repository} {pin.tag} ({pin.commit})\n\n"
    return head.encode() + b"".join(format_change(patch.change) for patch in patches)


def _refuse_repeated(changes: Sequence[FileChange]) -> None:
    for path, count in Counter(path for change in changes for path in _paths(change)).items():
        if count > 1:
            raise BadInput(
                f"{path} is changed {count} times in one patch",
                hint="make one diff of the whole, such as `git diff BASE HEAD`",
            )


def _fitted(change: FileChange, base: Base) -> FileChange:
    """`change` with exactly three lines of context; raises `DoesNotApply` if it does not apply."""
    if any(char.isspace() for char in change.path):
        raise DoesNotApply(change.path, "quilt's series cannot hold a name with spaces")
    if any(b"\0" in line for hunk in change.hunks for line in hunk.lines):
        raise DoesNotApply(change.path, "holds NUL bytes, so it is not text")
    before = base.read(change)
    apply_change(change, before)
    hunks = hunks_from_edits(split_lines(before or b""), edits_of(change))
    mode = base.mode(change.old_path) if change.old_path is not None else None
    return canonical_change(replace(change, hunks=hunks, old_mode=change.old_mode or mode))


def _combined(
    patches: Sequence[Patch], change: FileChange, base: Base, existing: Existing
) -> Patch:
    """The existing patch with the imported `change` taken in as `existing` says."""
    patch = patches[0]
    if len(patches) == 1 and canonical_change(patch.change) == change:
        return patch
    if len(patches) > 1 or existing is Existing.REFUSE:
        names = " and ".join(patch.name for patch in patches)
        raise DoesNotApply(change.path, f"is patched already by {names}")
    if patch.path != change.path:
        raise DoesNotApply(change.path, f"{patch.name} is for another name of this file")
    if existing is Existing.REPLACE:
        return replace(patch, change=change)
    return replace(patch, change=merged(patch.change, change, base))


def merged(ours: FileChange, theirs: FileChange, base: Base) -> FileChange:
    """Both changes of one file, where they are apart or the same."""
    if (ours.old_path, ours.new_path) != (theirs.old_path, theirs.new_path):
        raise DoesNotApply(theirs.path, "the existing patch renames, adds or deletes it")
    edits = sorted({*edits_of(ours), *edits_of(theirs)}, key=lambda edit: (edit.start, edit.end))
    for first, second in pairwise(edits):
        if second.start <= first.end:
            raise DoesNotApply(
                theirs.path, f"overlaps the existing patch at line {second.start + 1} of the pin"
            )
    lines = split_lines(base.read(ours) or b"")
    old_mode, new_mode = ours.old_mode or theirs.old_mode, ours.new_mode or theirs.new_mode
    hunks = hunks_from_edits(lines, edits)
    return replace(ours, hunks=hunks, old_mode=old_mode, new_mode=new_mode)


def inserted(series: Series, taken: Sequence[Patch]) -> Split:
    """`series` with `taken`: in their place, or behind the last patch of their group."""
    rank = {group: number for number, group in enumerate((*GROUPS, "deps"))}
    order = {patch.name: patch for patch in series.patches}
    added = tuple(patch.name for patch in taken if patch.name not in order)
    changed = tuple(
        patch.name for patch in taken if patch.name in order and order[patch.name] != patch
    )
    patches = [*series.patches]
    for patch in taken:
        if patch.name in order:
            patches[[one.name for one in patches].index(patch.name)] = patch
        else:
            before = [rank[one.group] <= rank[patch.group] for one in patches]
            at = len(before) - before[::-1].index(True) if True in before else 0
            patches.insert(at, patch)
    return Split(series.with_patches(patches), added, changed)


def _paths(change: FileChange) -> set[str]:
    return {path for path in (change.old_path, change.new_path) if path is not None}


def _slashes(path: str) -> list[int]:
    return [end for end, char in enumerate(path) if char == "/"]
