"""The port report: what a person reads after a refresh, built from what the core decided.

`build` turns decisions into the values of `report_model`; `markdown` and `html` show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, unified_diff
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from portkit.carrying.decision import Conflict, HunkResult, Landed, Rung
from portkit.model import Edit, Hunk, Pin
from portkit.patches import header
from portkit.patches.apply import blocks_of
from portkit.port.facts import Facts
from portkit.port.rebase import Carried, NewFile, Step, Story
from portkit.port.stale import StaleUse
from portkit.report.html import html
from portkit.report.markdown import markdown
from portkit.report.model import (
    AuditReport,
    ConflictReport,
    DropReport,
    HunkReport,
    Landing,
    Line,
    PatchReport,
    Report,
    Run,
    ScanReport,
    Side,
    StaleReport,
    State,
    StepReport,
    Totals,
    plain,
    shown,
    shown_lines,
    to_json,
)

if TYPE_CHECKING:
    from portkit.audit.carried import Audited

__all__ = ["Report", "Run", "build", "html", "markdown", "to_json"]

_CONTEXT = 3  # lines around an edit
_SAME_LINES = (Rung.EXACT, Rung.OFFSET)


def build(
    pin: Pin,
    carried: Carried,
    facts: Facts,
    run: Run,
    stale: Sequence[StaleUse] = (),
    *,
    scan: ScanReport | None = None,
    audit: Sequence[Audited] = (),
) -> Report:
    """The report of carrying a series from `pin` to `carried.target`.

    `scan` and `audit` are told of where they ran.
    """
    regions = _Regions(carried)
    patches = tuple(_patch(story, carried, run, regions) for story in carried.stories)
    return Report(
        repository=plain(pin.repository),
        old_tag=plain(pin.tag),
        old_commit=plain(pin.commit),
        new_tag=plain(carried.target.tag),
        totals=_totals(patches, carried),
        patches=patches,
        facts=facts,
        run=run,
        stale=tuple(
            StaleReport(use.name, plain(use.patch), plain(use.path), use.line, shown(use.text))
            for use in stale
        ),
        scan=scan,
        audit=tuple(
            AuditReport(plain(one.patch), plain(one.path), one.identical, plain(one.evidence))
            for one in audit
        ),
    )


def _totals(patches: Sequence[PatchReport], carried: Carried) -> Totals:
    states = Counter(patch.state for patch in patches)
    whole = [p for p in patches if p.state is State.CARRIED and p.rung is not None]
    direct = all(len(story.steps) <= 1 for story in carried.stories)
    results = [r for story in carried.stories for _, r in _results(story) if direct]
    settled = [r.rung for r in results if r.rung is not None and not r.conflicts]
    return Totals(
        patches=len(patches),
        carried=states[State.CARRIED],
        dropped=states[State.DROPPED],
        waiting=states[State.CONFLICT],
        skipped=states[State.SKIPPED],
        hunks=sum(patch.hunk_count for patch in patches),
        conflicts=sum(len(patch.conflicts) for patch in patches),
        drops=sum(len(patch.drops) for patch in patches),
        rungs=_counted(patch.rungs[0] for patch in whole),
        hunk_rungs=_counted(settled),
        hunks_waiting=sum(bool(r.conflicts) for r in results),
        hunks_dropped=sum(bool(r.drops) and not r.landed and not r.conflicts for r in results),
    )


def _counted(rungs: Iterable[Rung]) -> tuple[tuple[Rung, int], ...]:
    """How often each rung occurs, the most certain first."""
    counts = Counter(rungs)
    return tuple((rung, counts[rung]) for rung in Rung if counts[rung])


# one patch


def _patch(story: Story, carried: Carried, run: Run, regions: _Regions) -> PatchReport:
    patch = story.patch
    head = header.parse(patch.header)
    conflicts = tuple(_conflicts(story, carried.files))
    owned = [path for path, file in carried.files.items() if patch.name in file.owners]
    landed = {o.rung for step in story.steps for r in step.results for o in r.landed}
    return PatchReport(
        name=plain(patch.name),
        path=plain(patch.path),
        new_paths=tuple(plain(path) for path in owned),
        group=plain(patch.group),
        summary=plain(head.summary),
        explanation=plain(head.body),
        diagnostics=tuple(plain(item) for item in head.diagnostics),
        tests=tuple(plain(item) for item in head.tests),
        archs=tuple(plain(item) for item in head.archs),
        hunk_count=len(patch.change.hunks),
        state=_state(story, bool(owned), bool(conflicts), run),
        rungs=tuple(sorted(landed, key=lambda rung: -rung.rank)),
        steps=tuple(_steps(story)),
        hunks=tuple(_hunks(story, regions)),
        drops=tuple(_drops(story)),
        conflicts=conflicts,
    )


def _state(story: Story, owns: bool, waits: bool, run: Run) -> State:
    if waits:
        return State.CONFLICT
    if story.patch.name in run.skipped:
        return State.SKIPPED
    if story.drops and not owns:
        return State.DROPPED
    return State.CARRIED


def _steps(story: Story) -> Iterator[StepReport]:
    """The steps in which something else than an exact landing happened."""
    for step in story.steps:
        results = step.results
        rungs = _counted(r.rung for r in results if r.rung is not None)
        dropped = sum(bool(r.drops) for r in results)
        waiting = sum(bool(r.conflicts) for r in results)
        if dropped or waiting or step.renamed or any(rung is not Rung.EXACT for rung, _ in rungs):
            renamed = None if step.renamed is None else plain(step.renamed)
            yield StepReport(step.from_tag, step.to_tag, rungs, dropped, waiting, renamed)


def _drops(story: Story) -> Iterator[DropReport]:
    for step, result in _results(story):
        for drop in result.drops:
            yield DropReport(
                step.from_tag,
                step.to_tag,
                plain(result.base_path),
                _first_line(result.hunk),
                drop.why,
                plain(drop.evidence),
                shown_lines(result.hunk.lines),
            )


def _hunks(story: Story, regions: _Regions) -> Iterator[HunkReport]:
    for step, result in _results(story):
        if result.rung in (None, Rung.EXACT):
            continue
        old = new = None
        if result.rung not in _SAME_LINES:
            path = plain(result.base_path)
            old = Side(step.from_tag, path, tuple(_patched(result.hunk)))
            new = regions.patched(step.to_tag, result.landed)
        yield HunkReport(
            step.from_tag,
            step.to_tag,
            plain(result.base_path),
            _first_line(result.hunk),
            tuple(_landing(o) for o in result.landed if o.rung is not Rung.EXACT),
            old,
            new,
        )


def _first_line(hunk: Hunk) -> int:
    """The 1-based line of the old file at which the hunk's first change stands."""
    blocks = blocks_of(hunk)
    return blocks[0].start + 1 if blocks else hunk.old_start


def _landing(landed: Landed) -> Landing:
    first = landed.edits[0].start + 1 if landed.edits else 1
    return Landing(landed.rung, plain(landed.path), first, plain(landed.evidence))


def _results(story: Story) -> Iterator[tuple[Step, HunkResult]]:
    return ((step, result) for step in story.steps for result in step.results)


# conflicts


def _conflicts(story: Story, files: Mapping[str, NewFile]) -> Iterator[ConflictReport]:
    """What waits at the last tag; a conflict that spans hunks is told once."""
    if not story.steps:
        return
    seen: set[Conflict] = set()
    for step, result in _results(story):
        for conflict in result.conflicts:
            if step.to_tag == story.steps[-1].to_tag and conflict not in seen:
                seen.add(conflict)
                file = files.get(conflict.region.path or "")
                yield _conflict(story, step, result, conflict, file)


def _conflict(
    story: Story, step: Step, result: HunkResult, conflict: Conflict, file: NewFile | None
) -> ConflictReport:
    region = conflict.region
    path = plain(result.base_path)
    new_path = None if region.path is None else plain(region.path)
    start = _base_start(result, conflict)
    above, below = _context(result.hunk, conflict, start, file)
    base = (*above, *region.base, *below)
    ours = (*above, *region.ours, *below)
    theirs = (*above, *region.theirs, *below)
    first, their_first = start - len(above), region.start - len(above)
    return ConflictReport(
        patch=plain(story.patch.name),
        from_tag=result.base_tag,
        to_tag=step.to_tag,
        path=path,
        line=conflict.blocks[0].start + 1 if conflict.blocks else _first_line(result.hunk),
        reason=plain(conflict.reason),
        pin=Side(_base_label(story, result), path, _numbered(base, first)),
        ours=Side(f"ours, on {result.base_tag}", path, tuple(_ours(base, ours, first))),
        theirs=Side(f"new tag {step.to_tag}", new_path, _numbered(theirs, their_first)),
        upstream_change=_diff(base, theirs),
        our_change=_diff(base, ours),
    )


def _base_label(story: Story, result: HunkResult) -> str:
    """Release by release, a piece that waits is compared with the last tag it was right for."""
    at_pin = result.base_tag == story.steps[0].from_tag
    return f"pin {result.base_tag}" if at_pin else f"{result.base_tag}, where it last fitted"


def _context(
    hunk: Hunk, conflict: Conflict, start: int, file: NewFile | None
) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The lines above and below a conflict that stand in both files, as far as both are known."""
    if file is None:
        return (), ()
    region = conflict.region
    at, end = start - hunk.old_index, start - hunk.old_index + len(region.base)
    above = hunk.before[: max(0, at)]
    below = hunk.before[max(0, end) :] if at >= 0 else ()
    return (
        above[len(above) - _common(above[::-1], file.theirs.lines[: region.start][::-1]) :],
        below[: _common(below, file.theirs.lines[region.end :])],
    )


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many lines two sequences begin with alike, at most `_CONTEXT`."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return min(_CONTEXT, sum(1 for _ in same))


def _base_start(result: HunkResult, conflict: Conflict) -> int:
    """0-based line at which the base side begins in its file.

    It holds the conflict's blocks, and agrees with the hunk wherever both have lines; of several
    such places the one that shares most lines with the hunk.
    """
    hunk, base = result.hunk, conflict.region.base
    if not conflict.blocks:
        return hunk.old_index
    first, last = conflict.blocks[0].start, conflict.blocks[-1].end
    known = {hunk.old_index + number: line for number, line in enumerate(hunk.before)}

    def shared(start: int) -> int:
        lines = [(known[start + n], line) for n, line in enumerate(base) if start + n in known]
        return len(lines) if all(one == other for one, other in lines) else -1

    places = range(max(0, last - len(base)), first + 1)
    return max(places, key=shared, default=first)


def _numbered(lines: Sequence[bytes], start: int) -> tuple[Line, ...]:
    return tuple(Line(start + number, shown(line)) for number, line in enumerate(lines, 1))


def _ours(base: Sequence[bytes], ours: Sequence[bytes], start: int) -> Iterator[Line]:
    """Our side: lines of upstream keep their numbers, the patch's own have none."""
    matcher = SequenceMatcher(None, base, ours, autojunk=False)
    for tag, low, _, first, last in matcher.get_opcodes():
        for number, line in enumerate(ours[first:last], low + start + 1):
            yield Line(number if tag == "equal" else None, shown(line))


def _diff(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[str, ...]:
    """A small unified diff without file names and line numbers; `@@` stands between its parts."""
    said = unified_diff(shown_lines(old), shown_lines(new), n=_CONTEXT, lineterm="")
    return tuple("@@" if line.startswith("@@") else line for line in said)[3:]


# regions: what the patched file looks like around an edit


def _patched(hunk: Hunk) -> Iterator[Line]:
    """The new side of a hunk, upstream's lines with their numbers in upstream's file."""
    number = hunk.old_index
    for line in hunk.lines:
        if line[:1] != b"+":
            number += 1
        if line[:1] != b"-":
            yield Line(number if line[:1] == b" " else None, shown(line[1:]))


class _Regions:
    """Patched files around edits, at every tag of the journey.

    At the last tag they are cut from the new files.  At a tag passed on the way they are in the
    hunks that the next step began with.
    """

    def __init__(self, carried: Carried) -> None:
        self._target = carried.target.tag
        self._files = carried.files
        self._hunks: dict[tuple[str, str], list[Hunk]] = {}
        for story in carried.stories:
            for _, result in _results(story):
                place = (result.base_tag, result.base_path)
                self._hunks.setdefault(place, []).append(result.hunk)

    def patched(self, tag: str, landed: Sequence[Landed]) -> Side | None:
        """The file that `landed` pieces are in, around them; None when they changed no line."""
        path = landed[0].path
        edits = [edit for piece in landed if piece.path == path for edit in piece.edits]
        if not edits:
            return None
        if tag == self._target and path in self._files:
            pieces = _around(self._files[path], edits)
        else:
            hunks = self._hunks.get((tag, path), [])
            found = [h for h in hunks if any(_covers(h, edit) for edit in edits)]
            # A parked rest of a hunk comes later and repeats what its first telling held.
            pieces = [tuple(_patched(hunk)) for hunk in _first_told(found)]
        return Side(tag, plain(path), tuple(_with_gaps(pieces)))


def _covers(hunk: Hunk, edit: Edit) -> bool:
    return hunk.old_index <= edit.start and edit.end <= hunk.old_index + hunk.old_count


def _first_told(hunks: Sequence[Hunk]) -> list[Hunk]:
    kept: list[Hunk] = []
    for hunk in hunks:
        end = hunk.old_index + hunk.old_count
        if all(end < k.old_index or k.old_index + k.old_count < hunk.old_index for k in kept):
            kept.append(hunk)
    return sorted(kept, key=lambda hunk: hunk.old_index)


def _around(file: NewFile, edits: Sequence[Edit]) -> list[tuple[Line, ...]]:
    """The result around `edits`: windows of upstream's lines with every edit in them made."""
    lines = file.theirs.lines
    windows: list[tuple[int, int]] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        low, high = max(0, edit.start - _CONTEXT), min(len(lines), edit.end + _CONTEXT)
        if windows and low <= windows[-1][1]:
            low, high = windows[-1][0], max(high, windows.pop()[1])
        windows.append((low, high))
    return [tuple(_window(file, low, high)) for low, high in windows]


def _window(file: NewFile, low: int, high: int) -> Iterator[Line]:
    at = low
    for edit in file.edits:
        if edit.start < low or edit.end > high:
            continue
        yield from _numbered(file.theirs.lines[at : edit.start], at)
        yield from (Line(None, shown(line)) for line in edit.lines)
        at = edit.end
    yield from _numbered(file.theirs.lines[at:high], at)


def _with_gaps(pieces: Iterable[tuple[Line, ...]]) -> Iterator[Line]:
    gap = (Line(None, "⋯", gap=True),)
    separated = list(chain.from_iterable((gap, piece) for piece in pieces))[1:]
    return chain.from_iterable(separated)
