"""Upstream's source from a path a person gave: a git clone, archives, or an unpacked folder."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import InvalidVersion, Version

from portkit.errors import BadInput
from portkit.model import Event, Events
from portkit.upstream.archive import VERSION_FILE, describe, folder_members, import_members
from portkit.upstream.cache import PROJECT, Cache, Source, fetch_tag, import_archive, stored
from portkit.upstream.git import git
from portkit.upstream.tags import version_of

_VERSION_LINE = re.compile(r"^(?:Version: |__version__ = (?:version = )?')([^'\s]+)", re.M)


def _is_repository(path: Path) -> bool:
    return (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())


def _clone_commit(path: Path, tag: str) -> str:
    """The commit id of `tag` in the clone at `path`, or ""."""
    formatted = "--format=%(objectname) %(*objectname)"
    listing = git("-C", str(path), "for-each-ref", formatted, f"refs/tags/{tag}")
    return listing.decode().split()[-1] if listing.strip() else ""


def _clone_tags(path: Path) -> list[Version]:
    listing = git("-C", str(path), "for-each-ref", "--format=%(refname:strip=2)", "refs/tags/v*")
    found: list[Version] = []
    for tag in listing.decode("utf-8", "replace").split():
        try:
            found.append(version_of(tag))
        except BadInput:
            continue
    return found


def _unpacked_version(folder: Path) -> Version | None:
    """The version of the unpacked source in `folder`, or None if it is no such source."""
    if not ((folder / "setup.py").is_file() and (folder / PROJECT).is_dir()):
        return None
    stated = ""
    for name in ("PKG-INFO", VERSION_FILE):
        if (folder / name).is_file():
            text = (folder / name).read_text("utf-8", "replace")
            stated = stated or "".join(_VERSION_LINE.findall(text)[:1])
    stated = stated or folder.absolute().name.removeprefix(f"{PROJECT}-")
    try:
        return Version(stated)
    except InvalidVersion:
        raise BadInput(
            f"{folder} does not say which vLLM it is",
            hint=f"name the folder {PROJECT}-<version>",
        ) from None


def _archive_version(path: Path) -> Version | None:
    name = path.name
    if not (name.startswith(f"{PROJECT}-") and name.endswith(".tar.gz")):
        return None
    try:
        return Version(name[len(PROJECT) + 1 : -len(".tar.gz")])
    except InvalidVersion:
        return None


def _given_sources(path: Path) -> dict[Version, Path]:
    """The archives and unpacked sources at `path`, a file or folder, by version."""
    if not path.exists():
        raise BadInput(f"{path} does not exist", hint="--upstream takes a clone or a folder")
    found: dict[Version, Path] = {}
    candidates = [path] if path.is_file() else [path, *sorted(path.glob(f"{PROJECT}-*"))]
    for entry in candidates:
        version = _unpacked_version(entry) if entry.is_dir() else _archive_version(entry)
        if version is not None:
            found[version] = entry
    if not found:
        raise BadInput(
            f"{path} is neither a git clone nor vLLM's source",
            hint=f"--upstream takes a clone, an unpacked source, or a folder of {PROJECT}-*.tar.gz",
        )
    return found


def from_path(cache: Cache, tag: str, path: Path, events: Events) -> Source | None:
    """`tag` from a clone, archive or folder; None when it does not hold this tag."""
    ref, origin = f"refs/given/{tag}", str(path)
    if _is_repository(path):
        commit = _clone_commit(path, tag)
        if not commit:
            return None
        with cache.lock(events) as store:
            held = stored(store, tag, ref, origin)
            if held is None or held.commit != commit or held.archive is not None:
                events(Event(f"fetching {tag} from {path}"))
                fetch_tag(store, tag, ref, str(path.absolute()))
            return stored(store, tag, ref, origin)
    place = _given_sources(path).get(Version(tag))
    if place is None:
        return None
    with cache.lock(events) as store:
        if place.is_dir():
            members = folder_members(place, events=events)
            import_members(store, ref, members, subject=f"vLLM {tag}", trailers={})
            return stored(store, tag, ref, origin)
        archive = describe(place)
        for known in (f"refs/tags/{tag}", ref):
            held = stored(store, tag, known, origin)
            if held is not None and held.archive == archive:
                return held
        import_archive(store, tag, ref, place, events)
        return stored(store, tag, ref, origin)


def versions_at(path: Path) -> list[Version]:
    """The versions that `path` holds, in no order."""
    return _clone_tags(path) if _is_repository(path) else list(_given_sources(path))
