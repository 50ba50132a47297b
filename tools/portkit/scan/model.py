"""The words of the scan: rule tiers, findings, and the reasons for which a finding is set aside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Tier(Enum):
    """How sure a rule is that what it finds breaks."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"

    @property
    def rank(self) -> int:
        """0 for the surest."""
        return list(Tier).index(self)


class Stage(Enum):
    """When it breaks, the earliest for the most people first."""

    COMPILE = "compile"  # configuring, compiling or linking
    IMPORT = "import"  # installing, or importing what a server needs
    SERVE = "serve"  # loading a model and answering requests
    OPTIONAL = "optional"  # connectors, benchmarks and whatever else a server runs without

    @property
    def rank(self) -> int:
        """0 for what hits everyone."""
        return list(Stage).index(self)


class Language(Enum):
    """What a rule is about; files are told apart by name (`language_of`)."""

    CPP = "cpp"  # C, C++ and CUDA
    PYTHON = "python"
    CMAKE = "cmake"
    RUST = "rust"
    REQUIREMENTS = "requirements"
    TEXT = "text"


@dataclass(frozen=True)
class Finding:
    """A place that a rule is about.

    `line` and `column` are 1-based, `column` in characters; `excerpt` is the line as text without
    white space around it.  `tier` and `stage` are the rule's unless the detector knows better;
    `detail` says what only this place tells (a name, a measured number).
    """

    rule: str
    path: str
    line: int
    column: int
    excerpt: str
    tier: Tier
    stage: Stage
    detail: str = ""

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts what matters most first: surest, then earliest, then by place."""
        return self.tier.rank, self.stage.rank, self.rule, self.path, self.line, self.column


class Reason(Enum):
    """Why a finding is set aside."""

    NOT_BUILT = "not built for CUDA on Windows"
    GUARDED = "behind a platform guard or an exception handler"
    PATCHED = "covered by the series"
    SILENCED = "silenced as a false alarm"
    EXPLAINED = "explained: breaks, and is left for a reason"


@dataclass(frozen=True)
class Judged:
    """A finding, and why it is set aside (`reason` None: it counts); `note` gives the evidence."""

    finding: Finding
    reason: Reason | None = None
    note: str = ""
