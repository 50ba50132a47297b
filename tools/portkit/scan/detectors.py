"""The list of detectors: functions that find places which rules are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from portkit.model import Events, silent
from portkit.scan.model import Finding
from portkit.scan.rules import Rules
from portkit.scan.tree import SourceTree


@dataclass(frozen=True)
class Context:
    """What a detector works with.

    `cache` is a folder it may keep results in (None: keep nothing); `offline` forbids the network.
    """

    tree: SourceTree
    rules: Rules
    events: Events = silent
    cache: Path | None = None
    offline: bool = False


Detect = Callable[[Context], Iterable[Finding]]


@dataclass(frozen=True)
class Detector:
    """A named detector; rules that code reports name it in their `detector` field.

    `slow` ones (a type checker, the package index) can be left out of a run; `online` ones find
    nothing without the network or what they kept of it.
    """

    name: str
    detect: Detect
    slow: bool = False
    online: bool = False


def detectors() -> tuple[Detector, ...]:
    """Every detector, in the order in which they run."""
    # Each imports its own parser, so that a command that scans nothing does not pay for it.
    from portkit.scan import consistency, cppcode, matching, python_calls, typecheck  # noqa: PLC0415

    return (
        Detector("rules", matching.detect),
        Detector("variable-templates", cppcode.variable_templates),
        Detector("exports", cppcode.exports),
        Detector("macro-arguments", cppcode.macro_arguments),
        Detector("limits", cppcode.limits),
        Detector("consistency", consistency.detect),
        Detector(python_calls.NAME, python_calls.detect),
        Detector(typecheck.NAME, typecheck.detect, slow=True),
    )
