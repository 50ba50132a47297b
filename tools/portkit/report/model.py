"""The port report as values: what became of each patch, and why, ready for any face.

Everything here is text for a person.  Bytes are decoded so that nothing is hidden: what is not
UTF-8 shows as `\\xff`, control characters and signs that reorder text as themselves spelled out.
The JSON form is described in docs/report-schema.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from portkit.carrying.decision import Rung, Why
from portkit.port.facts import Facts
from portkit.text.requirements import RequirementChange

SCHEMA_VERSION = 1
LONGEST_LINE = 2000  # characters of one line that a report shows


class State(Enum):
    """What became of a patch as a whole."""

    CONFLICT = "conflict"  # a part of it waits for a person
    SKIPPED = "skipped"  # a person gave up the parts that waited
    DROPPED = "dropped"  # nothing of it is needed any more
    CARRIED = "carried"


@dataclass(frozen=True)
class Line:
    """A line of a file: `number` is upstream's 1-based line, None for a line the patch adds.

    `gap` stands for lines left out between two shown ones.
    """

    number: int | None
    text: str
    gap: bool = False

    @property
    def ours(self) -> bool:
        return self.number is None and not self.gap


@dataclass(frozen=True)
class Side:
    """Lines of one version of a file; `path` is None where the tag does not have the file."""

    label: str
    path: str | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Landing:
    """One piece of a hunk at its new place; `line` is 1-based in the new tag's file."""

    rung: Rung
    path: str
    line: int
    evidence: str


@dataclass(frozen=True)
class HunkReport:
    """A hunk that one step carried by another rung than the exact one.

    `line` is where it stood in `path` at `from_tag`.  `old` and `new` are the patched regions at
    both tags; they are None where upstream's lines are the same and only their numbers differ.
    """

    from_tag: str
    to_tag: str
    path: str
    line: int
    landings: tuple[Landing, ...]
    old: Side | None
    new: Side | None

    @property
    def rung(self) -> Rung:
        return max((landing.rung for landing in self.landings), key=lambda rung: rung.rank)


@dataclass(frozen=True)
class DropReport:
    """A hunk, or a part of one, that is no longer needed; `change` is the hunk as a diff."""

    from_tag: str
    to_tag: str
    path: str
    line: int
    why: Why
    evidence: str
    change: tuple[str, ...]


@dataclass(frozen=True)
class ConflictReport:
    """A piece that waits for a person, with its three sides.

    `upstream_change` and `our_change` are diffs from the pin's lines to each of the other sides.
    """

    patch: str
    from_tag: str
    to_tag: str
    path: str
    line: int
    reason: str
    pin: Side
    ours: Side
    theirs: Side
    upstream_change: tuple[str, ...]
    our_change: tuple[str, ...]


@dataclass(frozen=True)
class StepReport:
    """A step that did something else to the patch than carry it exactly."""

    from_tag: str
    to_tag: str
    rungs: tuple[tuple[Rung, int], ...]  # hunks, by their least certain rung
    dropped: int
    waiting: int
    renamed: str | None


@dataclass(frozen=True)
class PatchReport:
    """One patch of the series; `rungs` holds every rung a piece of it took, least certain first."""

    name: str
    path: str
    new_paths: tuple[str, ...]
    group: str
    summary: str
    explanation: str
    diagnostics: tuple[str, ...]
    tests: tuple[str, ...]
    archs: tuple[str, ...]
    hunk_count: int
    state: State
    rungs: tuple[Rung, ...]
    steps: tuple[StepReport, ...]
    hunks: tuple[HunkReport, ...]
    drops: tuple[DropReport, ...]
    conflicts: tuple[ConflictReport, ...]

    @property
    def rung(self) -> Rung | None:
        """The least certain rung over all steps, None when no piece was carried."""
        return self.rungs[0] if self.rungs else None

    @property
    def exact(self) -> bool:
        """Whether all of it was carried as it stands."""
        return self.state is State.CARRIED and not self.drops and self.rung in (None, Rung.EXACT)


@dataclass(frozen=True)
class Totals:
    """Counts of the whole series.

    `hunks` are those of the series at the old pin.  `rungs` counts patches that are carried whole
    by their least certain rung.  `hunk_rungs`, `hunks_waiting` and `hunks_dropped` count hunks
    where one step took them all; release by release they are regrouped on the way, so that the
    three are empty.
    """

    patches: int
    carried: int
    dropped: int
    waiting: int
    skipped: int
    hunks: int
    conflicts: int
    drops: int
    rungs: tuple[tuple[Rung, int], ...]
    hunk_rungs: tuple[tuple[Rung, int], ...]
    hunks_waiting: int = 0
    hunks_dropped: int = 0


@dataclass(frozen=True)
class StaleReport:
    """A line of the new tag that uses `name` as it was before `patch` redefined it."""

    name: str
    patch: str
    path: str
    line: int
    text: str


@dataclass(frozen=True)
class FoundReport:
    """What one rule of the portability scan finds in one file; `lines` are its lines in words."""

    tier: str
    stage: str
    rule: str
    title: str
    error: str
    fix: str
    path: str
    lines: str
    text: str


@dataclass(frozen=True)
class ScanReport:
    """What the new tag has and the old pin has not: places that will not build or run on Windows.

    `aside` counts what is new and set aside, by reason.
    """

    found: tuple[FoundReport, ...]
    aside: tuple[tuple[str, int], ...]
    seconds: float


@dataclass(frozen=True)
class AuditReport:
    """A file of a carried patch: whether it is upstream's outside of Windows, and the evidence."""

    patch: str
    path: str
    identical: bool
    evidence: str


@dataclass(frozen=True)
class Run:
    """How the report came about: what a reader needs to do it again.

    `tags` are all tags passed, the pin's first; `versions` pairs of a program and its version.
    """

    tags: tuple[str, ...]
    seconds: float
    command: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    drops_accepted: bool = False


@dataclass(frozen=True)
class Report:
    """The whole report of one port."""

    repository: str
    old_tag: str
    old_commit: str
    new_tag: str
    totals: Totals
    patches: tuple[PatchReport, ...]
    facts: Facts
    run: Run
    stale: tuple[StaleReport, ...] = ()
    scan: ScanReport | None = None
    audit: tuple[AuditReport, ...] = ()

    @property
    def conflicts(self) -> tuple[ConflictReport, ...]:
        return tuple(conflict for patch in self.patches for conflict in patch.conflicts)

    @property
    def drops(self) -> tuple[tuple[PatchReport, DropReport], ...]:
        return tuple((patch, drop) for patch in self.patches for drop in patch.drops)


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain values; see docs/report-schema.md."""
    return {"version": SCHEMA_VERSION, **_plain(report)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        found = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, RequirementChange):
            found["kind"] = value.kind
        return found
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


# text

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def shown(line: bytes) -> str:
    """A line of a file as text: without its line feed, everything unusual made visible."""
    missing = "" if line.endswith(b"\n") else " ⟨no newline at end of file⟩"
    text = line.removesuffix(b"\n").decode("utf-8", "backslashreplace")
    return _short(_UNSEEN.sub(_spelled, text)) + missing


def shown_lines(lines: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(shown(line) for line in lines)


def plain(text: str) -> str:
    """A name or sentence that may hold a path: no lone surrogates, nothing unseen."""
    safe = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "\n".join(_UNSEEN.sub(_spelled, line) for line in safe.split("\n"))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # ␍ and its like
    return f"⟨{unicodedata.name(match[0], f'U+{code:04X}').lower()}⟩"


def _short(text: str) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    return f"{text[:LONGEST_LINE]} ⟨{len(text) - LONGEST_LINE:,} more characters⟩"
