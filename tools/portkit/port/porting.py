"""A refresh as work: what was asked, what the ladder decided, what a person answered, the result.

Everything here is values in, values out; the state of a waiting refresh is `session`'s, the
switch to the new series `journal`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from portkit.carrying import soundness
from portkit.carrying.decision import Conflict
from portkit.carrying.finder import Library
from portkit.carrying.resolutions import SUFFIX, Resolution, Resolutions, resolution
from portkit.errors import BadFile, BadInput
from portkit.model import Events, Patch, Pin, silent
from portkit.patches import patchdoc, patched
from portkit.patches import pin as pinfile
from portkit.patches import series as seriesfile
from portkit.patches.apply import diff
from portkit.patches.patchfile import SERIES_FOLDER
from portkit.patches.series import Series
from portkit.port.conflictfile import Labels, Marked, mark
from portkit.port.rebase import Carried, NewFile, Snapshot, carry_series, patches_of
from portkit.port.session import WORK_FOLDER
from portkit.port.stale import StaleUse, stale_uses
from portkit.text.sides import Text
from portkit.upstream.cache import Cache
from portkit.upstream.source import Source, obtain, released_tags, tags_between

RESOLUTIONS_FOLDER = f"{SERIES_FOLDER}/resolutions"
Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Start:
    """The repository as a refresh finds it."""

    pin: Pin
    series: Series
    resolutions: Resolutions

    @property
    def patches(self) -> tuple[Patch, ...]:
        return self.series.upstream


@dataclass(frozen=True)
class Answers:
    """What a person said of what waits: patches given up, and pieces that belong elsewhere."""

    skipped: frozenset[str] = frozenset()
    moved: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Plan:
    """What the ladder decided; `marked` are the conflicts as files, `homeless` those without one.

    `owners` are the patches whose conflicts each of the marked files holds; `seconds` is the time
    of the carrying stage, sources at hand.  `stale` are uses that no patch covers.
    """

    start: Start
    sources: tuple[Source, ...]
    snapshots: tuple[Snapshot, ...]
    carried: Carried
    marked: dict[str, Marked]
    owners: dict[str, tuple[str, ...]]
    homeless: tuple[tuple[Patch, Conflict], ...]
    stale: tuple[StaleUse, ...]
    seconds: float

    @property
    def target(self) -> Snapshot:
        return self.snapshots[-1]

    @property
    def drops(self) -> list[str]:
        """The patches that lose a piece, by name."""
        return [story.patch.name for story in self.carried.stories if story.drops]


def read(root: Path) -> Start:
    """The pin, the series and the resolutions of the repository at `root`."""
    folder = root / RESOLUTIONS_FOLDER
    files = {
        f"{RESOLUTIONS_FOLDER}/{file.name}": file.read_bytes()
        for file in sorted(folder.glob(f"*{SUFFIX}"))
    }
    return Start(
        pinfile.read(root / pinfile.PIN_FILE), seriesfile.load(root), Resolutions.parse(files)
    )


def route(
    start: Start, to_tag: str, *, step: bool, upstream: Path | None, cache: Cache
) -> tuple[str, ...]:
    """The tags a refresh goes through, the pin's first."""
    if not step:
        return (start.pin.tag, to_tag)
    releases = released_tags(cache=cache, upstream=upstream)
    between = tags_between(start.pin.tag, to_tag, releases)
    if not between or between[-1] != to_tag:
        raise BadInput(
            f"there is no way release by release from {start.pin.tag} to {to_tag}",
            hint="--step goes forward only; without it the series is carried in one step",
        )
    return (start.pin.tag, *between)


def plan(
    start: Start,
    tags: Sequence[str],
    answers: Answers,
    *,
    upstream: Path | None,
    cache: Cache,
    events: Events = silent,
) -> Plan:
    """Obtain the sources and decide every piece of the series."""
    sources = tuple(
        obtain(tag, cache=cache, upstream=upstream, pins=[start.pin], events=events) for tag in tags
    )
    store = cache.store
    patched.verified_tree(store, start.pin, start.patches)
    begun = time.perf_counter()
    snapshots = tuple(Snapshot.of(store, source.tag, source.tree) for source in sources)
    carried = carry_series(
        store,
        start.patches,
        snapshots,
        resolutions=start.resolutions,
        skipped=answers.skipped,
        events=events,
    )
    seconds = time.perf_counter() - begun
    library = Library(store, snapshots[-1].tag, snapshots[-1].files)
    placed, homeless = _homes(carried, answers.moved or {}, library)
    owners: dict[str, tuple[str, ...]] = {}
    for patch, conflict in placed:
        path = conflict.region.path
        if path is not None:
            owners[path] = tuple(dict.fromkeys((*owners.get(path, ()), patch.name)))
    marked = _mark(carried, placed, library, start.pin.tag)
    stale = stale_uses(start.patches, carried.files, library)
    return Plan(start, sources, snapshots, carried, marked, owners, homeless, stale, seconds)


def _homes(
    carried: Carried, moved: Mapping[str, str], library: Library
) -> tuple[list[tuple[Patch, Conflict]], tuple[tuple[Patch, Conflict], ...]]:
    """The conflicts that have a file at the new tag, by themselves or by a person's word."""
    placed: list[tuple[Patch, Conflict]] = []
    homeless: list[tuple[Patch, Conflict]] = []
    for patch, conflict in carried.conflicts:
        path = moved.get(patch.name) or conflict.region.path
        if path is None:
            homeless.append((patch, conflict))
        elif path == conflict.region.path:
            placed.append((patch, conflict))
        elif path not in library.files:
            raise BadInput(
                f"there is no file {path} in {library.tag}",
                hint=f"--move {patch.name} FILE takes a path of upstream's source",
            )
        else:
            end = len(library.text(path).lines)
            region = replace(conflict.region, path=path, start=end, end=end)
            placed.append((patch, replace(conflict, region=region)))
    return placed, tuple(homeless)


def _mark(
    carried: Carried, placed: Sequence[tuple[Patch, Conflict]], library: Library, old_tag: str
) -> dict[str, Marked]:
    marked: dict[str, Marked] = {}
    for path in sorted({c.region.path for _, c in placed if c.region.path is not None}):
        here = [(patch, conflict) for patch, conflict in placed if conflict.region.path == path]
        names = ", ".join(dict.fromkeys(patch.name for patch, _ in here))
        edits = carried.files[path].edits if path in carried.files else ()
        labels = Labels(f"ours ({names})", f"pin ({old_tag})", f"upstream ({library.tag})")
        marked[path] = mark(library.text(path), edits, [c for _, c in here], labels)
    return marked


@dataclass(frozen=True)
class Result:
    """A refresh with nothing left to decide: what to write, and the series it makes."""

    files: Files
    pin: Pin
    series: Series
    recorded: tuple[Resolution, ...]


def finish(plan: Plan, edited: Mapping[str, bytes], *, cache: Cache) -> Result:
    """The new series, pin and documents, from the plan and the files a person edited.

    Raises `BadFile` for an edited file that does not parse.
    """
    store = cache.store
    library = Library(store, plan.target.tag, plan.target.files)
    for path, data in edited.items():
        _check_edited(library.text(path), data)
    carried = _with_edits(plan, edited, library)
    patches = patches_of(carried, plan.start.patches)
    recorded = _recorded(plan, edited)
    source = plan.sources[-1]
    pin = Pin(
        plan.start.pin.repository,
        source.tag,
        source.commit,
        source.archive,
        source.tree,
        patched.patched_tree(store, source.tree, patches),
    )
    series = _series(plan.start.series, patches)
    resolutions = plan.start.resolutions.adding(*recorded)
    files: dict[str, bytes | None] = {
        f"{SERIES_FOLDER}/{patch.name}": None for patch in plan.start.series.patches
    }
    files |= seriesfile.render(series)
    files |= {f"{RESOLUTIONS_FOLDER}/{n}": d for n, d in resolutions.render().items()}
    files[pinfile.PIN_FILE] = pinfile.render(pin)
    files[patchdoc.DOC_FILE] = patchdoc.render(series, pin)
    return Result(files, pin, series, recorded)


def _check_edited(theirs: Text, data: bytes) -> None:
    fault = soundness.python_fault(theirs.path, data) or soundness.cmake_fault(theirs, data)
    if fault is not None:
        line, reason = fault
        where = f"{WORK_FOLDER}/{theirs.path}"
        raise BadFile(where, line or None, reason, hint="correct it, then --continue")


def _with_edits(plan: Plan, edited: Mapping[str, bytes], library: Library) -> Carried:
    """The carried series with what a person made of the files that held conflicts."""
    files = dict(plan.carried.files)
    for path, data in edited.items():
        theirs = library.text(path)
        edits = tuple(diff(theirs.data, data))
        known = files.pop(path, None)
        if edits:
            owners = known.owners if known is not None else plan.owners[path]
            files[path] = NewFile(path, theirs, edits, owners)
    return replace(plan.carried, files=files)


def _recorded(plan: Plan, edited: Mapping[str, bytes]) -> tuple[Resolution, ...]:
    """The answers worth keeping: one for each conflict that can be told from its surroundings.

    Only those of a conflict as the ladder stated it, at its place: it never asks for two that were
    joined, and where a person put code that moved answers nothing about where it was.
    """
    old, new = plan.snapshots[0].tag, plan.target.tag
    stated = {conflict.region for _, conflict in plan.carried.conflicts}
    found: list[Resolution] = []
    for path, data in edited.items():
        marked = plan.marked[path]
        settled = marked.settled(data)
        for region, lines in zip(marked.regions, settled or (), strict=False):
            if region in stated and region.end > 0 and (region.base or region.theirs):
                said = f"{old} to {new} in {path}"
                found.append(resolution(region.base, region.ours, region.theirs, lines, said))
    return tuple(found)


def _series(old: Series, patches: Sequence[Patch]) -> Series:
    """The old series with the patches of upstream replaced; comments and `deps/` stay."""
    deps = [patch for patch in old.patches if patch.group == "deps"]
    names = {patch.name for patch in patches}
    by_header = {patch.header: patch.name for patch in patches}
    renamed = {
        patch.name: by_header[patch.header]
        for patch in old.upstream
        if patch.name not in names and patch.header in by_header
    }
    return old.with_patches([*patches, *deps], renamed)
