"""What the package index has of a requirement: files, which of them Windows installs, metadata.

The index is asked once a day for a project's files; what a wheel itself requires never changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from packaging.metadata import parse_email
from packaging.requirements import Requirement
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
from portkit.errors import IntegrityError, Unavailable
from portkit.model import Event
from portkit.scan.detectors import Context
from portkit.upstream import ranged
from portkit.upstream.index import Index, Release, UnknownProject, pip_settings

_FRESH = 24 * 3600  # seconds for which the index is not asked again
_AT_ONCE = 8

_Answer = TypeVar("_Answer")


# what the index has


def fitting(requirement: Requirement, releases: Iterable[Release]) -> list[Release]:
    """The files that fit a requirement, the newest first.

    As with pip, versions before their release come after all others.
    """
    known: dict[Version, bool] = {}
    found: list[tuple[bool, Version, Release]] = []
    for one in releases:
        version = _version(one.filename)
        if version is None or one.withdrawn:
            continue
        if version not in known:
            known[version] = version in requirement.specifier
        if known[version]:
            found.append((not version.is_prerelease, version, one))
    return [one for *_, one in sorted(found, key=lambda each: each[:2], reverse=True)]


def lacking(
    requirement: Requirement, files: Sequence[Release], pythons: Iterable[str]
) -> tuple[tuple[str, ...], str, bool]:
    """The Pythons without a wheel for Windows, the sentence for it, and whether sources are all.

    `files` are those that fit. A Python for which Linux has no wheel either counts only where there
    are sources alone.
    """
    name = f"{canonicalize_name(requirement.name)}{requirement.specifier}"
    if files and not any(one.filename.endswith(".whl") for one in files):
        return tuple(pythons), f"the index has only sources of {name}", True
    missing = tuple(
        python
        for python in pythons
        if not any(_installs(one, python, "win_amd64") for one in files)
        if any(_installs(one, python, "manylinux") for one in files)
    )
    return missing, f"no wheel of {name} for Windows on Python {', '.join(missing)}", False


def newest(files: Iterable[Release], python: str) -> str:
    """The first of the files that fit that Windows installs; empty where there is none."""
    return next((one.filename for one in files if _installs(one, python, "win_amd64")), "")


@cache
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


class Asked:
    """The index as one scan asks it; what cannot be asked is left out and noted."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def releases(self, names: Iterable[str]) -> Mapping[str, Sequence[Release]]:
        """The files of each project; none for a project that the index does not know."""
        wanted = sorted(set(names))
        found = {name: kept for name in wanted if (kept := self._releases_kept(name)) is not None}
        missing = [name for name in wanted if name not in found]
        if missing and self._context.offline:
            self._context.note(
                f"offline: {len(missing)} of {len(wanted)} requirements were not looked up on the "
                "package index"
            )
            return found
        for name, releases in self._each(missing, self._fetch_releases):
            rows = [[one.filename, one.requires_python, one.withdrawn] for one in releases]
            self._keep(name, rows)
            found[name] = releases
        return found

    def required(self, wheels: Iterable[str]) -> Mapping[str, Sequence[str]]:
        """What each wheel requires, as its metadata puts it."""
        wanted = sorted(set(wheels))
        found: dict[str, Sequence[str]] = {}
        for wheel in wanted:
            kept = self._read(wheel)
            if isinstance(kept, list):
                found[wheel] = [str(text) for text in kept]
        missing = [wheel for wheel in wanted if wheel not in found]
        if missing and self._context.offline:
            self._context.note(
                f"offline: what {len(missing)} of {len(wanted)} requirements require was not "
                "looked up on the package index"
            )
            return found
        for wheel, texts in self._each(missing, self._fetch_required):
            self._keep(wheel, list(texts))
            found[wheel] = texts
        return found

    def _fetch_releases(self, name: str) -> Sequence[Release]:
        with self._index(name) as index:
            try:
                return index.releases
            except UnknownProject:
                return ()

    def _fetch_required(self, wheel: str) -> Sequence[str]:
        name, version = parse_wheel_filename(wheel)[:2]
        with self._index(name) as index:
            for file in index.wheels(version):
                if file.name == wheel:
                    raw, _ = parse_email(ranged.metadata(index, file))
                    return raw.get("requires_dist", [])
        raise Unavailable(f"the package index has no {wheel} any more")

    def _each(
        self, names: Sequence[str], fetch: Callable[[str], _Answer]
    ) -> Iterator[tuple[str, _Answer]]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            pending = {name: pool.submit(fetch, name) for name in names}
            for number, (name, future) in enumerate(pending.items()):
                event = Event("asking the package index", number, len(names), "packages")
                self._context.events(event)
                try:
                    answer = future.result()
                except (Unavailable, IntegrityError) as error:
                    self._context.note(f"{name} was not looked up: {error.message}")
                else:
                    yield name, answer

    def _index(self, name: str) -> Index:
        endpoint, cert = self._settings
        return Index(name, endpoint=endpoint, cert=cert)

    @cached_property
    def _settings(self) -> tuple[str, str]:
        settings = pip_settings()
        return settings.get("index-url") or PYPI_SIMPLE_ENDPOINT, settings.get("cert", "")

    # kept answers

    def _releases_kept(self, name: str) -> Sequence[Release] | None:
        """What the index said within a day, or ever if work is offline."""
        place = self._place(name)
        if place is None or not place.is_file():
            return None
        if not self._context.offline and time.time() - place.stat().st_mtime > _FRESH:
            return None
        try:
            return [Release(*fields) for fields in self._read(name) or ()]
        except TypeError:
            return None

    def _place(self, name: str) -> Path | None:
        folder = self._context.cache
        return None if folder is None else folder / "index" / f"{name}.json"

    def _read(self, name: str) -> list[Any] | None:
        place = self._place(name)
        try:
            found = json.loads(place.read_bytes()) if place is not None else None
        except (OSError, ValueError):
            return None
        return found if isinstance(found, list) else None

    def _keep(self, name: str, rows: Sequence[object]) -> None:
        place = self._place(name)
        if place is not None:
            durable.put(place, json.dumps(rows).encode())
