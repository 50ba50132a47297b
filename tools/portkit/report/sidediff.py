"""Lines of two or three versions side by side: which belong together, and which words differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import product

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_ALIKE = 0.5  # share of text that makes two lines versions of one another
_MOST_PAIRS = 400  # above, the lines of a changed block are not paired
_MOST_WORDS = 400  # above, a line is marked as a whole

Texts = Sequence[str]
Span = tuple[int, int]


@dataclass(frozen=True)
class Cell:
    """A line of one side, by its index there.

    `changed` says whether another side does not have it so, `marks` where the text differs.
    """

    index: int
    changed: bool = False
    marks: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Row:
    """Cells that belong together, None where a side has nothing."""

    cells: tuple[Cell | None, ...]
    changed: bool = False


def two_sides(left: Texts, right: Texts) -> list[Row]:
    """Old and new, line by line, with changed words marked."""
    rows: list[Row] = []
    for i, j in _aligned(left, right):
        if i is None or j is None:
            rows.append(Row((_cell(i), _cell(j)), changed=True))
        elif left[i] == right[j]:
            rows.append(Row((Cell(i), Cell(j))))
        else:
            old, new = _words(left[i], right[j])
            rows.append(Row((Cell(i, True, old), Cell(j, True, new)), changed=True))
    return rows


def three_sides(base: Texts, ours: Texts, theirs: Texts) -> list[Row]:
    """The three sides of a conflict, aligned at the lines of the base; changed words marked."""
    sides = [(side, _by_base(base, side)) for side in (ours, theirs)]
    rows: list[Row] = []
    for i in range(len(base) + 1):
        for extra in range(max(len(found[i].added) for _, found in sides)):
            added = [dict(enumerate(found[i].added)).get(extra) for _, found in sides]
            rows.append(Row((None, *map(_cell, added)), changed=True))
        if i < len(base):
            rows.append(_base_row(i, base, [(side, found[i].kept) for side, found in sides]))
    return rows


def _base_row(i: int, base: Texts, sides: Sequence[tuple[Texts, int | None]]) -> Row:
    cells: list[Cell | None] = []
    for side, j in sides:
        if j is None or side[j] == base[i]:
            cells.append(None if j is None else Cell(j))
        else:
            cells.append(Cell(j, True, _words(base[i], side[j])[1]))
    changed = any(cell is None or cell.changed for cell in cells)
    return Row((Cell(i, changed), *cells), changed)


@dataclass(frozen=True)
class _OnSide:
    """What a side has for one line of the base: lines added above it, and its version of it."""

    added: tuple[int, ...]
    kept: int | None


def _by_base(base: Texts, side: Texts) -> list[_OnSide]:
    """One entry for each line of the base, and one for its end."""
    found: list[_OnSide] = []
    added: list[int] = []
    for i, j in _aligned(base, side):
        if i is not None:
            found.append(_OnSide(tuple(added), j))
            added = []
        elif j is not None:
            added.append(j)
    return [*found, _OnSide(tuple(added), None)]


def _cell(index: int | None) -> Cell | None:
    """A line that the other side does not have."""
    return None if index is None else Cell(index, changed=True)


# which lines belong together

_Pair = tuple[int | None, int | None]


def _aligned(left: Texts, right: Texts) -> Iterator[_Pair]:
    long = len(left) * len(right) > 1_000_000
    matcher = SequenceMatcher(None, left, right, autojunk=long)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(range(i1, i2), range(j1, j2), strict=True)
        else:
            yield from _paired(left, right, range(i1, i2), range(j1, j2))


def _paired(left: Texts, right: Texts, olds: range, news: range) -> Iterator[_Pair]:
    """Changed lines: the most alike are versions of one another, the others came or went."""
    pairs = list(product(olds, news))
    if 0 < len(pairs) <= _MOST_PAIRS:
        alike = {(i, j): _likeness(left[i], right[j]) for i, j in pairs}
        i, j = max(pairs, key=lambda pair: alike[pair])
        if alike[i, j] >= _ALIKE:
            yield from _paired(left, right, range(olds.start, i), range(news.start, j))
            yield i, j
            yield from _paired(left, right, range(i + 1, olds.stop), range(j + 1, news.stop))
            return
    yield from ((i, None) for i in olds)
    yield from ((None, j) for j in news)


@lru_cache(maxsize=8192)
def _likeness(one: str, other: str) -> float:
    one, other = one.strip()[:200], other.strip()[:200]
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    if not one or not other or matcher.quick_ratio() < _ALIKE:
        return 0.0
    return matcher.ratio()


# which words differ


def _words(left: str, right: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The spans of two lines that the other does not have."""
    words = (_WORD.findall(left), _WORD.findall(right))
    if max(map(len, words)) > _MOST_WORDS:
        return ((0, len(left)),), ((0, len(right)),)
    opcodes = SequenceMatcher(None, *words, autojunk=False).get_opcodes()
    changed = [code for code in opcodes if code[0] != "equal"]
    olds = _spans(words[0], [(i1, i2) for _, i1, i2, _, _ in changed])
    news = _spans(words[1], [(j1, j2) for _, _, _, j1, j2 in changed])
    return olds, news


def _spans(words: Texts, ranges: Sequence[Span]) -> tuple[Span, ...]:
    """Ranges of words as ranges of characters."""
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word))
    return tuple((ends[first], ends[last]) for first, last in ranges if first < last)
