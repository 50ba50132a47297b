"""Put the landed pieces of all patches together, file by file.

Pieces that do not fit together, a file that no longer parses, and a three-way landing that git's
own merge of the whole series contradicts become conflicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from portkit.carrying.blend import trimmed
from portkit.carrying.carry import Unit
from portkit.carrying.decision import Conflict, HunkResult, Landed, Outcome, Region, Rung
from portkit.carrying.finder import Library
from portkit.carrying.ort import Series
from portkit.carrying.resolutions import Resolutions
from portkit.carrying.soundness import unsound
from portkit.model import Edit
from portkit.patches.apply import blocks_of
from portkit.text.sides import Text


@dataclass(frozen=True)
class NewFile:
    """A file of the new tag as the series will change it; the first of `owners` is its patch."""

    path: str
    theirs: Text
    edits: tuple[Edit, ...]
    owners: tuple[str, ...]

    @property
    def result(self) -> bytes:
        return self.theirs.edited(self.edits)


@dataclass(frozen=True)
class Placed:
    """A unit with its old file, its file's path at the new tag, and its hunks' results.

    The new tag need not have a file at `path`; `results` is replaced in place.
    """

    unit: Unit
    base: Text
    path: str
    results: list[HunkResult]

    def landed(self, path: str) -> list[Landed]:
        return [o for r in self.results for o in r.landed if o.path == path]


def compose(
    library: Library, git: Series, placed: Sequence[Placed], resolutions: Resolutions
) -> dict[str, NewFile]:
    """The new files by path; `placed` learns of the pieces that had to be refused."""
    files: dict[str, NewFile] = {}
    by_path: dict[str, list[Placed]] = {}
    for one in placed:
        for path in dict.fromkeys(o.path for r in one.results for o in r.landed):
            by_path.setdefault(path, []).append(one)
    for path, members in sorted(by_path.items()):
        theirs = library.text(path)
        while (refused := _refusal(git, theirs, members)) is not None:
            _refuse(theirs, *refused, members, resolutions)
        # A person may have settled a conflict by leaving the lines as upstream has them.
        made = _ordered(_landed(path, members))
        edits = [edit for edit in made if edit.lines != theirs.lines[edit.start : edit.end]]
        if edits:
            # The patch that owns the file comes first, pieces that moved into it after.
            owners = sorted(
                (one for one in members if one.landed(path)), key=lambda one: one.path != path
            )
            names = tuple(dict.fromkeys(one.unit.patch for one in owners))
            files[path] = NewFile(path, theirs, tuple(edits), names)
    return files


def _landed(path: str, members: Sequence[Placed]) -> list[Landed]:
    found = dict.fromkeys(o for one in members for o in one.landed(path))
    return sorted(found, key=lambda o: (o.edits[0].start, o.edits[0].end))


def _ordered(landed: Sequence[Landed]) -> list[Edit]:
    return sorted((e for o in landed for e in o.edits), key=lambda e: (e.start, e.end))


def _refusal(git: Series, theirs: Text, members: Sequence[Placed]) -> tuple[Landed, str] | None:
    """The next piece that cannot stay, and why."""
    landed = _landed(theirs.path, members)
    if all(o.rung is Rung.EXACT for o in landed):
        return _clash(landed)
    return (
        _clash(landed) or _fault(theirs, landed, members) or _dissent(git, theirs, landed, members)
    )


def _clash(landed: Sequence[Landed]) -> tuple[Landed, str] | None:
    """Two pieces that want the same lines: the less certain one gives way."""
    placed = sorted(((e, o) for o in landed for e in o.edits), key=lambda p: (p[0].start, p[0].end))
    for (one, first), (other, second) in pairwise(placed):
        same_spot = one.start == one.end == other.start == other.end
        if first is not second and (other.start < one.end or same_spot):
            weaker = max(first, second, key=lambda o: o.rung.rank)
            return weaker, "another piece of the series lands on the same lines"
    return None


def _fault(
    theirs: Text, landed: Sequence[Landed], members: Sequence[Placed]
) -> tuple[Landed, str] | None:
    """The least certain piece without which the file parses, and what is wrong with it."""
    if any(r.conflicts for one in members for r in one.results):
        return None  # half a patch need not parse; the person's answer is checked
    expected = partial(expected_errors, members)
    fault = unsound(theirs, _ordered(landed), expected)
    if fault is None:
        return None
    suspects = sorted(landed, key=lambda o: -o.rung.rank)
    guilty = (s for s in suspects if unsound(theirs, s.edits, expected) is not None)
    return next(guilty, suspects[0]), fault


def expected_errors(members: Sequence[Placed]) -> int:
    """Syntax errors the patch itself shows to the parser at its own pin (macros, mostly)."""
    count = 0
    for one in members:
        blocks = [block for hunk in one.unit.hunks for block in blocks_of(hunk)]
        ours = one.base.with_edits(blocks)
        count += max(0, ours.outline.errors - one.base.outline.errors)
    return count


def _dissent(
    git: Series,
    theirs: Text,
    landed: Sequence[Landed],
    members: Sequence[Placed],
) -> tuple[Landed, str] | None:
    """A three-way landing that differs from git's own clean merge of the file.

    Where a hunk's whole context is found the context decides (git's merge is fooled by
    lookalikes); where only the alignment speaks, two alignments must agree.
    """
    suspects = [o for o in landed if o.rung is Rung.THREE_WAY]
    whole = len(members) == 1 and not any(
        r.conflicts or r.drops or (r.rung or Rung.EXACT).rank > Rung.THREE_WAY.rank
        for r in members[0].results
    )
    if not suspects or not whole:
        return None
    merged = git.merged(members[0].unit.base_path, theirs.data)
    if merged is None or merged == theirs.edited(_ordered(landed)):
        return None
    return suspects[0], "git's own merge of the series puts it elsewhere"


def _refuse(
    theirs: Text,
    landed: Landed,
    reason: str,
    members: Sequence[Placed],
    resolutions: Resolutions,
) -> None:
    """Turn one landing into what a person settled for it, or a conflict in all hunks it is of."""
    start, end = landed.edits[0].start, landed.edits[-1].end
    for one in members:
        for number, result in enumerate(one.results):
            if landed not in result.outcomes:
                continue
            hunk = result.hunk
            region = Region(
                theirs.path, start, end, hunk.before, hunk.after, theirs.lines[start:end]
            )
            settled = resolutions.lookup(region.base, region.ours, region.theirs)
            outcome: Outcome
            if settled is not None and landed.rung is not Rung.RESOLUTION:
                edit = trimmed(theirs.lines, Edit(start, end, settled.lines))
                note = f"settled {settled.recorded}"
                outcome = Landed(Rung.RESOLUTION, theirs.path, (edit,), note)
            else:
                outcome = Conflict(f"{landed.rung.value}: {reason}", region, blocks_of(hunk))
            outcomes = tuple(outcome if o == landed else o for o in result.outcomes)
            one.results[number] = replace(result, outcomes=outcomes)
