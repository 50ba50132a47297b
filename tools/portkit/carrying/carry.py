"""The ladder: carry the hunks of one file change to the new tag, each by the first certain rung.

Whole hunks are tried first (exact, unique offset).  What is left is taken block by block
(three-way), and the blocks that upstream's changes overlap are grouped and blended.  A piece that
no rung is certain of is a drop with evidence, or a conflict; one never hides another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from portkit.carrying import blend, gone, landing, places, rungs
from portkit.carrying.decision import Conflict, HunkResult, Landed, Outcome, Region, Rung
from portkit.carrying.finder import Finder, searchable
from portkit.carrying.landing import Neighbours
from portkit.carrying.resolutions import Resolutions
from portkit.carrying.rungs import Group, Pair, surely_there
from portkit.model import Edit, Hunk
from portkit.patches.apply import blocks_of
from portkit.text.sides import Change, Text

UNCHANGED = "the file did not change"


@dataclass(frozen=True)
class Unit:
    """Hunks of one patch that are written for the same file at the same tag."""

    patch: str
    base_tag: str
    base_path: str
    hunks: tuple[Hunk, ...]


@dataclass
class _Piece:
    """A hunk on its way: the blocks not yet placed, and what became of the others."""

    hunk: Hunk
    open: list[Edit]
    outcomes: list[Outcome] = field(default_factory=list)


def carry(
    unit: Unit, pair: Pair, finder: Finder, resolutions: Resolutions
) -> tuple[HunkResult, ...]:
    """Decide every hunk of `unit` against the file that continues it (`pair.theirs`)."""
    pieces = [_Piece(hunk, list(blocks_of(hunk))) for hunk in unit.hunks]
    if pair.theirs.path != pair.base.path:
        for piece in pieces:
            _refuse_copied(pair, piece, finder)
    for piece in pieces:
        _whole(pair, piece)
    for piece in pieces:
        _blocks(pair, piece)
    for group, members in _groups(pair, pieces):
        outcome = _group(pair, group, members, finder, resolutions)
        for piece in members:
            piece.outcomes.append(outcome)
    return tuple(
        HunkResult(p.hunk, unit.base_path, unit.base_tag, tuple(p.outcomes)) for p in pieces
    )


def carry_orphan(unit: Unit, base: Text, finder: Finder) -> tuple[HunkResult, ...]:
    """Decide the hunks of a file that the new tag does not have (and did not rename)."""
    results = []
    for hunk in unit.hunks:
        outcome: Outcome | None = _elsewhere(base, hunk, finder) or gone.target(base, hunk, finder)
        if outcome is None:
            outcome = Conflict(
                gone.explain_missing(base, hunk, finder),
                Region(None, 0, 0, hunk.before, hunk.after, ()),
                blocks_of(hunk),
            )
        results.append(HunkResult(hunk, unit.base_path, unit.base_tag, (outcome,)))
    return tuple(results)


def _refuse_copied(pair: Pair, piece: _Piece, finder: Finder) -> None:
    """Where upstream split or copied a file, git's rename is one of several answers."""
    lines = searchable(piece.hunk.before)[:3]
    rivals = set(finder.arrivals(lines)) if lines else set()
    if rivals <= {pair.theirs.path} or not all(map(finder.multiplied, lines)):
        return
    homes = ", ".join(finder.containing(lines[0])[:3])
    hunk = piece.hunk
    region = Region(pair.theirs.path, 0, 0, hunk.before, hunk.after, ())
    piece.outcomes.append(
        Conflict(f"upstream has these lines in {homes} now", region, tuple(piece.open))
    )
    piece.open.clear()


# whole hunks


def _whole(pair: Pair, piece: _Piece) -> None:
    if not piece.open:
        return
    for rung, place in ((Rung.EXACT, rungs.exact), (Rung.OFFSET, rungs.unique_offset)):
        edits = place(pair, piece.hunk)
        if edits is None:
            continue
        landed = _checked(pair, rung, piece.open, edits)
        if isinstance(landed, Landed):
            piece.outcomes.append(landed)
            piece.open.clear()
            return


def _checked(pair: Pair, rung: Rung, blocks: Sequence[Edit], edits: Sequence[Edit]) -> Landed | str:
    """The landing of whole blocks one by one, or why it is not certain."""
    if pair.same:
        return Landed(rung, pair.theirs.path, tuple(edits), UNCHANGED)
    notes: list[str] = []
    for block, edit in zip(blocks, edits, strict=True):
        wrapped = rung is Rung.INDENTATION
        found = landing.check(
            pair.base, pair.theirs, pair.alignment, [block], [edit], wrapped=wrapped
        )
        if not found.holds:
            return found.text
        notes.append(found.text)
    # Re-indented code has few lines in common with itself until the margins are taken off.
    base, theirs = pair.base, pair.theirs
    if rung is Rung.INDENTATION:
        base, theirs = base.flush, theirs.flush
    doubt = surely_there(base, theirs, blocks, edits)
    if doubt:
        return doubt
    return Landed(rung, pair.theirs.path, tuple(edits), _spell(notes))


def _spell(notes: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(notes))


# blocks that upstream left alone


def _blocks(pair: Pair, piece: _Piece) -> None:
    for rung, place in _SINGLE:
        for block in list(piece.open):
            edit = place(pair, block)
            if edit is None:
                continue
            landed = _checked(pair, rung, [block], [edit])
            if isinstance(landed, Landed):
                piece.outcomes.append(landed)
                piece.open.remove(block)


_SINGLE: tuple[tuple[Rung, Callable[[Pair, Edit], Edit | None]], ...] = (
    (Rung.THREE_WAY, rungs.three_way),
    (Rung.THREE_WAY, rungs.untouched),
    (Rung.INDENTATION, blend.indentation),
)


# blocks that upstream's changes overlap


def _groups(pair: Pair, pieces: Sequence[_Piece]) -> list[tuple[Group, list[_Piece]]]:
    """Group the open blocks whose regions overlap; a group may span hunks."""
    found: list[tuple[Group, list[_Piece]]] = []
    for piece in pieces:
        for block in piece.open:
            region = pair.alignment.region(block.start, block.end)
            if found and _overlap(found[-1][0].region, region):
                group, members = found.pop()
                together = Group((*group.blocks, block), _hull(group.region, region))
                found.append((together, [*members, *([] if piece in members else [piece])]))
            else:
                found.append((Group((block,), region), [piece]))
    return found


def _overlap(one: Change, other: Change) -> bool:
    return other.base_start < one.base_end or one == other or other.start < one.end


def _hull(one: Change, other: Change) -> Change:
    return Change(
        min(one.base_start, other.base_start),
        max(one.base_end, other.base_end),
        min(one.start, other.start),
        max(one.end, other.end),
    )


def _group(
    pair: Pair, group: Group, members: Sequence[_Piece], finder: Finder, resolutions: Resolutions
) -> Outcome:
    base, ours, theirs = group.sides(pair)
    if theirs == ours:
        return gone.upstreamed(pair, group)
    reasons: list[str] = []
    for rung, place in _LADDER:
        edits = place(pair, group, members)
        if edits is None:
            continue
        landed = _blended(pair, rung, group, edits)
        if isinstance(landed, Landed):
            return landed
        reasons.append(f"{rung.value}: {landed}")
    if len(members) == 1 and _vanished(pair, group):
        elsewhere = _elsewhere(pair.base, members[0].hunk, finder)
        if elsewhere is not None:
            return elsewhere
    settled = resolutions.lookup(base, ours, theirs)
    if settled is not None:
        edit = blend.trimmed(
            pair.theirs.lines, Edit(group.region.start, group.region.end, settled.lines)
        )
        return Landed(Rung.RESOLUTION, pair.theirs.path, (edit,), f"settled {settled.recorded}")
    dropped = (
        gone.upstreamed_elsewhere(pair, group)
        or gone.cured_upstream(pair, group)
        or gone.construct(pair, group, finder)
    )
    if dropped is not None:
        return dropped
    reason = reasons[0] if reasons else gone.explain(pair, group, finder)
    region = Region(pair.theirs.path, group.region.start, group.region.end, base, ours, theirs)
    return Conflict(reason, region, group.blocks)


_Rung = Callable[[Pair, Group, Sequence[_Piece]], tuple[Edit, ...] | None]


def _single(rung: Callable[[Pair, Group], Edit | None]) -> _Rung:
    def place(pair: Pair, group: Group, _: Sequence[_Piece]) -> tuple[Edit, ...] | None:
        edit = rung(pair, group)
        return None if edit is None else (edit,)

    return place


def _hunk(rung: Callable[[Pair, Hunk], tuple[Edit, ...] | None]) -> _Rung:
    def place(pair: Pair, group: Group, members: Sequence[_Piece]) -> tuple[Edit, ...] | None:
        hunk = members[0].hunk
        alone = len(members) == 1 and group.blocks == blocks_of(hunk)
        return rung(pair, hunk) if alone else None

    return place


_LADDER: tuple[tuple[Rung, _Rung], ...] = (
    (Rung.REQUIREMENT, _single(blend.requirement)),
    (Rung.TOKENS, _single(blend.tokens)),
    (Rung.TOKENS, _single(blend.twin)),
    (Rung.UNION, _single(blend.union)),
    (Rung.MOVED, _hunk(rungs.moved)),
    (Rung.INDENTATION, _hunk(rungs.moved_indented)),
    (Rung.ANCHORED, _single(rungs.anchored)),
)


_NEIGHBOURS = {
    Rung.MOVED: Neighbours.STRICT,
    Rung.INDENTATION: Neighbours.STRICT,
    Rung.REQUIREMENT: Neighbours.ANY,
}


def _blended(pair: Pair, rung: Rung, group: Group, edits: Sequence[Edit]) -> Landed | str:
    trimmed = [blend.trimmed(pair.theirs.lines, edit) for edit in edits]
    found = landing.check(
        pair.base,
        pair.theirs,
        pair.alignment,
        group.blocks,
        trimmed,
        neighbours=_NEIGHBOURS.get(rung, Neighbours.EXPLAINED),
        wrapped=rung is Rung.INDENTATION,
    )
    if not found.holds:
        return found.text
    if rung in (Rung.TOKENS, Rung.UNION, Rung.ANCHORED):
        old, new = _hull_of(group.blocks), _hull_of(trimmed)
        place = places.only_place(pair.base, pair.theirs, old, new)
        if not place.holds:
            return place.text
    return Landed(rung, pair.theirs.path, tuple(trimmed), found.text)


def _hull_of(edits: Sequence[Edit]) -> Edit:
    return Edit(edits[0].start, edits[-1].end, ())


# code that moved to another file


def _vanished(pair: Pair, group: Group) -> bool:
    """Whether none of the lines around the blocks is left in the file."""
    start, end = group.blocks[0].start, group.blocks[-1].end
    around = pair.base.lines[max(0, start - 1) : end + 1]
    return not any(line in pair.theirs.counts for line in around if len(line.strip()) > 8)


def _elsewhere(base: Text, hunk: Hunk, finder: Finder) -> Landed | None:
    """Carry a hunk to the one other file that now holds its lines."""
    blocks = blocks_of(hunk)
    found: list[Landed] = []
    if gone.lost(hunk, finder):
        return None
    for text, oid in finder.holders(hunk):
        pair = Pair(finder.library.store, base, text, "", oid)
        edits = rungs.moved(pair, hunk)
        if edits is None:
            continue
        verdicts = [
            landing.check(base, text, None, [block], [edit], neighbours=Neighbours.STRICT)
            for block, edit in zip(blocks, edits, strict=True)
        ]
        if all(v.holds for v in verdicts):
            note = _spell([f"found in {text.path}", *(v.text for v in verdicts)])
            found.append(Landed(Rung.MOVED_FILE, text.path, edits, note))
    return found[0] if len(found) == 1 else None
