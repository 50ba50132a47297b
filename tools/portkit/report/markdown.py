"""The port report as Markdown, fit for the body of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from portkit.carrying.decision import Rung
from portkit.port.facts import UNKNOWN, Fact, Facts, SourceChange
from portkit.report.model import (
    ConflictReport,
    PatchReport,
    Report,
    Side,
    State,
)
from portkit.report.text import brief, count, sentence, step_lines, totals_line
from portkit.text.requirements import RequirementChange

_MOST = 60_000  # characters; hosts of pull requests cut a body at 65,536
_MOST_NAMED = 20  # of the parts left out
_MOST_LINES = 60  # of one side or diff
_SPECIAL = re.compile(r"[\\*_<>\[\]|~&#]")


def markdown(report: Report) -> str:
    """The report in full, or with its longest parts named only, so that it fits."""
    budget = _MOST
    parts: list[str] = []
    left_out: list[str] = []
    for title, lines in _sections(report):
        text = "\n".join(lines) + "\n"
        if len(text) > budget:
            left_out.append(title)
            continue
        budget -= len(text)
        parts.append(text)
    if left_out:
        named, more = left_out[:_MOST_NAMED], len(left_out) - _MOST_NAMED
        named += [f"and {more} more"] if more > 0 else []
        parts.append(f"Left out to fit a pull request, see the HTML report: {'; '.join(named)}.\n")
    return "\n".join(parts)


def _sections(report: Report) -> Iterator[tuple[str, Iterable[str]]]:
    """Title and lines of each part, the most telling first."""
    yield "totals", _head(report)
    for number, conflict in enumerate(report.conflicts, 1):
        head = ["## Conflicts", ""] if number == 1 else []
        patch = next(p for p in report.patches if conflict in p.conflicts)
        title = f"conflict {number}, {conflict.path}:{conflict.line}"
        yield title, [*head, *_conflict(number, conflict, patch)]
    yield "drops", _drops(report)
    yield "uses to look at", _stale(report)
    yield "new findings of the portability scan", _scan(report)
    yield "the audit", _audit(report)
    yield "patches", _patches(report)
    yield "upstream facts", _facts(report.facts)
    yield "how this was made", _run(report)


def _head(report: Report) -> Iterator[str]:
    yield f"# Port to vLLM {_text(report.new_tag)}"
    yield ""
    yield f"From {_text(report.old_tag)} (`{report.old_commit}`). {_text(totals_line(report))}"
    totals = report.totals
    counts = [f"{number} {rung.value}" for rung, number in totals.hunk_rungs]
    if counts:
        counts += [f"{totals.hunks_waiting} waiting"] if totals.hunks_waiting else []
        counts += [f"{totals.hunks_dropped} dropped"] if totals.hunks_dropped else []
        yield f"Of {count(totals.hunks, 'hunk')}: {_text(', '.join(counts))}."


# conflicts and drops


def _conflict(number: int, conflict: ConflictReport, patch: PatchReport) -> Iterator[str]:
    yield f"### {number}. {_code(conflict.path)} line {conflict.line}"
    yield ""
    yield f"{_text(sentence(conflict.reason))} Patch {_code(conflict.patch)}."
    yield ""
    cures = f" ({', '.join(map(_code, patch.diagnostics))})" if patch.diagnostics else ""
    yield f"**What ours does**: {_text(patch.summary or 'no header')}{cures}"
    yield from _fence(conflict.our_change, "diff")
    yield ""
    yield f"**What upstream did** from {_text(conflict.from_tag)} to {_text(conflict.to_tag)}:"
    if conflict.theirs.path is None:
        yield "the file is not there any more."
    else:
        yield from _fence(conflict.upstream_change or ("(nothing in these lines)",), "diff")
    yield ""
    yield "<details><summary>The three sides</summary>"
    for side in (conflict.pin, conflict.ours, conflict.theirs):
        yield ""
        yield from _side(side)
    yield ""
    yield "</details>"
    yield ""


def _side(side: Side) -> Iterator[str]:
    numbers = [line.number for line in side.lines if line.number is not None]
    where = f", lines {numbers[0]}–{numbers[-1]}" if numbers else ""
    place = _code(side.path) + where if side.path else "the file is not there"
    yield f"**{_text(side.label)}**: {place}"
    if side.lines:
        yield from _fence([line.text for line in side.lines])
    elif side.path:
        yield "(no lines)"


def _drops(report: Report) -> Iterator[str]:
    if not report.drops:
        return
    yield "## Drops"
    yield ""
    said = "accepted" if report.run.drops_accepted else "to be confirmed by a person"
    yield f"Pieces that are no longer needed, {said}:"
    yield ""
    for patch, drop in report.drops:
        tags = f"{drop.from_tag} → {drop.to_tag}"
        yield (
            f"- {_code(drop.path)} line {drop.line} ({_text(patch.summary)}), {_text(tags)}: "
            f"{_text(drop.why.value)}. {_text(drop.evidence)}."
        )


def _stale(report: Report) -> Iterator[str]:
    if not report.stale:
        return
    yield "## Uses to look at"
    yield ""
    yield "Lines of the new tag that use a name as it was before a patch redefined it:"
    yield ""
    for use in report.stale:
        yield f"- {_code(f'{use.path}:{use.line}')}: {_code(use.text.strip())} ({_code(use.patch)})"


def _scan(report: Report) -> Iterator[str]:
    if report.scan is None:
        return
    yield "## New on Windows"
    yield ""
    if not report.scan.found:
        yield f"The portability scan finds nothing that {_text(report.old_tag)} does not have."
        return
    yield "What the new tag brings that will not build or run there, and no patch covers:"
    yield ""
    for one in report.scan.found:
        code = f", {_code(one.error)}" if one.error else ""
        yield f"- {_code(one.path)}:{one.lines}: {_text(one.title)}"
        yield f"  ({one.tier}, {one.stage}{code}, {_code(one.rule)})"


def _audit(report: Report) -> Iterator[str]:
    if not report.audit:
        return
    same = sum(one.identical for one in report.audit)
    yield "## Audit, level 1"
    yield ""
    yield f"{same} of {len(report.audit)} files are upstream's with the Windows guards folded. The"
    yield "others need level 2 (`tools/audit.py`):"
    yield ""
    for one in report.audit:
        if not one.identical:
            yield f"- {_code(one.path)}: {_text(one.evidence)}"


# patches


def _patches(report: Report) -> Iterator[str]:
    yield "## Patches"
    yield ""
    yield "| patch | hunks | outcome | evidence |"
    yield "|---|---|---|---|"
    for patch in report.patches:
        outcome = ", ".join(_outcomes(patch))
        yield f"| {_code(patch.name)} | {patch.hunk_count} | {outcome} | {_evidence(patch)} |"


def _outcomes(patch: PatchReport) -> Iterator[str]:
    if patch.conflicts:
        yield f"**{count(len(patch.conflicts), 'conflict')}**"
    if patch.state is State.SKIPPED:
        yield "skipped"
    if patch.drops:
        yield "dropped" if patch.state is State.DROPPED else count(len(patch.drops), "drop")
    for rung in patch.rungs:
        if rung is not Rung.EXACT or len(patch.rungs) == 1:
            yield rung.value


def _evidence(patch: PatchReport) -> str:
    """Why each less certain landing is right, and the steps where it took place."""
    notes = [f"→ {_code(path)}" for path in patch.new_paths if path != patch.path]
    stepwise = len({step.to_tag for step in patch.steps}) > 1
    for hunk in patch.hunks:
        if hunk.old is not None:
            said = "; ".join(dict.fromkeys(landing.evidence for landing in hunk.landings))
            where = f"{hunk.to_tag}, line {hunk.line}" if stepwise else f"line {hunk.line}"
            notes.append(_text(f"{where}, {hunk.rung.value}: {said}"))
    if stepwise:
        notes += [f"{_text(tags)}: {_text(happened)}" for tags, happened in step_lines(patch)]
    return "<br>".join(notes)


# facts


def _facts(facts: Facts) -> Iterator[str]:
    yield f"## Upstream, {_text(facts.old_tag)} → {_text(facts.new_tag)}"
    yield from _table("Versions", facts.versions, facts)
    yield from _table("Third-party sources fetched by CMake", facts.dependencies, facts)
    yield from _table("CUDA architectures", facts.archs, facts)
    yield from _table("Extension modules (built for)", facts.extensions, facts)
    yield from _requirements(facts.requirements)
    yield from _sources(facts.sources)


def _table(title: str, found: Sequence[Fact], facts: Facts) -> Iterator[str]:
    told = [fact for fact in found if fact.changed or UNKNOWN in (fact.old, fact.new)]
    yield ""
    if not told:
        yield f"**{title}**: unchanged."
        return
    yield f"**{title}**"
    yield ""
    yield f"| | {_text(facts.old_tag)} | {_text(facts.new_tag)} | |"
    yield "|---|---|---|---|"
    for fact in told:
        cells = (fact.name, brief(fact.old), brief(fact.new), fact.note)
        yield "| " + " | ".join(map(_text, cells)) + " |"


def _requirements(changes: Sequence[RequirementChange]) -> Iterator[str]:
    near = [change for change in changes if change.matters]
    yield ""
    yield "**Requirements of a CUDA build**" + ("" if near else ": unchanged.")
    if near:
        yield ""
    for change in near:
        moved = f" (from {_code(change.old_file)})" if change.old_file != change.file else ""
        yield f"- {change.kind} in {_code(change.file)}{moved}: {_specifiers(change)}"
    if len(changes) > len(near):
        yield ""
        yield f"{count(len(changes) - len(near), 'change')} in other requirement files."


def _specifiers(change: RequirementChange) -> str:
    sides = [" + ".join(map(_code, side)) for side in (change.old, change.new) if side]
    return sides[0] if change.kind == "moved" else " → ".join(sides)


def _sources(changes: Sequence[SourceChange]) -> Iterator[str]:
    cuda = [change for change in changes if change.device == "cuda"]
    yield ""
    yield "**Compiled sources of a CUDA build**" + ("" if cuda else ": unchanged.")
    if cuda:
        yield ""
    for change in cuda:
        if change.old and change.new:
            yield f"- moved {_code(change.old)} → {_code(change.new)}"
        else:
            yield f"- added {_code(change.new)}" if change.new else f"- removed {_code(change.old)}"
    if len(changes) > len(cuda):
        yield ""
        yield f"{count(len(changes) - len(cuda), 'change')} for ROCm and CPU builds."


def _run(report: Report) -> Iterator[str]:
    run = report.run
    yield "---"
    yield ""
    tags = " → ".join(run.tags) or f"{report.old_tag} → {report.new_tag}"
    yield f"{_text(tags)}, {run.seconds:.1f} s."
    if run.command:
        yield f"Made by {_code(run.command)}"
    if run.versions:
        yield "with " + ", ".join(_text(f"{name} {version}") for name, version in run.versions)


# marks


def _text(text: str) -> str:
    """Prose with Markdown's signs escaped, but for what stands in backquotes."""
    parts = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    return "".join(
        part.replace("|", "\\|") if part[:1] == "`" else _SPECIAL.sub(_escaped, part)
        for part in parts
    )


def _escaped(match: re.Match[str]) -> str:
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[0], "\\" + match[0])


def _code(text: str | None) -> str:
    """Text in as many backquotes as it needs."""
    plain = " ".join((text or "").split()).replace("|", "\\|")
    runs = [len(run) for run in re.findall("`+", plain)]
    quote = "`" * next(n for n in range(1, len(runs) + 2) if n not in runs)
    space = " " if plain[:1] == "`" or plain[-1:] == "`" else ""
    return f"{quote}{space}{plain}{space}{quote}"


def _fence(lines: Sequence[str], language: str = "") -> Iterator[str]:
    """A code block whose fence is longer than any in its lines; a long one is cut."""
    shown = list(lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        shown.append(f"… {len(lines) - _MOST_LINES} more lines")
    longest = max((len(run) for line in shown for run in re.findall("`{3,}", line)), default=2)
    fence = "`" * (longest + 1)
    yield ""
    yield fence + language
    yield from shown
    yield fence
