"""The rungs that place lines: exact, unique offset, three-way, moved, anchored.

Each looks for the one place where a piece of a patch belongs in the new file, and returns `None`
when it is not sure.  The landing check is a second opinion on all of them but the exact one.
Rungs that write new text (token merge, indentation, union, requirement lines) are in `blend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from portkit.carrying.places import as_many_places, only_place
from portkit.model import Edit, Hunk
from portkit.patches.apply import apply_edits, blocks_of
from portkit.text.sides import Alignment, Alignments, Change, Lines, Text, align, telling
from portkit.text.syntax import Language
from portkit.upstream.git import Store


@dataclass(frozen=True)
class Pair:
    """A file at the old pin and its successor at the new tag, with their blob ids.

    `known` are alignments made before, many at once.
    """

    store: Store
    base: Text
    theirs: Text
    base_oid: str
    theirs_oid: str
    known: Alignments = field(default_factory=dict)

    @cached_property
    def alignment(self) -> Alignment:
        oids = self.base_oid, self.theirs_oid
        return self.known.get(oids) or align(self.store, [oids])[oids]

    @cached_property
    def spaceless(self) -> Alignment:
        """The alignment that is blind to white space, for code that was re-indented."""
        oids = self.base_oid, self.theirs_oid
        return align(self.store, [oids], ignore_space=True)[oids]

    @property
    def same(self) -> bool:
        return self.base_oid == self.theirs_oid


@dataclass(frozen=True)
class Group:
    """Blocks of a patch that upstream's changes tie together, and the region around them."""

    blocks: tuple[Edit, ...]
    region: Change

    def sides(self, pair: Pair) -> tuple[Lines, Lines, Lines]:
        """(base, ours, theirs) lines of the region."""
        region = self.region
        return (
            pair.base.lines[region.base_start : region.base_end],
            tuple(apply_edits(pair.base.lines, self.blocks, region.base_start, region.base_end)),
            pair.theirs.lines[region.start : region.end],
        )


def shifted(edits: Sequence[Edit], by: int) -> tuple[Edit, ...]:
    return tuple(Edit(e.start + by, e.end + by, e.lines) for e in edits)


# whole hunks


def exact(pair: Pair, hunk: Hunk) -> tuple[Edit, ...] | None:
    """The hunk's old side stands at the very lines it stood at."""
    return _whole(pair, hunk, hunk.old_index)


def unique_offset(pair: Pair, hunk: Hunk) -> tuple[Edit, ...] | None:
    """The hunk's old side, with its context, stands once in the new file."""
    places = pair.theirs.find(hunk.before)
    return _whole(pair, hunk, places[0]) if len(places) == 1 else None


def _whole(pair: Pair, hunk: Hunk, start: int) -> tuple[Edit, ...] | None:
    before = hunk.before
    if pair.theirs.lines[start : start + len(before)] != before:
        return None
    if not pair.same:
        if not any(map(telling, before)):
            return None
        # Git's alignment must not know better where one of these lines went.
        for number in range(len(before)):
            went = pair.alignment.line(hunk.old_index + number)
            if went is not None and went != start + number:
                return None
    return shifted(blocks_of(hunk), start - hunk.old_index)


# single blocks and groups


def three_way(pair: Pair, block: Edit) -> Edit | None:
    """Upstream changed nothing that overlaps or adjoins the block, by git's alignment."""
    if pair.alignment.touching(block.start, block.end):
        return None
    region = pair.alignment.region(block.start, block.end)
    return Edit(region.start, region.end, block.lines)


def untouched(pair: Pair, block: Edit) -> Edit | None:
    """Upstream left the replaced lines alone, and changed only lines beside them.

    Git's merge gives up there because the changes adjoin; the replaced lines themselves say
    where the block belongs when they are unlike any other line of the file.
    """
    removed = pair.base.lines[block.start : block.end]
    places = [pair.alignment.line(number) for number in range(block.start, block.end)]
    start = places[0] if places else None
    if start is None or places != list(range(start, start + len(places))):
        return None
    if not any(_unique(pair, line) for line in removed):
        return None
    return Edit(start, start + len(places), block.lines)


def _unique(pair: Pair, line: bytes) -> bool:
    return telling(line) and pair.base.counts[line] == pair.theirs.counts[line] == 1


def moved(pair: Pair, hunk: Hunk) -> tuple[Edit, ...] | None:
    """The hunk's lines, perhaps without all of their context, stand once somewhere else.

    With less context the lines must also have been unique where they came from, and say enough.
    """
    return _moved(pair, pair.base, pair.theirs, hunk)


def moved_indented(pair: Pair, hunk: Hunk) -> tuple[Edit, ...] | None:
    """As `moved`, where upstream also indented the lines differently, all in the same way."""
    if pair.theirs.language not in (Language.PYTHON, Language.CUDA, Language.CMAKE):
        return None
    edits = _moved(pair, pair.base.flush, pair.theirs.flush, hunk)
    if edits is None:
        return None
    by = edits[0].start - blocks_of(hunk)[0].start
    start, size = hunk.old_index, len(hunk.before)
    margins = {
        found
        for old, new in zip(
            pair.base.lines[start : start + size],
            pair.theirs.lines[start + by : start + by + size],
            strict=False,
        )
        if telling(old) and (found := shift_of(old, new)) is not None
    }
    if len(margins) != 1:
        return None
    shift = margins.pop()
    return tuple(
        Edit(edit.start, edit.end, lines)
        for edit in edits
        if (lines := indented(edit.lines, *shift)) is not None
    )


def _moved(pair: Pair, base: Text, theirs: Text, hunk: Hunk) -> tuple[Edit, ...] | None:
    blocks = blocks_of(hunk)
    first, last = blocks[0].start, blocks[-1].end
    low, high = hunk.old_index, hunk.old_index + len(hunk.before)
    while True:
        before = base.lines[low:high]
        if sum(map(telling, before)) < 2:
            return None
        places = theirs.find(before)
        if len(places) == 1 and len(base.find(before)) == 1:
            if _was_elsewhere(pair, low, places[0], len(before)):
                return None
            edits = shifted(blocks, places[0] - low)
            pairs = zip(blocks, edits, strict=True)
            return edits if all(as_many_places(base, theirs, *one) for one in pairs) else None
        if low == first and high == last:
            return None
        low, high = min(low + 1, first), max(high - 1, last)


def _was_elsewhere(pair: Pair, base: int, theirs: int, size: int) -> bool:
    """Whether git says that some of these lines of theirs are other lines of the old file."""
    if not pair.base_oid:  # another file: nothing is known of its past
        return False
    origins = [pair.alignment.origin(theirs + n) for n in range(size)]
    return any(o is not None and o != base + n for n, o in enumerate(origins))


# indentation


def margin(line: bytes) -> bytes:
    """The white space a line begins with."""
    return line[: len(line) - len(line.lstrip(b" \t"))]


def shift_of(old: bytes, new: bytes) -> tuple[bytes, bytes] | None:
    """The indentation taken away and the one put in its place; None for another line."""
    if old.strip() != new.strip():
        return None
    was, now = margin(old), margin(new)
    if now.endswith(was):
        return b"", now[: len(now) - len(was)]
    return (was[: len(was) - len(now)], b"") if was.endswith(now) else (was, now)


def indented(lines: Lines, old: bytes, new: bytes) -> Lines | None:
    """`lines` with the margin `old` replaced by `new`; None where that would change a string."""
    made: list[bytes] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith(b"#if"):
            made.append(line)
        elif b'"""' in line or b"'''" in line or not line.startswith(old):
            return None
        else:
            made.append(new + line[len(old) :])
    return tuple(made)


def anchored(pair: Pair, group: Group) -> Edit | None:
    """An insertion whose neighbour on one side survives, and which belongs to that side."""
    if len(group.blocks) != 1:
        return None
    block = group.blocks[0]
    if block.start != block.end or any(map(_is_item, block.lines)):
        return None
    above, below = block.start - 1, block.start
    place_above = _survivor(pair, above)
    place_below = _survivor(pair, below)
    after = place_above + 1 if place_above is not None else None
    if after is not None and after == place_below:
        return None  # nothing came between: three-way knows
    attached = _attached(pair.base, block)
    if place_below is not None and (after is None or attached == "below"):
        gap = place_below
    elif after is not None and (place_below is None or attached == "above"):
        gap = after
    else:
        return None
    if (attached == "above") and gap != after:
        return None
    if (attached == "below") and gap != place_below:
        return None
    return Edit(gap, gap, block.lines)


def _is_item(line: bytes) -> bool:
    """Whether a line is part of a list, whose order may have a meaning (arguments have one)."""
    return line.rstrip().endswith((b",", b"(", b"["))


def _survivor(pair: Pair, number: int) -> int | None:
    """Where a telling neighbour went, if upstream kept it and it cannot be mistaken."""
    if not 0 <= number < len(pair.base.lines):
        return None
    line = pair.base.lines[number]
    return pair.theirs.where(line)[0] if _unique(pair, line) else None


def _attached(base: Text, block: Edit) -> str:
    """Which neighbour an insertion belongs to by its blank lines: `above`, `below` or neither."""

    def blank(line: bytes) -> bool:
        return not line.strip()

    above = base.lines[block.start - 1] if block.start else b""
    below = base.lines[block.start] if block.start < len(base.lines) else b""
    apart_above = blank(above) or blank(block.lines[0])
    apart_below = blank(below) or blank(block.lines[-1])
    if apart_above == apart_below:
        return "neither"
    return "below" if apart_above else "above"


def surely_there(base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]) -> str:
    """Why one of the placed blocks could as well stand elsewhere; empty when none could."""
    for block, edit in zip(blocks, edits, strict=True):
        found = only_place(base, theirs, block, edit)
        if not found.holds:
            return found.text
    return ""
