"""Conflicts as editable files: diff3 markers around what waits, everything else carried.

The labels name the sides as a maintainer thinks of them: ours (the patch), the pin, the new tag.
What a person makes of a conflict is read back by the unchanged text around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from portkit.carrying.decision import Conflict, Region
from portkit.model import Edit
from portkit.text.sides import Lines, Text, split_lines

_MARKER = re.compile(rb"(<{7}|\|{7}|>{7})(\s|$)")
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

        None when that cannot be told: the text around the conflicts was edited as well, or the
        text between two of them stands there more than once.
        """
        first, *middle, last = self.between
        end = len(edited) - len(last)
        if not edited.startswith(first) or not edited.endswith(last) or end < len(first):
            return None
        inner = edited[len(first) : end]
        places = _forwards(inner, middle)
        if places is None or places != _backwards(inner, middle):
            return None
        starts = [0, *(place + len(text) for place, text in zip(places, middle, strict=True))]
        ends = [*places, len(inner)]
        return tuple(split_lines(inner[a:b]) for a, b in zip(starts, ends, strict=True))

    def unsettled(self, edited: bytes) -> list[int]:
        """The lines (1-based) of `edited` that still hold a conflict marker."""
        found = leftovers(edited)
        if found:
            return found
        sides = [side for r in self.regions for side in (r.base, r.ours, r.theirs)]
        known = [*self.between, *(b"".join(side) for side in sides)]
        rulers = _rulers(edited)
        return rulers if len(rulers) > sum(len(_rulers(text)) for text in known) else []


def mark(
    theirs: Text, edits: Sequence[Edit], conflicts: Sequence[Conflict], labels: Labels
) -> Marked:
    """The new tag's file with `edits` made and `conflicts`, all in this file, marked."""
    regions = _joined([c.region for c in conflicts], edits, theirs)
    left = sorted(edits, key=lambda e: (e.start, e.end))
    between: list[bytes] = []
    pieces: list[bytes] = []
    at = 0
    for region in regions:
        before = [e for e in left if e.end <= region.start]
        within = [e for e in left if _inside(e, region)]
        left = [e for e in left if e not in before and e not in within]
        between.append(_made(theirs, before, at, region.start))
        now = _made(theirs, within, region.start, region.end)
        pieces += [between[-1], _block(region, now, labels)]
        at = region.end
    between.append(_made(theirs, left, at, len(theirs.lines)))
    pieces.append(between[-1])
    return Marked(theirs.path, tuple(regions), tuple(between), b"".join(pieces))


def leftovers(data: bytes) -> list[int]:
    """The lines (1-based) that still hold a conflict marker.

    A line of `=` alone may as well underline a heading: it counts where another marker is left.
    """
    found = [n for n, line in enumerate(split_lines(data), 1) if _MARKER.match(line)]
    return sorted(found + _rulers(data)) if found else []


def _rulers(data: bytes) -> list[int]:
    lines = enumerate(split_lines(data), 1)
    return [n for n, line in lines if line.rstrip() == _SEPARATOR.rstrip()]


def _forwards(data: bytes, texts: Sequence[bytes]) -> list[int] | None:
    """Where `texts` stand in `data` one after the other, each as early as it can."""
    places: list[int] = []
    at = 0
    for text in texts:
        place = data.find(text, at)
        if place < 0:
            return None
        places.append(place)
        at = place + len(text)
    return places


def _backwards(data: bytes, texts: Sequence[bytes]) -> list[int] | None:
    """As `_forwards`, each as late as it can."""
    places: list[int] = []
    end = len(data)
    for text in reversed(texts):
        end = data.rfind(text, 0, end)
        if end < 0:
            return None
        places.append(end)
    return places[::-1]


def _inside(edit: Edit, region: Region) -> bool:
    if edit.start == edit.end:
        return region.start < edit.start < region.end
    return edit.start < region.end and region.start < edit.end


def _joined(regions: Sequence[Region], edits: Sequence[Edit], theirs: Text) -> list[Region]:
    """The regions in order, those that overlap made one, none with an edit across its border."""
    widened = (_widened(region, edits, theirs) for region in dict.fromkeys(regions))
    joined: list[Region] = []
    for region in sorted(widened, key=lambda r: (r.start, r.end)):
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


def _widened(region: Region, edits: Sequence[Edit], theirs: Text) -> Region:
    within = [e for e in edits if _inside(e, region)]
    start = min((region.start, *(e.start for e in within)))
    end = max((region.end, *(e.end for e in within)))
    if (start, end) == (region.start, region.end):
        return region
    return replace(region, start=start, end=end, theirs=theirs.lines[start:end])


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
