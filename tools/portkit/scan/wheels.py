"""The requirements of an installation on Windows, and whether the package index can serve them.

Read are the files that pip is given for CUDA and for the build, with what they include, and the
build system of pyproject.toml.  Linux is the yardstick: a Python for which Linux has no wheel
either is not this scan's affair.
"""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import tomli
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from portkit.change import durable
from portkit.errors import Unavailable
from portkit.model import Event
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Tier
from portkit.scan.rules import Rule
from portkit.scan.tree import SourceTree
from portkit.text.requirements import BUILD_SYSTEM, logical_lines
from portkit.upstream.index import Index, Release, UnknownProject, pip_settings

REQUIREMENTS = "requirements"  # the detector that reads the files
WHEELS = "wheels"  # the detector that asks the index
MACHINE = "requirement-machine"
LINUX_FILE = "requirement-linux-file"
NO_WHEEL = "requirement-no-wheel"
SOURCE_ONLY = "requirement-source-only"

_FILES = ("requirements/cuda.txt", "requirements/build.txt", "requirements/build/cuda.txt")
_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 16))
_FRESH = 24 * 3600  # seconds for which the index is not asked again
_AT_ONCE = 8
_COMMENT = re.compile(r"(^|\s)#.*")
_LINUX_WHEEL = re.compile("manylinux|musllinux|linux_x86_64")
_INCLUDE = re.compile(r"(?:-r|--requirement)[ =]*(\S+)")
_WINDOWS = {
    "os_name": "nt",
    "sys_platform": "win32",
    "platform_system": "Windows",
    "platform_machine": "AMD64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}


@dataclass(frozen=True)
class Entry:
    """A requirement and where it stands; `line` is 1-based."""

    requirement: Requirement
    path: str
    line: int
    excerpt: str

    def wanted(self, python: str, system: Mapping[str, str]) -> bool:
        """Whether its marker holds for a Python (`3.12`) on a system."""
        return _true(self.requirement.marker, python, system)


def read(context: Context) -> Iterator[Finding]:
    """Requirements that their own text keeps from Windows: markers on the machine, Linux files."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(REQUIREMENTS, ())}
    if not rules:
        return
    pythons = supported(context.tree)
    renamed = {**_WINDOWS, "platform_machine": "x86_64"}
    for entry in entries(context.tree):
        dropped = [
            python
            for python in pythons
            if entry.wanted(python, renamed) and not entry.wanted(python, _WINDOWS)
        ]
        if MACHINE in rules and dropped:
            yield _at(rules[MACHINE], entry, entry.requirement.name)
        asked = any(entry.wanted(python, _WINDOWS) for python in pythons)
        if LINUX_FILE in rules and asked and _LINUX_WHEEL.search(entry.requirement.url or ""):
            yield _at(rules[LINUX_FILE], entry, entry.requirement.name)


def ask(context: Context) -> Iterator[Finding]:
    """Requirements that the index cannot serve to Windows; says so where it cannot be asked."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(WHEELS, ())}
    if not rules:
        return
    pythons = supported(context.tree)
    wanted = [
        entry
        for entry in entries(context.tree)
        if entry.requirement.url is None
        if any(entry.wanted(python, _WINDOWS) for python in pythons)
    ]
    names = sorted({canonicalize_name(entry.requirement.name) for entry in wanted})
    releases = _releases(context, names)
    for entry in wanted:
        found = releases.get(canonicalize_name(entry.requirement.name))
        if found is None:
            continue
        missing, detail, sources = judged(entry, found, pythons)
        rule = rules.get(SOURCE_ONLY if sources else NO_WHEEL)
        if missing and rule is not None:
            finding = _at(rule, entry, detail)
            some = rule.id == NO_WHEEL and len(missing) < len(pythons)
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


def _true(marker: Marker | None, python: str, system: Mapping[str, str]) -> bool:
    if marker is None:
        return True
    version = {"python_version": python, "python_full_version": f"{python}.9"}
    return marker.evaluate({**system, **version})


# what the index has


def judged(
    entry: Entry, releases: Sequence[Release], pythons: Iterable[str]
) -> tuple[tuple[str, ...], str, bool]:
    """The Pythons without a wheel for Windows, the sentence for it, and whether sources are all.

    A Python for which Linux has no wheel either counts only where there are sources alone.
    """
    fitting = [one for one in releases if _fits(one, entry.requirement.specifier)]
    name = f"{canonicalize_name(entry.requirement.name)}{entry.requirement.specifier}"
    asked = [python for python in pythons if entry.wanted(python, _WINDOWS)]
    if fitting and not any(one.filename.endswith(".whl") for one in fitting):
        return tuple(asked), f"the index has only sources of {name}", True
    missing = tuple(
        python
        for python in asked
        if not any(_installs(one, python, "win_amd64") for one in fitting)
        if any(_installs(one, python, "manylinux") for one in fitting)
    )
    return missing, f"no wheel of {name} for Windows on Python {', '.join(missing)}", False


def _fits(release: Release, specifier: SpecifierSet) -> bool:
    version = _version(release.filename)
    return version is not None and not release.withdrawn and version in specifier


def _version(filename: str) -> Version | None:
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[1]
        return parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


def _installs(release: Release, python: str, platform: str) -> bool:
    """Whether a file is a wheel that pip takes on `platform` with `python`."""
    if not release.filename.endswith(".whl"):
        return False
    if release.requires_python:
        try:
            if f"{python}.9" not in SpecifierSet(release.requires_python):
                return False
        except InvalidSpecifier:
            pass
    tags = parse_wheel_filename(release.filename)[3]
    if platform == "manylinux":  # glibc's age is not asked for
        tags = frozenset(
            Tag(tag.interpreter, tag.abi, "manylinux")
            for tag in tags
            if tag.platform == "any" or ("manylinux" in tag.platform and "x86_64" in tag.platform)
        )
    return not tags.isdisjoint(_tags(python, platform))


@cache
def _tags(python: str, platform: str) -> frozenset[Tag]:
    version = tuple(int(part) for part in python.split("."))
    interpreter = "cp" + python.replace(".", "")
    return frozenset(
        (
            *cpython_tags(version, platforms=[platform]),
            *compatible_tags(version, interpreter, [platform]),
            *(Tag(f"py3{suffix}", "none", platform) for suffix in ("", version[1])),
        )
    )


# asking


def _releases(context: Context, names: Sequence[str]) -> dict[str, Sequence[Release]]:
    """The files of each project; those that cannot be asked for are left out, and noted."""
    found: dict[str, Sequence[Release]] = {}
    missing: list[str] = []
    for name in names:
        kept = _kept(context, name)
        if kept is None:
            missing.append(name)
        else:
            found[name] = kept
    if missing and context.offline:
        context.note(
            f"offline: {len(missing)} of {len(names)} requirements were not looked up on the "
            "package index"
        )
    elif missing:
        found.update(_fetched(context, missing))
    return found


def _fetched(context: Context, names: Sequence[str]) -> Iterator[tuple[str, Sequence[Release]]]:
    settings = pip_settings()
    endpoint = settings.get("index-url") or PYPI_SIMPLE_ENDPOINT
    cert = settings.get("cert", "")

    def fetch(name: str) -> Sequence[Release]:
        with Index(name, endpoint=endpoint, cert=cert) as index:
            return index.releases

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pending = {name: pool.submit(fetch, name) for name in names}
        for number, (name, future) in enumerate(pending.items()):
            context.events(Event("asking the package index", number, len(names), "packages"))
            try:
                releases = future.result()
            except UnknownProject:
                releases = ()
            except Unavailable as error:
                context.note(f"{name} was not looked up: {error.message}")
                continue
            _keep(context, name, releases)
            yield name, releases


def _place(context: Context, name: str) -> Path | None:
    return None if context.cache is None else context.cache / "index" / f"{name}.json"


def _kept(context: Context, name: str) -> Sequence[Release] | None:
    """What the index said within a day, or ever if work is offline."""
    place = _place(context, name)
    if place is None or not place.is_file():
        return None
    if not context.offline and time.time() - place.stat().st_mtime > _FRESH:
        return None
    try:
        return [Release(*fields) for fields in json.loads(place.read_bytes())]
    except (ValueError, TypeError):
        return None


def _keep(context: Context, name: str, releases: Sequence[Release]) -> None:
    place = _place(context, name)
    if place is None:
        return
    rows = [[one.filename, one.requires_python, one.withdrawn] for one in releases]
    durable.put(place, json.dumps(rows).encode())
