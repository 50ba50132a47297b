"""The list of detectors: functions that find places which rules are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from portkit.model import Events, silent
from portkit.scan.built import Build
from portkit.scan.model import Finding
from portkit.scan.rules import Rule, Rules
from portkit.scan.tree import SourceTree


def _unheard(text: str) -> None:
    """Notes go nowhere."""


@dataclass(frozen=True)
class Context:
    """What a detector works with.

    `cache` is a folder it may keep results in (None: keep nothing); `offline` forbids the network.
    `note` takes a sentence for the person: what could not be looked at.
    """

    tree: SourceTree
    rules: Rules
    events: Events = silent
    cache: Path | None = None
    offline: bool = False
    note: Callable[[str], None] = _unheard


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


def applicable(rules: Rules, tree: SourceTree) -> Rules:
    """The rules that hold for the build of a tree: its C++ standard (17 if unknown), its flags."""
    standard = Build(tree).cxx_standard or 17
    cmake = tree.read("CMakeLists.txt").decode("utf-8", "replace")

    def holds(rule: Rule) -> bool:
        below, unless = rule.cxx_below, rule.unless_build
        return (below is None or standard < below) and (
            unless is None or re.search(unless, cmake) is None
        )

    return Rules({name: rule for name, rule in rules.items() if holds(rule)}, rules.digest)


def detectors() -> tuple[Detector, ...]:
    """Every detector, in the order in which they run."""
    # Each imports its own parser, so that a command that scans nothing does not pay for it.
    from portkit.scan import (  # noqa: PLC0415
        buildfiles,
        consistency,
        cppcode,
        generators,
        matching,
        python_calls,
        typecheck,
        wheels,
    )

    return (
        Detector("rules", matching.detect),
        Detector("variable-templates", cppcode.variable_templates),
        Detector("exports", cppcode.exports),
        Detector("source-encoding", cppcode.source_encoding),
        Detector("macro-arguments", cppcode.macro_arguments),
        Detector("limits", cppcode.limits),
        Detector("consistency", consistency.detect),
        Detector(python_calls.NAME, python_calls.detect),
        Detector(buildfiles.NAME, buildfiles.detect),
        Detector(generators.NAME, generators.detect),
        Detector(wheels.REQUIREMENTS, wheels.read),
        Detector(typecheck.NAME, typecheck.detect, slow=True),
        Detector(wheels.WHEELS, wheels.ask, slow=True, online=True),
    )
