"""Findings as a person reads them: those of one rule in one file are one entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from portkit.scan.model import Finding, Stage, Tier

_MOST_LINES = 6


@dataclass(frozen=True)
class Entry:
    """The findings of one rule in one file, at one tier and stage; the first one speaks for all."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        return self.findings[0]

    @property
    def lines(self) -> str:
        """The line numbers, cut where they are many."""
        numbers = sorted({finding.line for finding in self.findings})
        shown = ", ".join(map(str, numbers[:_MOST_LINES]))
        return shown + (f" and {len(numbers) - _MOST_LINES} more" if numbers[_MOST_LINES:] else "")


def entries(findings: Iterable[Finding]) -> tuple[Entry, ...]:
    """Findings grouped, in the order of their weight."""
    groups: dict[tuple[Tier, Stage, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.order):
        place = (finding.tier, finding.stage, finding.rule, finding.path)
        groups.setdefault(place, []).append(finding)
    return tuple(Entry(tuple(group)) for group in groups.values())
