"""Changes as edits: apply and reverse them exactly, make hunks from edits, diff two files.

Nothing here searches: a hunk applies at its stated line or not at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from portkit.errors import BadInput
from portkit.model import Edit, FileChange, Hunk, split_lines
from portkit.patches.diffparse import parse_diff
from portkit.upstream.git import git

__all__ = [
    "DoesNotApply",
    "apply_change",
    "apply_edits",
    "blocks_of",
    "change_between",
    "diff",
    "diffs",
    "edits_of",
    "hunks_from_edits",
    "reverse",
    "split_lines",
]

CONTEXT = 3


class DoesNotApply(BadInput):
    """A change does not fit its base: `hunk` (1-based) at `line` of the base, 0 when no hunk."""

    def __init__(self, path: str, message: str, *, hunk: int = 0, line: int = 0) -> None:
        super().__init__(f"{path}: {message}", hint="the file is not the one it was made for")
        self.path = path
        self.hunk = hunk
        self.line = line


def apply_change(change: FileChange, base: bytes | None) -> bytes | None:
    """The file after `change`: `base` is its old content; None stands for no file on each side.

    Raises `DoesNotApply` unless every hunk fits at its stated line.
    """
    if change.old_path is None and base is not None:
        raise DoesNotApply(change.path, "the new file exists already")
    if change.old_path is not None and base is None:
        raise DoesNotApply(change.path, f"there is no file {change.old_path}")
    result = _apply_hunks(change, split_lines(base or b""))
    if change.new_path is not None:
        return b"".join(result)
    if result:
        raise DoesNotApply(change.path, "the deleted file has lines that the patch does not know")
    return None


def _apply_hunks(change: FileChange, base: list[bytes]) -> list[bytes]:
    result: list[bytes] = []
    done = 0
    for number, hunk in enumerate(change.hunks, 1):
        begin = hunk.old_index
        if begin < done:
            raise DoesNotApply(
                change.path, f"hunk {number} overlaps the one before", hunk=number, line=begin + 1
            )
        for offset, line in enumerate(hunk.before):
            at = begin + offset
            if at >= len(base) or base[at] != line:
                found = _shown(base[at]) if at < len(base) else "the end of the file"
                raise DoesNotApply(
                    change.path,
                    f"hunk {number} does not apply at line {at + 1}: "
                    f"expected {_shown(line)}, found {found}",
                    hunk=number,
                    line=at + 1,
                )
        if begin > len(base):
            raise DoesNotApply(
                change.path,
                f"hunk {number} is at line {begin}, the file has {len(base)}",
                hunk=number,
                line=begin,
            )
        result += base[done:begin]
        result += hunk.after
        done = begin + hunk.old_count
    result += base[done:]
    for at, line in enumerate(result[:-1], 1):
        if not line.endswith(b"\n"):
            raise DoesNotApply(change.path, f"a line without newline ends up inside, at line {at}")
    return result


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return ascii(text if len(text) <= 60 else text[:57] + "...")


_SWAPPED = {b"-": b"+", b"+": b"-", b" ": b" "}


def reverse(change: FileChange) -> FileChange:
    """The change that undoes `change`."""
    return FileChange(
        change.new_path,
        change.old_path,
        tuple(_reverse_hunk(hunk) for hunk in change.hunks),
        change.new_mode,
        change.old_mode,
    )


def _reverse_hunk(hunk: Hunk) -> Hunk:
    lines: list[bytes] = []
    added: list[bytes] = []  # kept until after the "-" lines of the same run, as git writes
    for line in hunk.lines:
        swapped = _SWAPPED[line[:1]] + line[1:]
        if swapped[:1] == b"+":
            added.append(swapped)
            continue
        if swapped[:1] == b" ":
            lines += added
            added = []
        lines.append(swapped)
    lines += added
    return Hunk(hunk.new_start, hunk.new_count, hunk.old_start, hunk.old_count, tuple(lines))


# edits


def edits_of(change: FileChange) -> list[Edit]:
    """One edit of the old file per run of removed and added lines."""
    return [block for hunk in change.hunks for block in blocks_of(hunk)]


def blocks_of(hunk: Hunk) -> tuple[Edit, ...]:
    """The edits of one hunk."""
    edits: list[Edit] = []
    at = start = hunk.old_index
    added: list[bytes] = []
    for line in (*hunk.lines, b" "):
        kind = line[:1]
        if kind == b"+":
            added.append(line[1:])
        elif kind == b"-":
            at += 1
        else:
            if added or at > start:
                edits.append(Edit(start, at, tuple(added)))
            added = []
            at = start = at + 1
    return tuple(edits)


def apply_edits(
    base_lines: Sequence[bytes], edits: Iterable[Edit], start: int = 0, end: int | None = None
) -> list[bytes]:
    """Lines [start, end) with `edits`, which lie within, are in order and do not overlap."""
    result: list[bytes] = []
    for edit in edits:
        result += base_lines[start : edit.start]
        result += edit.lines
        start = edit.end
    result += base_lines[start:end]
    return result


def hunks_from_edits(base_lines: Sequence[bytes], edits: Sequence[Edit]) -> tuple[Hunk, ...]:
    """The hunks of `edits` (in order, not overlapping) with three lines of context, as git's.

    Edits that touch become one, and hunks whose contexts touch are merged.  Raises `ValueError`
    when the edits are out of order, or leave a line without newline inside the file.
    """
    runs = _joined(base_lines, edits)
    hunks: list[Hunk] = []
    shift = 0
    first = 0
    while first < len(runs):
        last = first
        while last + 1 < len(runs) and runs[last + 1].start - runs[last].end <= 2 * CONTEXT:
            last += 1
        hunk = _hunk(base_lines, runs[first : last + 1], shift)
        shift += hunk.new_count - hunk.old_count
        hunks.append(hunk)
        first = last + 1
    return tuple(hunks)


def _joined(base_lines: Sequence[bytes], edits: Sequence[Edit]) -> list[Edit]:
    """`edits` with those that touch made one, and without those that do nothing."""
    runs: list[Edit] = []
    end = 0
    for edit in edits:
        if not end <= edit.start <= edit.end <= len(base_lines):
            raise ValueError(f"edit {edit.start}:{edit.end} is out of order or outside the file")
        end = edit.end
        if edit.start == edit.end and not edit.lines:
            continue
        if runs and runs[-1].end == edit.start:
            runs[-1] = Edit(runs[-1].start, edit.end, runs[-1].lines + edit.lines)
        else:
            runs.append(edit)
    if _open_inside(base_lines, runs):
        raise ValueError("the edits leave a line without newline inside the file")
    return runs


def _open_inside(base_lines: Sequence[bytes], runs: Sequence[Edit]) -> bool:
    """Whether a line without newline would stand before another one."""
    size = len(base_lines)
    for run in runs:
        open_lines = [n for n, line in enumerate(run.lines, 1) if not line.endswith(b"\n")]
        if open_lines and (open_lines[0] < len(run.lines) or run.end < size):
            return True
    stays = bool(base_lines) and not base_lines[-1].endswith(b"\n")
    return stays and bool(runs) and runs[-1].start == size


def _hunk(base_lines: Sequence[bytes], edits: Sequence[Edit], shift: int) -> Hunk:
    begin = max(0, edits[0].start - CONTEXT)
    end = min(len(base_lines), edits[-1].end + CONTEXT)
    lines: list[bytes] = []
    at = begin
    for edit in edits:
        lines += [b" " + line for line in base_lines[at : edit.start]]
        lines += [b"-" + line for line in base_lines[edit.start : edit.end]]
        lines += [b"+" + line for line in edit.lines]
        at = edit.end
    lines += [b" " + line for line in base_lines[at:end]]
    old = sum(line[:1] != b"+" for line in lines)
    new = sum(line[:1] != b"-" for line in lines)
    start = begin + shift
    return Hunk(begin + (old > 0), old, start + (new > 0), new, tuple(lines))


# diffing


def diff(base: bytes, new: bytes) -> list[Edit]:
    """The edits from `base` to `new` as git's histogram diff finds them; see `diffs`."""
    return diffs([(base, new)])[0]


def diffs(pairs: Sequence[tuple[bytes, bytes]]) -> list[list[Edit]]:
    """The edits of every `(base, new)` pair, in order, by one run of git.

    Raises `BadInput` for content with a NUL byte: patches carry text only.
    """
    found: list[list[Edit]] = [[] for _ in pairs]
    with tempfile.TemporaryDirectory(prefix="portkit-") as name:
        folder = Path(name)
        old, new = folder / "a", folder / "b"
        old.mkdir()
        new.mkdir()
        for number, (before, after) in enumerate(pairs):
            if b"\0" in before or b"\0" in after:
                raise BadInput("a file with NUL bytes is not text", hint="patches carry text only")
            if before != after:
                (old / str(number)).write_bytes(before)
                (new / str(number)).write_bytes(after)
        out = git(
            *("-c", "core.autocrlf=false", "-c", "core.safecrlf=false", "diff", "--no-index"),
            *("--histogram", "--unified=0", "--text", "--no-color", "--no-ext-diff"),
            *("--no-renames", "--no-prefix", "a", "b"),
            cwd=folder,
            # An enclosing repository's configuration and attributes are not ours.
            env={"GIT_CEILING_DIRECTORIES": os.path.realpath(folder.parent)},
            ok=(0, 1),
        )
    for change in parse_diff(out, "git diff") if out else ():
        found[int(change.path)] = edits_of(change)
    return found


def change_between(
    path: str,
    base: bytes | None,
    new: bytes | None,
    *,
    old_path: str | None = None,
    old_mode: str | None = None,
    new_mode: str | None = None,
) -> FileChange:
    """The change of `path` from `base` to `new`, None standing for no file; renamed if `old_path`.

    Modes matter only where they differ, or for a new or deleted file.
    """
    lines = split_lines(base or b"")
    if base is None or new is None:
        edit = Edit(0, len(lines), tuple(split_lines(new or b"")))
        hunks = hunks_from_edits(lines, [edit])
    else:
        hunks = hunks_from_edits(lines, diff(base, new))
    change = FileChange(
        None if base is None else old_path or path, None if new is None else path, hunks
    )
    return replace(change, old_mode=old_mode, new_mode=new_mode)
