"""Carry a whole series from one tag to another, in one step or release by release.

Pure work: bytes and object ids in, `Carried` out.  Nothing of the series on disk is read or
written here.  A hunk that no rung is certain of is parked: it keeps the tag and file it was last
right for, and is tried against every later tag, so that one conflict hides no other and a file
deleted two releases later leaves no question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

from portkit.carrying import gone, ort
from portkit.carrying.abandon import abandon
from portkit.carrying.carry import UNCHANGED, Unit, carry, carry_orphan
from portkit.carrying.compose import NewFile, Placed, compose
from portkit.carrying.decision import (
    Conflict,
    Dropped,
    HunkResult,
    Landed,
    Outcome,
    Region,
    Rung,
    Why,
)
from portkit.carrying.finder import Finder, Library
from portkit.carrying.resolutions import Resolutions
from portkit.carrying.rungs import Pair
from portkit.model import Edit, Event, Events, FileChange, Hunk, Patch, silent
from portkit.patches.apply import blocks_of, hunks_from_edits
from portkit.patches.patchfile import canonical_change
from portkit.patches.series import name_for
from portkit.text.sides import Alignments, Oids, Text, align
from portkit.text.syntax import language_of
from portkit.upstream.git import Files, Store

__all__ = ["Carried", "NewFile", "Snapshot", "Step", "Story", "carry_series", "patches_of"]


@dataclass(frozen=True)
class Snapshot:
    """Upstream at one tag: its tree id and files."""

    tag: str
    tree: str
    files: Files

    @classmethod
    def of(cls, store: Store, tag: str, tree: str) -> Snapshot:
        return cls(tag, tree, store.files(tree))


@dataclass(frozen=True)
class Step:
    """What one step from tag to tag did to hunks of one patch.

    `renamed` is where upstream moved the patch's file in this step, None when it did not.
    """

    from_tag: str
    to_tag: str
    results: tuple[HunkResult, ...]
    renamed: str | None = None


@dataclass(frozen=True)
class Story:
    """What became of one patch: every step, and what still waits at the last tag."""

    patch: Patch
    steps: tuple[Step, ...]

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        last = self.steps[-1].to_tag if self.steps else None
        found = [c for s in self.steps if s.to_tag == last for r in s.results for c in r.conflicts]
        return tuple(dict.fromkeys(found))

    @property
    def drops(self) -> tuple[Dropped, ...]:
        found = [d for s in self.steps for r in s.results for d in r.drops]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Carried:
    """The series at the new tag: the files it changes, each patch's story, what waits.

    `whole` are the patches that add, delete, rename or chmod a file, carried as they are.
    """

    target: Snapshot
    files: dict[str, NewFile]
    stories: tuple[Story, ...]
    whole: tuple[Patch, ...] = ()

    @property
    def conflicts(self) -> tuple[tuple[Patch, Conflict], ...]:
        return tuple((s.patch, c) for s in self.stories for c in s.conflicts)


@dataclass(frozen=True)
class _Moving:
    """A unit, and where its file is at the tag the series has reached."""

    unit: Unit
    path: str


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
    journey = _Journey(store, snapshots, resolutions or Resolutions(), skipped)
    first, last = snapshots[0], snapshots[-1]
    plain = [p for p in patches if is_plain(p.change)]
    moving = [_Moving(Unit(p.name, first.tag, p.path, p.change.hunks), p.path) for p in plain]
    steps: dict[str, list[Step]] = {patch.name: [] for patch in patches}
    whole = [p for p in patches if not is_plain(p.change)]
    for one in whole:
        steps[one.name].append(_whole_step(one, first, last, skipped=one.name in skipped))
    files: dict[str, NewFile] = {}
    total = len(snapshots) - 1
    for number, (old, new) in enumerate(pairwise(snapshots)):
        events(Event(f"carry to {new.tag}", number, total, "steps"))
        files, moving, taken = journey.step(old, new, moving)
        for patch, step in taken:
            steps[patch].append(step)
    events(Event("carry", total, total, "steps"))
    stories = tuple(Story(patch, tuple(steps[patch.name])) for patch in patches)
    kept = tuple(p for p in whole if any(r.landed for s in steps[p.name] for r in s.results))
    return Carried(last, files, stories, kept)


def is_plain(change: FileChange) -> bool:
    """Whether a change edits the lines of one file that stays where it is, as it is."""
    return change.old_path == change.new_path and change.old_mode == change.new_mode


def _whole_step(patch: Patch, old: Snapshot, new: Snapshot, *, skipped: bool) -> Step:
    """Carry a patch that adds, deletes, renames or chmods a file: exactly, or a person decides."""
    change = patch.change
    paths = {change.old_path, change.new_path} - {None}
    same = all(old.files.get(path) == new.files.get(path) for path in paths if path)
    hunk = change.hunks[0] if change.hunks else Hunk(0, 0, 0, 0, ())
    outcome: Outcome = Landed(Rung.EXACT, patch.path, (), UNCHANGED)
    if not same:
        region = Region(None, 0, 0, hunk.before, hunk.after, ())
        reason = f"upstream changed {' or '.join(sorted(p for p in paths if p))}, and the patch "
        outcome = Conflict(reason + "adds, deletes, renames or chmods it", region, ())
    outcomes = () if skipped and not same else (outcome,)
    return Step(old.tag, new.tag, (HunkResult(hunk, patch.path, old.tag, outcomes),))


class _Journey:
    """What all steps share: the files of each tag, read once, and a person's answers."""

    def __init__(
        self,
        store: Store,
        snapshots: Sequence[Snapshot],
        resolutions: Resolutions,
        skipped: frozenset[str],
    ) -> None:
        self._store = store
        self._libraries = {s.tag: Library(store, s.tag, s.files) for s in snapshots}
        self._resolutions = resolutions
        self._skipped = skipped

    def step(
        self, old: Snapshot, new: Snapshot, moving: Sequence[_Moving]
    ) -> tuple[dict[str, NewFile], list[_Moving], list[tuple[str, Step]]]:
        """The files at `new`, the units for the next step, and what happened to each."""
        new.files.look_up(one.path for one in moving)
        stay = {n: one for n, one in enumerate(moving) if one.path in new.files}
        leave = {n: one for n, one in enumerate(moving) if n not in stay}
        git = self._git(old, new, moving, frozenset(one.path for one in leave.values()))
        with ThreadPoolExecutor(1) as beside:
            search = beside.submit(self._search, git, old, new)
            self._read(old, new, moving)
            by_number = self._place_all(git, new, stay)
            search.result()
        by_number |= self._place_all(git, new, leave)
        placed = [by_number[n] for n in range(len(moving))]
        _settle_what_serves(placed, new)
        library = self._libraries[new.tag]
        files = compose(library, git, placed, self._resolutions)
        if abandon(library, placed, self._skipped):
            files = compose(library, git, placed, self._resolutions)
        taken = [
            (
                one.unit.patch,
                Step(one.unit.base_tag, new.tag, self._answered(one), self._renamed(one, old, new)),
            )
            for one in placed
        ]
        return files, self._next(new, files, placed), taken

    def _read(self, old: Snapshot, new: Snapshot, moving: Sequence[_Moving]) -> None:
        """Read the units' files at both tags, many at once."""
        paths = [one.unit.base_path for one in moving if one.unit.base_tag == old.tag]
        was, now = self._libraries[old.tag], self._libraries[new.tag]
        was.texts(paths)
        new.files.look_up(paths)
        there = [path for path in paths if path in new.files]
        now.share(was, [path for path in there if new.files[path] == old.files[path]])
        now.texts(there)

    def _search(self, git: ort.Series, old: Snapshot, new: Snapshot) -> None:
        """Follow the files that are gone, and read what may hold their code now.

        It takes git longer than the other files take us, so it is done beside them.
        """
        was, now = self._libraries[old.tag], self._libraries[new.tag]
        for path in sorted(git.missing):
            now.added(was, language_of(path))
            if git.successor(path) == path:
                now.changed(was, language_of(path))
                was.changed(now, language_of(path))

    def _place_all(
        self, git: ort.Series, new: Snapshot, moving: Mapping[int, _Moving]
    ) -> dict[int, Placed]:
        paths = {number: git.successor(one.path) for number, one in moving.items()}
        pairs = {
            number: (self._libraries[one.unit.base_tag].files[one.unit.base_path].oid, now.oid)
            for number, one in moving.items()
            if (now := new.files.get(paths[number])) is not None
        }
        known = align(self._store, pairs.values())
        return {
            number: self._place(one.unit, paths[number], new, pairs.get(number), known)
            for number, one in moving.items()
        }

    def _place(
        self, unit: Unit, path: str, new: Snapshot, oids: Oids | None, known: Alignments
    ) -> Placed:
        old, library = self._libraries[unit.base_tag], self._libraries[new.tag]
        base = self._base(unit)
        finder = Finder(old, library, unit.base_path)
        if oids is None:
            return Placed(unit, base, path, list(carry_orphan(unit, base, finder)))
        theirs = base if oids[0] == oids[1] and path == base.path else library.text(path)
        if theirs is not base:
            theirs.continues(base, known[oids])
        pair = Pair(self._store, base, theirs, *oids, known)
        return Placed(unit, base, path, list(carry(unit, pair, finder, self._resolutions)))

    def _base(self, unit: Unit) -> Text:
        return self._libraries[unit.base_tag].text(unit.base_path)

    def _git(
        self, old: Snapshot, new: Snapshot, moving: Sequence[_Moving], missing: frozenset[str]
    ) -> ort.Series:
        """The series as git sees it: git follows renames and is a second opinion."""
        units = [one.unit for one in moving if one.unit.base_tag == old.tag]
        by_path = {unit.base_path: unit for unit in units}

        def ours(path: str) -> tuple[bytes, bytes]:
            base = self._base(by_path[path])
            return base.data, base.edited(edits_of(by_path[path]))

        return ort.Series(self._store, old.tree, new.tree, frozenset(by_path), missing, ours)

    def _answered(self, one: Placed) -> tuple[HunkResult, ...]:
        """The results, without the conflicts of a patch that a person skipped."""
        if one.unit.patch not in self._skipped:
            return tuple(one.results)
        return tuple(
            replace(r, outcomes=tuple(o for o in r.outcomes if not isinstance(o, Conflict)))
            for r in one.results
        )

    @staticmethod
    def _renamed(one: Placed, old: Snapshot, new: Snapshot) -> str | None:
        moved = one.path in new.files and one.path not in old.files
        return one.path if moved else None

    def _next(
        self, new: Snapshot, files: Mapping[str, NewFile], placed: Sequence[Placed]
    ) -> list[_Moving]:
        """One unit for each new file, and one for what waits of each old one."""
        moving = [
            _Moving(
                Unit(f.owners[0], new.tag, path, hunks_from_edits(f.theirs.lines, f.edits)), path
            )
            for path, f in files.items()
        ]
        for one in placed:
            blocks = {b for r in one.results for c in r.conflicts for b in c.blocks}
            if blocks and one.unit.patch not in self._skipped:
                ordered = sorted(blocks, key=lambda b: (b.start, b.end))
                hunks = hunks_from_edits(one.base.lines, ordered)
                moving.append(_Moving(replace(one.unit, hunks=hunks), one.path))
        return moving


def edits_of(unit: Unit) -> list[Edit]:
    return [block for hunk in unit.hunks for block in blocks_of(hunk)]


def _settle_what_serves(placed: Sequence[Placed], new: Snapshot) -> None:
    """Let the imports of a patch share the fate of its other hunks.

    They are dropped when all others are, and wait when their lines are gone but another waits.
    """
    serving: dict[str, list[tuple[Placed, int]]] = {}
    others: dict[str, list[HunkResult]] = {}
    for one in placed:
        language = language_of(one.unit.base_path)
        for number, result in enumerate(one.results):
            if gone.only_serves(result.hunk, language):
                serving.setdefault(one.unit.patch, []).append((one, number))
            else:
                others.setdefault(one.unit.patch, []).append(result)
    for patch, served in others.items():
        for one, number in serving.get(patch, ()):
            result = one.results[number]
            if all(map(_dropped, served)):
                drop = Dropped(Why.SERVES_NOTHING, "every other hunk of the patch is dropped")
                one.results[number] = replace(result, outcomes=(drop,))
            elif _dropped(result) and any(other.conflicts for other in served):
                path = one.path if one.path in new.files else None
                region = Region(path, 0, 0, result.hunk.before, result.hunk.after, ())
                reason = "its lines are gone, and another hunk that it serves waits"
                conflict = Conflict(reason, region, blocks_of(result.hunk))
                one.results[number] = replace(result, outcomes=(conflict,))


def _dropped(result: HunkResult) -> bool:
    return all(isinstance(outcome, Dropped) for outcome in result.outcomes)


def patches_of(carried: Carried, patches: Sequence[Patch]) -> tuple[Patch, ...]:
    """The new series: one patch a file, in the old order, named after the file it changes."""
    order = {patch.name: number for number, patch in enumerate(patches)}
    headers = {patch.name: patch for patch in patches}
    made = [(order[patch.name], patch) for patch in carried.whole]
    for path, file in carried.files.items():
        owner = headers[file.owners[0]]
        hunks = hunks_from_edits(file.theirs.lines, file.edits)
        change = canonical_change(FileChange(path, path, hunks))
        name = owner.name if owner.path == path else name_for(path)
        made.append((order[owner.name], replace(owner, name=name, change=change)))
    return tuple(patch for _, patch in sorted(made, key=lambda item: (item[0], item[1].name)))
