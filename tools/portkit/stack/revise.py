"""New versions of a patch: from an edited file, with another diff folded in, split, renamed.

What a person did not touch stays as it was, hunk for hunk: a change is composed of the edits that
are there and those that were made, and only where both meet is a file compared anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date

from portkit.errors import BadInput
from portkit.model import Edit, FileChange, Patch
from portkit.patches import header
from portkit.patches.apply import (
    apply_edits,
    change_between,
    diff,
    diffs,
    edits_of,
    hunks_from_edits,
    split_lines,
)
from portkit.patches.patchfile import canonical_change

_UPDATED = re.compile(rb"(?mi)^(Last-Update:)[^\n]*(?=\n)")


@dataclass(frozen=True)
class File:
    """A file of upstream at some moment: its bytes and git mode."""

    data: bytes
    mode: str = "100644"


def revised(
    change: FileChange, base: File | None, before: File | None, after: File | None
) -> FileChange | None:
    """`change`, which makes `before` of `base`, so that it makes `after`; None if none is left.

    A renamed file stays renamed.  Raises `BadInput` for content that is not text.
    """
    if base is None or before is None or after is None:
        old = change.old_path if base is not None else None
        return made(old or change.path, base, after)
    lines = split_lines(base.data)
    edits = composed(lines, edits_of(change), diff(before.data, after.data))
    hunks = hunks_from_edits(lines, edits)
    result = canonical_change(replace(change, hunks=hunks, old_mode=base.mode, new_mode=after.mode))
    if not hunks and result.old_mode is None and result.old_path == result.new_path:
        return None
    return result


def made(path: str, base: File | None, after: File | None) -> FileChange | None:
    """The change of the upstream file `path` from `base` to `after`, None when there is none."""
    if base == after:
        return None
    return canonical_change(
        change_between(
            path,
            None if base is None else base.data,
            None if after is None else after.data,
            old_mode=None if base is None else base.mode,
            new_mode=None if after is None else after.mode,
        )
    )


def composed(base: Sequence[bytes], edits: Sequence[Edit], more: Sequence[Edit]) -> list[Edit]:
    """Edits of `base` that do `edits`, then `more`, which are edits of the result of the first.

    Those of `edits` that none of `more` touches are kept as they are.
    """
    middle = apply_edits(base, edits)
    found: list[Edit] = []
    compared: list[tuple[int, Edit]] = []  # where in `found`, and the region as one edit
    shift = 0  # of lines in the middle against those of the base
    first = second = 0
    while first < len(edits) or second < len(more):
        starts = [one.start + shift for one in edits[first : first + 1]]
        starts += [one.start for one in more[second : second + 1]]
        begin = end = min(starts)
        base_begin, region_shift = begin - shift, shift
        mine, theirs = first, second
        grown = True
        while grown:
            grown = False
            if mine < len(edits) and edits[mine].start + region_shift <= end:
                one = edits[mine]
                end = max(end, one.start + region_shift + len(one.lines))
                region_shift += len(one.lines) - (one.end - one.start)
                mine, grown = mine + 1, True
            if theirs < len(more) and more[theirs].start <= end:
                end = max(end, more[theirs].end)
                theirs, grown = theirs + 1, True
        if theirs == second:
            found += edits[first:mine]
        else:
            lines = apply_edits(middle, more[second:theirs], begin, end)
            region = Edit(base_begin, end - region_shift, tuple(lines))
            if mine > first:
                compared.append((len(found), region))
            found.append(region)
        first, second, shift = mine, theirs, region_shift
    pairs = [(b"".join(base[one.start : one.end]), b"".join(one.lines)) for _, one in compared]
    for (at, region), inner in zip(
        compared[::-1], diffs(pairs)[::-1] if pairs else (), strict=True
    ):
        found[at : at + 1] = [
            Edit(one.start + region.start, one.end + region.start, one.lines) for one in inner
        ]
    return found


def divided(change: FileChange, numbers: Collection[int]) -> tuple[FileChange, FileChange]:
    """`change` without the hunks of these 1-based numbers, and these hunks on top of it."""
    count = len(change.hunks)
    for number in numbers:
        if not 1 <= number <= count:
            raise BadInput(f"there is no hunk {number}", hint=f"the patch has hunks 1 to {count}")
    if None in (change.old_path, change.new_path):
        raise BadInput("a patch that adds or deletes a file cannot be split")
    kept: list[int] = [n for n in range(1, count + 1) if n not in numbers]
    rest = canonical_change(replace(change, hunks=tuple(change.hunks[n - 1] for n in kept)))
    taken = []
    shift = 0
    for number, hunk in enumerate(change.hunks, 1):
        if number in numbers:
            taken.append(replace(hunk, old_start=hunk.old_start + shift))
        else:
            shift += hunk.new_count - hunk.old_count
    # The hunks taken stand on the file as the rest leaves it.
    path = change.path
    return rest, canonical_change(FileChange(path, path, tuple(taken)))


def headed(path: str, message: str, *, author: str, today: date) -> bytes:
    """The header of a new patch; what `message` does not say is left to fill in."""
    stub = header.stub(path, author=author, today=today)
    lines = message.strip().splitlines()
    if not lines:
        return stub
    rows = stub.decode().splitlines(keepends=True)
    body = [f" {line.rstrip() or '.'}\n" for line in lines[1:]]
    while body and body[0] == " .\n":
        body.pop(0)
    return "".join([f"Description: {lines[0]}\n", *(body or rows[1:2]), *rows[2:]]).encode()


def updated(patch: Patch, change: FileChange, today: date) -> Patch:
    """`patch` with another change, and the day of it in its header, if it names one."""
    day = rb"\g<1> " + today.isoformat().encode()
    return replace(patch, header=_UPDATED.sub(day, patch.header, count=1), change=change)
