"""What can become of a piece of a patch: carried by a rung, dropped, or a conflict."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from portkit.model import Edit, Hunk
from portkit.text.sides import Lines


class Rung(Enum):
    """The ways to carry a hunk, in order of certainty."""

    EXACT = "exact"
    OFFSET = "unique offset"
    THREE_WAY = "three-way"
    TOKENS = "token merge"
    INDENTATION = "indentation"
    UNION = "both sides added"
    MOVED = "moved in file"
    MOVED_FILE = "moved to another file"
    ANCHORED = "anchored insertion"
    REQUIREMENT = "requirement line"
    RESOLUTION = "recorded resolution"

    @property
    def rank(self) -> int:
        """0 is the most certain."""
        return list(Rung).index(self)


class Why(Enum):
    """Why a piece is dropped."""

    TARGET_GONE = "target deleted with its code"
    UPSTREAMED = "upstream now has the change"
    CONSTRUCT_GONE = "the construct it cures is gone"
    SERVES_NOTHING = "it only served hunks that are dropped"
    NEEDS_SKIPPED = "it needs a piece that was skipped"


@dataclass(frozen=True)
class Finding:
    """The verdict of a check: whether it holds, and the sentence that goes into the report."""

    holds: bool
    text: str

    @staticmethod
    def no(text: str) -> Finding:
        """A check that does not hold, and why."""
        return Finding(False, text)


@dataclass(frozen=True)
class Landed:
    """A piece carried: `edits` are lines of the new tag's file at `path`."""

    rung: Rung
    path: str
    edits: tuple[Edit, ...]
    evidence: str


@dataclass(frozen=True)
class Dropped:
    """A piece no longer needed; a person confirms it."""

    why: Why
    evidence: str


@dataclass(frozen=True)
class Region:
    """Where a conflict stands: the three sides, and the lines of theirs it covers.

    `start` and `end` are 0-based lines of the new tag's file; `path` is None when it has none.
    """

    path: str | None
    start: int
    end: int
    base: Lines
    ours: Lines
    theirs: Lines


@dataclass(frozen=True)
class Conflict:
    """A piece that waits for a person; `reason` says what no rung could be certain of.

    `blocks` are the changes it holds, as edits of the old file.
    """

    reason: str
    region: Region
    blocks: tuple[Edit, ...]


Outcome = Landed | Dropped | Conflict


@dataclass(frozen=True)
class HunkResult:
    """What became of one hunk: one outcome per group of its changed lines.

    `base_path` and `base_tag` say which file and tag the hunk is written for.
    """

    hunk: Hunk
    base_path: str
    base_tag: str
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        return tuple(o for o in self.outcomes if isinstance(o, Conflict))

    @property
    def landed(self) -> tuple[Landed, ...]:
        return tuple(o for o in self.outcomes if isinstance(o, Landed))

    @property
    def drops(self) -> tuple[Dropped, ...]:
        return tuple(o for o in self.outcomes if isinstance(o, Dropped))

    @property
    def rung(self) -> Rung | None:
        """The least certain rung that carried a part of it, None if no part was carried."""
        return max((o.rung for o in self.landed), key=lambda rung: rung.rank, default=None)
