"""The landing check: is a change in the new file where it was in the old one?

Three-way merges follow the text, and text lies: a lookalike inserted above the patched function
takes the change and every tool exits 0.  So each landing but a trivial one must show independent
witnesses: the same function or scope, the same branch of the preprocessor, the same neighbours,
one possible place between lines that are unique in both versions, and each token accounted for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from enum import Enum

from portkit.carrying.decision import Finding
from portkit.carrying.margins import same_parent, under_the_same_header
from portkit.carrying.scopes import same_scope
from portkit.model import Edit
from portkit.text.sides import Alignment, Lines, Text, telling

_TOKEN = re.compile(rb"\w+|[^\w\s]")


class Neighbours(Enum):
    """What a landing's neighbours must show."""

    EXPLAINED = "the same, or another line that upstream's changes explain"
    STRICT = "the same: for code that moved, nothing explains another one"
    ANY = "nothing: the place is known by name, as a requirement line's"


def check(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    blocks: Sequence[Edit],
    edits: Sequence[Edit],
    *,
    neighbours: Neighbours = Neighbours.EXPLAINED,
    wrapped: bool = False,
) -> Finding:
    """Judge a landing.

    `blocks` are ours on `base`, `edits` the same change on `theirs`; `alignment` is None where
    the file is another one.  `wrapped` says that upstream indented the lines deeper, so that they
    may stand in more conditionals than they did.
    """
    old = (blocks[0].start, blocks[-1].end)
    new = (edits[0].start, edits[-1].end)
    scope = under_the_same_header(base, theirs, blocks, edits) or same_scope(base, theirs, old, new)
    if not scope.holds:
        return scope
    branch = _same_branch(base, theirs, old, new, wrapped=wrapped)
    if not branch.holds:
        return branch
    parent = same_parent(base, theirs, old, new)
    if not parent.holds:
        return parent
    tokens = _accounted(base, theirs, blocks, edits)
    if not tokens.holds:
        return tokens
    if neighbours is Neighbours.ANY:
        return scope
    beside = _neighbours(base, theirs, alignment, old, new, strict=neighbours is Neighbours.STRICT)
    return Finding(True, f"{scope.text}; {beside.text}") if beside.holds else beside


def _same_branch(
    base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int], *, wrapped: bool
) -> Finding:
    was, now = base.outline.branch(*old), theirs.outline.branch(*new)
    if len(was) == len(now) and all(map(_alike, was, now)):
        return Finding(True, "")
    if wrapped:
        rest = iter(now)
        if all(any(_alike(one, other) for other in rest) for one in was):
            return Finding(True, "")
    return Finding.no(
        f"conditional differs: {' › '.join(was) or 'none'} before, {' › '.join(now) or 'none'} now"
    )


def _alike(one: str, other: str) -> bool:
    """Whether a conditional is the same one: equal, widened (`A` to `A OR B`), or edited a bit."""
    if one == other:
        return True
    if one.split(" ", 1)[0] != other.split(" ", 1)[0]:
        return False
    if one.rstrip(")") in other:
        return True
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= 0.7


# tokens


def _accounted(base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]) -> Finding:
    """Whether theirs gains and loses the very tokens that base gained and lost."""
    meant, made = _balance(base.lines, blocks), _balance(theirs.lines, edits)
    if meant == made:
        return Finding(True, "")
    astray = next(iter((made - meant) + (meant - made) or (meant.keys() ^ made.keys())), b"")
    return Finding.no(f"token {astray.decode('utf-8', 'replace')!r} is not accounted for")


def _balance(lines: Lines, edits: Sequence[Edit]) -> Counter[bytes]:
    count: Counter[bytes] = Counter()
    for edit in edits:
        count.update(_TOKEN.findall(b"".join(edit.lines)))
        count.subtract(_TOKEN.findall(b"".join(lines[edit.start : edit.end])))
    return Counter({token: number for token, number in count.items() if number})


# neighbours


def _neighbours(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    strict: bool,
) -> Finding:
    above = _compare(base, theirs, alignment, old[0], new[0], step=-1)
    below = _compare(base, theirs, alignment, old[1], new[1], step=1)
    removed = base.lines[old[0] : old[1]]
    kept = removed == theirs.lines[new[0] : new[1]] and any(map(telling, removed))
    equal = [above, below].count("equal")
    if strict:
        if equal == 2 or (equal == 1 and kept):
            return Finding(True, "same neighbours" if equal == 2 else "one neighbour is the same")
        return Finding.no("its neighbours are not the ones it had")
    if "other" in (above, below):
        return Finding.no("a neighbour is another line, and no change of upstream explains it")
    if equal == 2:
        return Finding(True, "same neighbours")
    if equal == 1:
        side = "below" if above == "equal" else "above"
        return Finding(True, f"upstream changed the line {side} it")
    if kept:
        return Finding(True, "upstream changed both neighbours, the replaced lines are the same")
    return Finding.no("upstream changed the lines on both sides of it")


def _compare(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    old: int,
    new: int,
    *,
    step: int,
) -> str:
    """Compare the nearest telling neighbour on one side: `equal`, `changed` (by upstream), `other`.

    `old` and `new` are gaps; `step` -1 looks above, 1 below.
    """
    was, now = _nearest(base.lines, old, step), _nearest(theirs.lines, new, step)
    if was is None or now is None:
        return "equal" if was is now else "changed"
    if base.lines[was].strip() == theirs.lines[now].strip():
        return "equal"
    if alignment is None:
        return "changed"
    place = alignment.line(was)
    if place is None:
        return "changed"
    # The old neighbour still stands on this side, upstream added lines between.
    return "changed" if (place < new if step < 0 else place >= new) else "other"


def _nearest(lines: Lines, gap: int, step: int) -> int | None:
    number = gap - 1 if step < 0 else gap
    while 0 <= number < len(lines):
        if telling(lines[number]):
            return number
        number += step
    return None
