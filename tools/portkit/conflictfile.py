"""Conflicts as editable files: diff3 markers around what waits, everything else carried.

The labels name the sides as a maintainer thinks of them: ours (the patch), the pin, the new tag.
What a person makes of a conflict is read back by the unchanged text around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from portkit.decision import Conflict, Region
from portkit.model import Edit
from portkit.sides import Lines, Text, split_lines

_MARKER = re.compile(rb"^(<{7}|\|{7}|>{7})( |$)")
_SEPARATOR = b"=======\n"


@dataclass(frozen=True)
class Labels:
    """What the sides are called in a marker line."""

    ours: str
    pin: str
    theirs: str


@dataclass(frozen=True)
class Marked:
    """A file of the new tag with its conflicts marked.

    `between` are the texts before, between and after the conflicts: one more than `regions`.
    """

    path: str
    regions: tuple[Region, ...]
    between: tuple[bytes, ...]
    data: bytes

    def settled(self, edited: bytes) -> tuple[Lines, ...] | None:
        """What stands in the place of each conflict in `edited`.

        None when the text around the conflicts was edited as well, so that it cannot be told.
        """
        first, *middle, last = self.between
        if not edited.startswith(first) or not edited.endswith(last):
            return None
        at, end = len(first), len(edited) - len(last)
        found: list[Lines] = []
        for text in [*middle, b""]:
            stop = end if len(found) == len(middle) else edited.find(text, at, end)
            if stop < at:
                return None
            found.append(split_lines(edited[at:stop]))
            at = stop + len(text)
        return tuple(found)


def mark(
    theirs: Text, edits: Sequence[Edit], conflicts: Sequence[Conflict], labels: Labels
) -> Marked:
    """The new tag's file with `edits` made and `conflicts`, all in this file, marked."""
    regions = _joined([c.region for c in conflicts], theirs)
    outside = [e for e in edits if not any(_inside(e, r) for r in regions)]
    between: list[bytes] = []
    pieces: list[bytes] = []
    at = 0
    for region in regions:
        before = [e for e in outside if at <= e.start and e.end <= region.start]
        between.append(_made(theirs, before, at, region.start))
        within = [e for e in edits if _inside(e, region)]
        now = _made(theirs, within, region.start, region.end)
        pieces += [between[-1], _block(region, now, labels)]
        at = region.end
    between.append(_made(theirs, [e for e in outside if e.start >= at], at, len(theirs.lines)))
    pieces.append(between[-1])
    return Marked(theirs.path, tuple(regions), tuple(between), b"".join(pieces))


def leftovers(data: bytes) -> list[int]:
    """The lines (1-based) that still hold a conflict marker."""
    return [n for n, line in enumerate(split_lines(data), 1) if _MARKER.match(line)]


def _inside(edit: Edit, region: Region) -> bool:
    if edit.start == edit.end:
        return region.start < edit.start < region.end
    return edit.start < region.end and region.start < edit.end


def _joined(regions: Sequence[Region], theirs: Text) -> list[Region]:
    """The regions in order, those that overlap made one."""
    joined: list[Region] = []
    for region in sorted(dict.fromkeys(regions), key=lambda r: (r.start, r.end)):
        if not joined or region.start >= joined[-1].end:
            joined.append(region)
            continue
        last = joined[-1]
        start, end = last.start, max(last.end, region.end)
        joined[-1] = Region(
            last.path,
            start,
            end,
            last.base + region.base,
            last.ours + region.ours,
            theirs.lines[start:end],
        )
    return joined


def _made(theirs: Text, edits: Sequence[Edit], start: int, end: int) -> bytes:
    pieces: list[bytes] = []
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        pieces += theirs.lines[start : edit.start]
        pieces += edit.lines
        start = edit.end
    return b"".join((*pieces, *theirs.lines[start:end]))


def _block(region: Region, now: bytes, labels: Labels) -> bytes:
    return b"".join(
        (
            _line(b"<<<<<<<", labels.ours),
            _ended(b"".join(region.ours)),
            _line(b"|||||||", labels.pin),
            _ended(b"".join(region.base)),
            _SEPARATOR,
            _ended(now),
            _line(b">>>>>>>", labels.theirs),
        )
    )


def _line(marker: bytes, label: str) -> bytes:
    return marker + b" " + label.encode("utf-8", "surrogateescape") + b"\n"


def _ended(data: bytes) -> bytes:
    return data + b"\n" if data and not data.endswith(b"\n") else data
