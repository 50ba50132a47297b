"""Carry a whole series from one tag to another, in one step or release by release.

Pure work: bytes and object ids in, `Carried` out.  Nothing of the series on disk is read or
written here.  A hunk that no rung is certain of is parked: it keeps the tag and file it was last
right for, and is tried against every later tag, so that one conflict hides no other and a file
deleted two releases later leaves no question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise

from portkit import ort
from portkit.apply import hunks_from_edits
from portkit.carry import UNCHANGED, Unit, carry, carry_orphan
from portkit.decision import Conflict, HunkResult, Landed, Outcome, Region
from portkit.finder import Finder, Library
from portkit.git import Store, TreeEntry
from portkit.model import Edit, Event, Events, FileChange, Patch, silent
from portkit.patchfile import canonical_change
from portkit.resolutions import Resolutions
from portkit.rungs import Pair, blocks_of
from portkit.series import group_of
from portkit.sides import Text
from portkit.soundness import unsound


@dataclass(frozen=True)
class Snapshot:
    """Upstream at one tag: its tree id and files."""

    tag: str
    tree: str
    files: dict[str, TreeEntry]

    @classmethod
    def of(cls, store: Store, tag: str, tree: str) -> Snapshot:
        return cls(tag, tree, store.files(tree))


@dataclass(frozen=True)
class Step:
    """What one step from tag to tag did to one unit of one patch."""

    from_tag: str
    to_tag: str
    results: tuple[HunkResult, ...]
    renamed: str | None = None


@dataclass(frozen=True)
class Story:
    """What became of one patch: every step, and what still waits at the end."""

    patch: Patch
    steps: tuple[Step, ...]

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        last = self.steps[-1].to_tag if self.steps else None
        found = [c for s in self.steps if s.to_tag == last for r in s.results for c in r.conflicts]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class NewFile:
    """A file of the new tag as the series will change it."""

    path: str
    theirs: Text
    edits: tuple[Edit, ...]
    owners: tuple[str, ...]

    @property
    def result(self) -> bytes:
        return self.theirs.edited(self.edits)


@dataclass(frozen=True)
class Carried:
    """The series at the new tag: the files it changes, each patch's story, what waits."""

    target: Snapshot
    files: dict[str, NewFile]
    stories: tuple[Story, ...]

    @property
    def conflicts(self) -> tuple[tuple[Patch, Conflict], ...]:
        return tuple((s.patch, c) for s in self.stories for c in s.conflicts)


@dataclass
class _State:
    """The series between two steps: units, all written for tags in `snapshots`."""

    units: list[_Moving]
    steps: dict[str, list[Step]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Moving:
    """A unit and where its file is now, at the tag the series has reached."""

    unit: Unit
    path: str
    parked: bool = False


# Each unit, the path of its file at the new tag (which may not exist), and its hunks' results.
_Done = list[tuple[_Moving, str, list[HunkResult]]]


def carry_series(
    store: Store,
    patches: Sequence[Patch],
    snapshots: Sequence[Snapshot],
    *,
    resolutions: Resolutions | None = None,
    skipped: frozenset[str] = frozenset(),
    events: Events = silent,
) -> Carried:
    """Carry `patches` from the first snapshot through each of the others to the last.

    `skipped` names patches whose waiting pieces a person gave up.
    """
    resolutions = resolutions or Resolutions()
    by_tag = {snapshot.tag: snapshot for snapshot in snapshots}
    first = snapshots[0]
    moving = [_Moving(Unit(p.name, first.tag, p.path, p.change.hunks), p.path) for p in patches]
    steps: dict[str, list[Step]] = {patch.name: [] for patch in patches}
    files: dict[str, NewFile] = {}
    for number, (old, new) in enumerate(pairwise(snapshots)):
        events(Event(f"carry to {new.tag}", number, len(snapshots) - 1, "steps"))
        files, moving = _step(store, by_tag, old, new, moving, resolutions, skipped, steps)
    events(Event("carry", len(snapshots) - 1, len(snapshots) - 1, "steps"))
    stories = tuple(Story(patch, tuple(steps[patch.name])) for patch in patches)
    return Carried(snapshots[-1], files, stories)


def _step(
    store: Store,
    by_tag: Mapping[str, Snapshot],
    old: Snapshot,
    new: Snapshot,
    moving: Sequence[_Moving],
    resolutions: Resolutions,
    skipped: frozenset[str],
    steps: dict[str, list[Step]],
) -> tuple[dict[str, NewFile], list[_Moving]]:
    library = Library(store, new.tag, new.files)
    bases = _Bases(store, by_tag)
    witness = _witness(store, bases, old, new, moving)
    done: _Done = []
    for one in moving:
        path = witness.successor(one.path)
        base, base_oid = bases.text(one.unit)
        finder = Finder(bases.library(one.unit.base_tag), library, one.unit.base_path)
        if path in new.files:
            theirs = library.text(path)
            pair = Pair(store, base, theirs, base_oid, new.files[path].oid)
            results = list(carry(one.unit, pair, finder, resolutions))
        else:
            results = list(carry_orphan(one.unit, base, finder))
        done.append((one, path, results))
    files = _compose(library, bases, witness, done)
    for one, path, results in done:
        kept = [_without_conflicts(r) if one.unit.patch in skipped else r for r in results]
        renamed = path if path != one.path and path in new.files else None
        steps[one.unit.patch].append(Step(one.unit.base_tag, new.tag, tuple(kept), renamed))
    return files, _next_units(bases, new, files, done, skipped)


def _without_conflicts(result: HunkResult) -> HunkResult:
    left = tuple(o for o in result.outcomes if not isinstance(o, Conflict))
    return replace(result, outcomes=left)


class _Bases:
    """The old files that units are written for, read once."""

    def __init__(self, store: Store, by_tag: Mapping[str, Snapshot]) -> None:
        self._libraries = {t: Library(store, t, s.files) for t, s in by_tag.items()}

    def library(self, tag: str) -> Library:
        return self._libraries[tag]

    def text(self, unit: Unit) -> tuple[Text, str]:
        """The file a unit is written for, and its blob id."""
        library = self._libraries[unit.base_tag]
        return library.text(unit.base_path), library.files[unit.base_path].oid


def _witness(
    store: Store, bases: _Bases, old: Snapshot, new: Snapshot, moving: Sequence[_Moving]
) -> ort.Witness:
    """Git's own merge of the whole series: it follows renames and is a second opinion."""
    ours = {
        one.unit.base_path: bases.text(one.unit)[0].edited(_edits(one.unit))
        for one in moving
        if one.unit.base_tag == old.tag
    }
    touched = {one.path for one in moving} | set(ours)
    if all(old.files.get(path) == new.files.get(path) for path in touched):
        return ort.Witness({}, {})
    modes = {path: old.files[path].mode for path in ours}
    missing = [path for path in touched if path not in new.files]
    return ort.merge(store, old.tree, new.tree, ours, modes, missing)


def _edits(unit: Unit) -> list[Edit]:
    return [block for hunk in unit.hunks for block in blocks_of(hunk)]


# composing the new files


def _compose(
    library: Library,
    bases: _Bases,
    witness: ort.Witness,
    done: _Done,
) -> dict[str, NewFile]:
    """Put all landed edits of a file together; what does not fit together becomes a conflict."""
    files: dict[str, NewFile] = {}
    for path in sorted({o.path for _, _, rs in done for r in rs for o in r.landed}):
        theirs = library.text(path)
        while True:
            landed = _landed_in(path, done)
            clash = _clash(landed) or _fault(theirs, landed, bases, done)
            if clash is None:
                break
            _refuse(theirs, clash[0], clash[1], done)
        edits = sorted({e for o in landed for e in o.edits}, key=lambda e: (e.start, e.end))
        if edits:
            owners = [one.unit.patch for one, _, rs in done
                      if any(o.path == path for r in rs for o in r.landed)]  # fmt: skip
            files[path] = NewFile(path, theirs, tuple(edits), tuple(dict.fromkeys(owners)))
    return files


def _landed_in(path: str, done: _Done) -> list[Landed]:
    found = [o for _, _, rs in done for r in rs for o in r.landed if o.path == path]
    return sorted(dict.fromkeys(found), key=lambda o: (o.edits[0].start, o.edits[0].end))


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
    theirs: Text,
    landed: Sequence[Landed],
    bases: _Bases,
    done: _Done,
) -> tuple[Landed, str] | None:
    """The least certain piece without which the file parses, and what is wrong with it."""
    if all(o.evidence == UNCHANGED for o in landed):
        return None
    if any(r.conflicts for _, path, rs in done if path == theirs.path for r in rs):
        return None  # half a patch need not parse; the person's answer is checked
    expected = cache(partial(_expected_errors, theirs.path, bases, done))
    fault = unsound(theirs, [e for o in landed for e in o.edits], expected)
    if fault is None:
        return None
    suspects = sorted(landed, key=lambda o: -o.rung.rank)
    for suspect in suspects:
        if unsound(theirs, suspect.edits, expected) is not None:
            return suspect, fault
    return suspects[0], fault


def _expected_errors(path: str, bases: _Bases, done: _Done) -> int:
    """Syntax errors the patch itself shows to the parser at its own pin (macros, mostly)."""
    count = 0
    for one, _, results in done:
        if any(o.path == path for r in results for o in r.landed):
            base, _ = bases.text(one.unit)
            ours = Text(base.path, base.edited(_edits(one.unit)))
            count += max(0, ours.outline.errors - base.outline.errors)
    return count


def _refuse(
    theirs: Text,
    landed: Landed,
    reason: str,
    done: _Done,
) -> None:
    """Turn one landing into a conflict, in every hunk that shares it."""
    start, end = landed.edits[0].start, landed.edits[-1].end
    for _, _, results in done:
        for number, result in enumerate(results):
            if landed not in result.outcomes:
                continue
            hunk = result.hunk
            region = Region(
                theirs.path, start, end, hunk.before, hunk.after, theirs.lines[start:end]
            )
            conflict: Outcome = Conflict(f"{landed.rung.value}: {reason}", region, blocks_of(hunk))
            outcomes = tuple(conflict if o == landed else o for o in result.outcomes)
            results[number] = replace(result, outcomes=outcomes)


# between two steps


def _next_units(
    bases: _Bases,
    new: Snapshot,
    files: Mapping[str, NewFile],
    done: _Done,
    skipped: frozenset[str],
) -> list[_Moving]:
    moving = [
        _Moving(
            Unit(file.owners[0], new.tag, path, hunks_from_edits(file.theirs.lines, file.edits)),
            path,
        )
        for path, file in files.items()
    ]
    for one, path, results in done:
        blocks = {b for r in results for c in r.conflicts for b in c.blocks}
        if blocks and one.unit.patch not in skipped:
            base, _ = bases.text(one.unit)
            hunks = hunks_from_edits(base.lines, sorted(blocks, key=lambda b: (b.start, b.end)))
            moving.append(_Moving(replace(one.unit, hunks=hunks), path or one.path, parked=True))
    return moving


def patches_of(carried: Carried, patches: Sequence[Patch]) -> tuple[Patch, ...]:
    """The new series: one patch a file, in the old order, named after the file it changes."""
    order = {patch.name: number for number, patch in enumerate(patches)}
    headers = {patch.name: patch for patch in patches}
    made: list[tuple[int, Patch]] = []
    for path, file in carried.files.items():
        owner = headers[file.owners[0]]
        mode = carried.target.files[path].mode
        hunks = hunks_from_edits(file.theirs.lines, file.edits)
        change = canonical_change(FileChange(path, path, hunks, mode, mode))
        name = owner.name if owner.path == path else f"{group_of(path)}/{path}.patch"
        made.append((order[owner.name], replace(owner, name=name, change=change)))
    return tuple(patch for _, patch in sorted(made, key=lambda item: (item[0], item[1].name)))
