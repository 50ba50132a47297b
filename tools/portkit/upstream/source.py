"""The one door to upstream's source: a released tag as a tree in the cache's git store.

A tag comes from the path a person gave, else the cache, else the package index's source archive,
else the git host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from portkit.errors import BadInput, IntegrityError, PortError, Unavailable
from portkit.model import Event, Events, Pin, silent
from portkit.upstream.cache import (
    CACHE_VARIABLE,
    PROJECT,
    Cache,
    Source,
    fetch_tag,
    import_archive,
    stored,
)
from portkit.upstream.git import Store
from portkit.upstream.given import from_path, versions_at
from portkit.upstream.index import Index, IndexFile
from portkit.upstream.tags import nearest, normalise, released, tags_between

__all__ = [
    "CACHE_VARIABLE",
    "Cache",
    "Source",
    "normalise",
    "obtain",
    "released_tags",
    "tags_between",
]


@dataclass
class _Search:
    """One tag's way through the places that may have it, and what each answered."""

    tag: str
    pins: Sequence[Pin]
    events: Events
    tried: list[str]
    nearest: str = ""
    unknown: bool = False  # the index answered, and has never heard of this version

    @property
    def ref(self) -> str:
        return f"refs/tags/{self.tag}"

    def failure(self) -> PortError:
        near = f" (nearest: {self.nearest})" if self.nearest else ""
        tried = "; ".join(self.tried)
        if self.unknown:
            return BadInput(
                f"{self.tag} is not a released version{near}: {tried}",
                hint="choose a released tag, or give a clone that has it with --upstream PATH",
            )
        archive = f"{PROJECT}-{Version(self.tag)}.tar.gz"
        return Unavailable(
            f"{self.tag} could not be obtained: {tried}",
            hint=f"choose another tag{near}, or give a clone or {archive} with --upstream PATH",
        )


def _from_index(cache: Cache, store: Store, search: _Search) -> bool:
    """Whether the package index served the tag into the store."""
    version = Version(search.tag)
    try:
        with Index.configured(PROJECT) as index:
            sdist = index.sdists.get(version)
            if sdist is None:
                search.nearest = nearest(version, index.sdists)
                search.unknown = version not in index.versions
                found = "no such version" if search.unknown else "no source archive of it"
                search.tried.append(f"the package index has {found}")
                return False
            _check_published(sdist, search)
            archive = index.download(sdist, cache.path / "downloads", search.events)
    except Unavailable as error:
        search.tried.append(error.message)
        return False
    try:
        import_archive(store, search.tag, search.ref, archive, search.events)
    finally:
        archive.unlink()
    return True


def _check_published(sdist: IndexFile, search: _Search) -> None:
    """Refuse before the download what the pin would refuse after it."""
    for pin in search.pins:
        if pin.tag == search.tag and pin.archive and pin.archive.sha256 != sdist.sha256:
            raise IntegrityError(
                f"the package index publishes {sdist.name} with sha256 {sdist.sha256}, "
                f"the pin says {pin.archive.sha256}"
            )


def _from_host(store: Store, search: _Search) -> bool:
    """Whether the git host of the pin's `repository:` served the tag into the store."""
    repository = next((pin.repository for pin in search.pins if pin.repository), "")
    if not repository:
        search.tried.append("no pin names a git repository")
        return False
    search.events(Event(f"fetching {search.tag} from {repository}"))
    try:
        # A named remote, where git notes that it left blobs out; it goes again, so that the
        # complete store never asks the network for an object by itself.
        store.git("config", "remote.upstream.url", repository)
        fetch_tag(store, search.tag, search.ref, "upstream", "--filter=blob:none")
    except Unavailable as error:
        search.tried.append(f"{repository} did not serve it ({error.message})")
        return False
    finally:
        store.git("config", "--remove-section", "remote.upstream", ok=(0, 128))
    return True


def obtain(
    tag: str,
    *,
    cache: Cache | Path | None = None,
    upstream: Path | None = None,
    pins: Sequence[Pin] = (),
    events: Events = silent,
    offline: bool = False,
) -> Source:
    """The source of `tag`, fetched into the cache's store if it is not there.

    `upstream` is the clone, archive or folder a person gave; it comes first.  `pins` name the git
    repository, and what a tag must be: a tag that one of them pins is checked against it.  Raises
    `BadInput` for a tag that is none, `Unavailable` when no place serves it, `IntegrityError` when
    what came is not what the index or a pin says.
    """
    tag = normalise(tag)
    cache = Cache.at(cache)
    search = _Search(tag, pins, events, [])
    source = None
    if upstream is not None:
        source = from_path(cache, tag, upstream, events)
        if source is None:
            search.tried.append(f"{upstream} does not hold it")
    if source is None:
        source = stored(cache.store, tag, search.ref, "cache")
    if source is None and not offline:
        with cache.lock(events) as store:
            source = stored(store, tag, search.ref, "cache")
            if source is None and _from_index(cache, store, search):
                source = stored(store, tag, search.ref, "package index")
            if source is None and _from_host(store, search):
                source = stored(store, tag, search.ref, "git host")
    if source is None:
        if offline:
            search.tried.append(f"the cache {cache.path} does not hold it, and work is offline")
        raise search.failure()
    for pin in pins:
        if pin.tag == tag:
            _check(source, pin, cache)
    return source


def _check(source: Source, pin: Pin, cache: Cache) -> None:
    """Raise `IntegrityError` unless `source` is what `pin` says."""
    faults: list[str] = []
    if pin.archive and source.archive and pin.archive.sha256 != source.archive.sha256:
        faults.append(f"archive sha256 {source.archive.sha256}, pinned {pin.archive.sha256}")
    length = min(len(pin.commit), len(source.commit))
    if pin.commit[:length] != source.commit[:length]:
        faults.append(f"commit {source.commit}, pinned {pin.commit}")
    if pin.tree and pin.tree != source.tree:
        faults.append(f"tree {source.tree}, pinned {pin.tree}")
    if faults:
        raise IntegrityError(
            f"{source.tag} from {source.origin} is not the pinned one: {'; '.join(faults)}",
            hint=f"to fetch it anew, delete {cache.path}" if source.origin == "cache" else "",
        )


def released_tags(
    *, cache: Cache | Path | None = None, upstream: Path | None = None, offline: bool = False
) -> list[str]:
    """The releases there is source for, oldest first, without pre-releases and withdrawn ones.

    Asks `upstream` if given, else the cache alone if `offline`, else the package index.
    """
    if upstream is not None:
        return released(versions_at(upstream))
    if offline:
        return released(map(Version, Cache.at(cache).tags()))
    with Index.configured(PROJECT) as index:
        return released(v for v, sdist in index.sdists.items() if not sdist.withdrawn)
