"""Whether a change is made at the right one of the places where it could be made."""

from __future__ import annotations

from collections.abc import Iterable

from portkit.carrying.decision import Finding
from portkit.model import Edit
from portkit.text.sides import Text, telling


def only_place(base: Text, theirs: Text, block: Edit, edit: Edit) -> Finding:
    """Whether a landing is the only one possible in its function.

    It is looked at between the nearest lines that are unique in both functions; none of them may
    have changed sides.  The place of a block is its removed lines, or for an insertion the lines
    on both sides.
    """
    # Most often the place is the only one in the whole file: no need to parse for functions.
    found = _only_between(base, theirs, block, edit, (_all(base), _all(theirs)))
    if found.holds and (found == _ONLY or _spot(base, block) == _spot(theirs, edit)):
        return found
    return _only_between(base, theirs, block, edit, (_span(base, block), _span(theirs, edit)))


_ONLY = Finding(True, "the only place")


def _only_between(
    base: Text,
    theirs: Text,
    block: Edit,
    edit: Edit,
    spans: tuple[tuple[int, int], tuple[int, int]],
) -> Finding:
    old, new = spans
    low, high = _anchors(base, theirs, block, old, new)
    back_low, back_high = _anchors(theirs, base, edit, new, old)
    if (low and low[1] >= edit.start) or (back_low and back_low[1] >= block.start):
        return Finding.no("a line that stood on one side of it stands on the other")
    if (high and high[1] < edit.end) or (back_high and back_high[1] < block.end):
        return Finding.no("a line that stood on one side of it stands on the other")
    olds = _places(base, block, low[0] if low else old[0], high[0] if high else old[1])
    news = _places(theirs, edit, low[1] if low else new[0], high[1] if high else new[1])
    if len(olds) == len(news) and olds.index(block.start) == news.index(edit.start):
        return _ONLY if len(news) == 1 else Finding(True, f"one of {len(news)} places")
    return Finding.no(f"{len(news)} places look alike, there were {len(olds)}")


def as_many_places(base: Text, theirs: Text, block: Edit, edit: Edit) -> bool:
    """Whether the whole file has as many places for a moved block as the old one had."""
    return len(_places(base, block, *_all(base))) == len(_places(theirs, edit, *_all(theirs)))


def _all(text: Text) -> tuple[int, int]:
    return 0, len(text.lines)


def _span(text: Text, edit: Edit) -> tuple[int, int]:
    """The lines of the innermost scope around `edit`, or of the whole file."""
    chain = text.outline.chain(edit.start, edit.end)
    return (chain[-1].start, chain[-1].end) if chain else (0, len(text.lines))


def _anchors(
    here: Text, there: Text, edit: Edit, span: tuple[int, int], other: tuple[int, int]
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The nearest lines around `edit` that are unique in both texts, with their place in each."""

    def unique(numbers: Iterable[int]) -> tuple[int, int] | None:
        for number in numbers:
            line = here.lines[number]
            if telling(line) and here.counts[line] == 1 and there.counts[line] == 1:
                place = there.where(line)[0]
                if other[0] <= place < other[1]:
                    return number, place
        return None

    return unique(range(edit.start - 1, span[0] - 1, -1)), unique(range(edit.end, span[1]))


def _places(text: Text, edit: Edit, low: int, high: int) -> list[int]:
    """The lines between two anchors at which `edit` could be made, `edit.start` among them."""
    start, end = max(low, 0), min(high + 1, len(text.lines))
    removed = text.lines[edit.start : edit.end]
    if removed:
        return [n for n in text.find(removed) if start <= n <= end - len(removed)]
    above, below = _spot(text, edit)
    if above is None or below is None:
        return [edit.start]
    gaps = (place + 1 for place in text.where(above))
    return [n for n in gaps if start <= n <= end and text.lines[n : n + 1] == (below,)]


def _spot(text: Text, edit: Edit) -> tuple[bytes | None, ...]:
    """What marks the place of an edit: its removed lines, or the lines on both sides."""
    lines = text.lines
    if edit.start < edit.end:
        return lines[edit.start : edit.end]
    return (
        lines[edit.start - 1] if edit.start else None,
        lines[edit.start] if edit.start < len(lines) else None,
    )
