"""The requirements of an installation on Windows, and whether the package index can serve them.

Read are the files that pip is given for CUDA and for the build, with what they include, and the
build system of pyproject.toml.  Linux is the yardstick: a Python for which Linux has no wheel
either is not this scan's affair.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tomli
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from portkit.scan import dependencies
from portkit.scan.dependencies import WINDOWS, holds
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Tier
from portkit.scan.onindex import Asked
from portkit.scan.rules import Rule
from portkit.scan.tree import SourceTree
from portkit.text.requirements import BUILD_SYSTEM, logical_lines

REQUIREMENTS = "requirements"  # the detector that reads the files
WHEELS = "wheels"  # the detector that asks the index
MACHINE = "requirement-machine"
LINUX_FILE = "requirement-linux-file"
NO_WHEEL = "requirement-no-wheel"
SOURCE_ONLY = "requirement-source-only"
NEEDS_NO_WHEEL = "requirement-needs-no-wheel"  # the same of what a requirement requires
NEEDS_SOURCE = "requirement-needs-source"

_FILES = ("requirements/cuda.txt", "requirements/build.txt", "requirements/build/cuda.txt")
_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 16))
_COMMENT = re.compile(r"(^|\s)#.*")
_LINUX_WHEEL = re.compile("manylinux|musllinux|linux_x86_64")
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]*(\S+)")


@dataclass(frozen=True)
class Entry:
    """A requirement and where it stands; `line` is 1-based."""

    requirement: Requirement
    path: str
    line: int
    excerpt: str

    def wanted(self, python: str, system: Mapping[str, str]) -> bool:
        """Whether its marker holds for a Python (`3.12`) on a system."""
        return holds(self.requirement.marker, python, system)


def read(context: Context) -> Iterator[Finding]:
    """Requirements that their own text keeps from Windows: markers on the machine, Linux files."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(REQUIREMENTS, ())}
    if not rules:
        return
    pythons = supported(context.tree)
    renamed = {**WINDOWS, "platform_machine": "x86_64"}
    for entry in entries(context.tree):
        dropped = [
            python
            for python in pythons
            if entry.wanted(python, renamed) and not entry.wanted(python, WINDOWS)
        ]
        if MACHINE in rules and dropped:
            yield _at(rules[MACHINE], entry, entry.requirement.name)
        asked = any(entry.wanted(python, WINDOWS) for python in pythons)
        if LINUX_FILE in rules and asked and _LINUX_WHEEL.search(entry.requirement.url or ""):
            yield _at(rules[LINUX_FILE], entry, entry.requirement.name)


def ask(context: Context) -> Iterator[Finding]:
    """Requirements that the index cannot serve to Windows; says so where it cannot be asked."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(WHEELS, ())}
    if not rules:
        return
    pythons = supported(context.tree)
    roots = [
        (entry, tuple(python for python in pythons if entry.wanted(python, WINDOWS)))
        for entry in entries(context.tree)
        if entry.requirement.url is None
    ]
    roots = [(entry, asking) for entry, asking in roots if asking]
    wanted = [(entry.requirement, asking) for entry, asking in roots]
    for lack in dependencies.walk(wanted, Asked(context)):
        direct = len(lack.need.chain) == 1
        kinds = (SOURCE_ONLY, NO_WHEEL) if direct else (NEEDS_SOURCE, NEEDS_NO_WHEEL)
        rule = rules.get(kinds[0] if lack.sources else kinds[1])
        if rule is None:
            continue
        chain = "" if direct else f"{' -> '.join(lack.need.chain)}: "
        finding = _at(rule, roots[lack.need.root][0], chain + lack.detail)
        some = rule.id == NO_WHEEL and len(lack.pythons) < len(pythons)
        yield replace(finding, tier=Tier.LIKELY) if some else finding


def _at(rule: Rule, entry: Entry, detail: str) -> Finding:
    return rule.at(entry.path, entry.line, 1, entry.excerpt, detail)


# what is required


def supported(tree: SourceTree) -> tuple[str, ...]:
    """The Pythons that pyproject.toml allows, `3.10` and so on; all known ones if it says none."""
    project = _pyproject(tree).get("project", {})
    try:
        allowed = SpecifierSet(str(project.get("requires-python", "")))
    except InvalidSpecifier:
        return _PYTHONS
    return tuple(python for python in _PYTHONS if f"{python}.9" in allowed)


def entries(tree: SourceTree) -> Iterator[Entry]:
    """The requirements that pip is given, each once at its first place."""
    seen: set[str] = set()
    for path in _FILES:
        yield from _of_file(tree, path, seen)
    data = tree.read(BUILD_SYSTEM).decode("utf-8", "replace")
    lines = data.splitlines()
    for text in _pyproject(tree).get("build-system", {}).get("requires", ()):
        requirement = _requirement(str(text))
        if requirement is not None and str(requirement) not in seen:
            seen.add(str(requirement))
            line = next((n for n, one in enumerate(lines, 1) if str(text) in one), 1)
            yield Entry(requirement, BUILD_SYSTEM, line, str(text))


def _of_file(tree: SourceTree, path: str, seen: set[str]) -> Iterator[Entry]:
    if path in seen or path not in tree:
        return
    seen.add(path)
    for number, line in enumerate(logical_lines(tree.read(path)), 1):
        text = _COMMENT.sub("", line).strip()
        if include := _INCLUDE.match(text):
            other = posixpath.normpath(posixpath.join(posixpath.dirname(path), include[1]))
            yield from _of_file(tree, other, seen)
            continue
        requirement = _requirement(text)
        if requirement is not None and str(requirement) not in seen:
            seen.add(str(requirement))
            yield Entry(requirement, path, number, line.strip())


def _requirement(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _pyproject(tree: SourceTree) -> dict[str, Any]:
    try:
        return tomli.loads(tree.read(BUILD_SYSTEM).decode("utf-8", "replace"))
    except tomli.TOMLDecodeError:
        return {}
