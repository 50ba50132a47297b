"""The port report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from portkit.carrying.decision import Rung
from portkit.face import pages
from portkit.face.colours import Runs, colours, pieces
from portkit.port.facts import UNKNOWN, Fact
from portkit.report.model import ConflictReport, HunkReport, Line, PatchReport, Report, Side, State
from portkit.report.sidediff import Cell, Row, three_sides, two_sides
from portkit.report.text import brief, sentence, step_lines, totals_line

# What a rung does, as a family: the colour of its badge.
_FAMILIES = {
    Rung.EXACT: "same",
    Rung.OFFSET: "same",
    Rung.MOVED: "moved",
    Rung.MOVED_FILE: "moved",
    Rung.RESOLUTION: "settled",
}


@dataclass(frozen=True)
class _Code:
    """A cell of a diff, ready to show: number, class of the line, pieces with their classes."""

    number: str
    kind: str
    pieces: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Row:
    kind: str  # `equal` or `unlike`
    cells: tuple[_Code | None, ...]


@dataclass(frozen=True)
class _Diff:
    sides: tuple[Side, ...]
    rows: tuple[_Row, ...]


def html(report: Report) -> str:
    """The page: no other files, readable without scripts, in light, dark and print."""
    script, style = pages.source("report.js"), pages.source("report.css")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            lede=totals_line(report),
            bar=_bar(report),
            counts=Counter(kind for patch in report.patches for kind in _filters(patch).split()),
            script=script,
            style=style,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


@cache
def _environment() -> Environment:
    environment = pages.environment()
    helpers: dict[str, Any] = {
        "anchor": _anchor,
        "badges": _badges,
        "brief": brief,
        "code": _inline_code,
        "family": lambda rung: _FAMILIES.get(rung, "merged"),
        "filters": _filters,
        "hunk_diff": _hunk_diff,
        "conflict_diff": _conflict_diff,
        "reflowed": _reflowed,
        "sentence": sentence,
        "signed": _signed,
        "step_lines": step_lines,
        "told": _told,
        "words": _words,
    }
    environment.filters.update(helpers)
    return environment


# small parts


def _anchor(name: str, *more: object) -> str:
    """An id, and the fragment that links to it: no two names share one."""
    return ":".join(quote(str(part), safe="/") for part in (name, *more))


def _badges(patch: PatchReport) -> Iterator[tuple[str, str]]:
    """Text and family of a patch's badges, what matters most first."""
    if patch.conflicts:
        number = len(patch.conflicts)
        yield ("conflict" if number == 1 else f"{number} conflicts"), "conflict"
    if patch.state is State.SKIPPED:
        yield "skipped", "conflict"
    if patch.drops:
        whole = patch.state is State.DROPPED
        yield ("dropped" if whole else "part dropped"), "drop"
    for rung in patch.rungs:
        if rung is not Rung.EXACT or (len(patch.rungs) == 1 and not patch.conflicts):
            yield rung.value, _FAMILIES.get(rung, "merged")


def _filters(patch: PatchReport) -> str:
    """The filters that show a patch."""
    kinds = [("conflict", bool(patch.conflicts)), ("drop", bool(patch.drops))]
    kinds.append(("inexact", not patch.exact))
    return " ".join(name for name, holds in kinds if holds)


def _told(facts: Iterable[Fact]) -> list[Fact]:
    """The facts worth a line: what changed, and what could not be found."""
    return [fact for fact in facts if fact.changed or UNKNOWN in (fact.old, fact.new)]


def _words(fact: Fact) -> list[tuple[str, bool]]:
    """The words of a fact's new value, and whether the old one lacks them."""
    known = brief(fact.old).split()
    return [(word, fact.changed and word not in known) for word in brief(fact.new).split()]


def _inline_code(text: str) -> list[tuple[str, bool]]:
    """Prose cut at its backquotes: (text, whether it is code)."""
    parts = re.split(r"`([^`\n]+)`", text)
    return [(part, bool(number % 2)) for number, part in enumerate(parts) if part]


def _reflowed(text: str) -> str:
    """Prose without the line breaks that only keep lines short; those that a writer meant stay."""
    lines = text.split("\n")
    width = max(map(len, lines))
    joined = lines[:1]
    for previous, line in pairwise(lines):
        first = line.split(" ", 1)[0]
        meant = not line or not previous or len(previous) + 1 + len(first) <= width
        if meant:
            joined.append(line)
        else:
            joined[-1] += f" {line}"
    return "\n".join(joined)


def _bar(report: Report) -> list[tuple[str, int, str]]:
    """How the series came through, for a bar: name, count, family, the best first."""
    totals = report.totals
    rungs = totals.hunk_rungs or totals.rungs
    parts = [(rung.value, number, _FAMILIES.get(rung, "merged")) for rung, number in rungs]
    if totals.hunk_rungs:
        rest = (totals.hunks_dropped, totals.hunks_waiting, 0)
    else:
        rest = (totals.dropped, totals.waiting, totals.skipped)
    names = ("dropped", "waiting", "skipped")
    parts += zip(names, rest, ("drop", "conflict", "conflict"), strict=True)
    return [part for part in parts if part[1]]


# diffs


def _hunk_diff(hunk: HunkReport) -> _Diff | None:
    """The patched region at the old tag beside that at the new one."""
    if hunk.old is None or hunk.new is None:
        return None
    return _diff(two_sides(_texts(hunk.old), _texts(hunk.new)), hunk.old, hunk.new)


def _conflict_diff(conflict: ConflictReport) -> _Diff:
    sides = (conflict.pin, conflict.ours, conflict.theirs)
    return _diff(three_sides(*map(_texts, sides)), *sides)


def _texts(side: Side) -> list[str]:
    return [line.text for line in side.lines]


def _diff(rows: Sequence[Row], *sides: Side) -> _Diff:
    runs = [colours(side.path, _texts(side)) for side in sides]
    shown = []
    for row in rows:
        cells = tuple(
            None if cell is None else _code(side.lines[cell.index], run[cell.index], cell)
            for cell, side, run in zip(row.cells, sides, runs, strict=True)
        )
        shown.append(_Row("unlike" if row.changed else "equal", cells))
    return _Diff(sides, tuple(shown))


def _code(line: Line, runs: Runs, cell: Cell) -> _Code:
    kind = "gap" if line.gap else "ours" if line.ours else ""
    kind += " touched" if cell.changed else ""
    number = "" if line.gap else "+" if line.number is None else str(line.number)
    return _Code(number, kind, tuple(pieces(line.text, runs, cell.marks)))


def _signed(lines: Iterable[str]) -> list[tuple[str, str]]:
    """The lines of a small diff, each with the class of its sign."""
    kinds = {"+": "add", "-": "del", "@": "at"}
    return [(line, kinds.get(line[:1], "")) for line in lines]
