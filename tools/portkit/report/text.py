"""Phrases that every face of the port report uses, without markup."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from portkit.carrying.decision import Rung
from portkit.report.model import PatchReport, Report, StepReport


def totals_line(report: Report) -> str:
    """The outcome in one sentence, without markup."""
    totals = report.totals
    parts = [f"{totals.carried} carried{_rungs(totals.rungs)}"]
    if totals.waiting:
        noun = "patch waits" if totals.waiting == 1 else "patches wait"
        parts.append(f"{totals.waiting} {noun} for a person ({count(totals.conflicts, 'piece')})")
    if totals.dropped:
        parts.append(f"{totals.dropped} no longer needed")
    if totals.skipped:
        parts.append(f"{totals.skipped} skipped")
    return f"{count(totals.patches, 'patch', 'patches')}: {', '.join(parts)}."


def _rungs(counted: Sequence[tuple[Rung, int]]) -> str:
    return f" ({', '.join(f'{n} {rung.value}' for rung, n in counted)})" if counted else ""


def count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def brief(value: str | None) -> str:
    """A value of a fact for a table: a dash for none, a commit id by its first digits."""
    if value is None:
        return "—"
    return value[:12] if re.fullmatch("[0-9a-f]{40}", value) else value


def sentence(text: str) -> str:
    """Text as a sentence: a full stop, and a capital unless it begins with a path or a code."""
    first = text.split(" ", 1)[0]
    said = text[:1].upper() + text[1:] if first.isalpha() else text
    return said.rstrip(".") + "."


def step_lines(patch: PatchReport) -> Iterator[tuple[str, str]]:
    """Tags at which something else than an exact landing happened, and what did.

    Tags in a row with the same tale are told together: `v0.19.0 … v0.20.2`, `1 waiting`.
    """
    told = [
        (tag, ", ".join(_happened(list(steps))))
        for tag, steps in groupby(patch.steps, key=lambda step: step.to_tag)
    ]
    for happened, run in groupby(told, key=lambda item: item[1]):
        tags = [tag for tag, _ in run]
        yield (f"{tags[0]} … {tags[-1]}" if len(tags) > 1 else tags[0]), happened


def _happened(steps: Iterable[StepReport]) -> Iterator[str]:
    steps = list(steps)
    counts: Counter[Rung] = Counter()
    for step in steps:
        counts.update(dict(step.rungs))
    yield from (f"{counts[rung]} {rung.value}" for rung in Rung if counts[rung])
    yield from (f"{step.dropped} dropped" for step in steps if step.dropped)
    yield from (f"{s.waiting} waiting, right for {s.from_tag}" for s in steps if s.waiting)
    yield from (f"renamed to {step.renamed}" for step in steps if step.renamed)
