"""The user's cache: one bare git store in which every upstream tag is a self-describing commit.

What was fetched lies under `refs/tags/<tag>`, what a person gave under `refs/given/<tag>`, so that
a folder someone edited never passes for upstream later on.  The commit message records where a
tree came from (`Archive-Sha256:` and so on).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import platformdirs
from packaging.version import Version

from portkit.errors import BadInput, Busy, Unavailable
from portkit.model import Archive, Event, Events, silent
from portkit.upstream.archive import archive_members, describe, import_members, message, sweep
from portkit.upstream.git import Store

PROJECT = "vllm"
CACHE_VARIABLE = "VLLM_PORT_CACHE"

_LOCK_TIMEOUT = 600.0  # seconds another import may take before we give up
_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
_STALLED = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")


@dataclass(frozen=True)
class Source:
    """One upstream tag in the store.

    `commit` is upstream's commit id as far as it is known (abbreviated from an archive, "" if not
    recorded); `tree` a tree id of the store; `archive` the archive it came from, if any; `origin`
    where it came from, in words.
    """

    tag: str
    commit: str
    tree: str
    archive: Archive | None
    origin: str


class Cache:
    """The user's cache of upstream: a folder with one bare git store, shared by all checkouts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> Cache:
        """`$VLLM_PORT_CACHE`, else the place the system has for a user's caches."""
        given = os.environ.get(CACHE_VARIABLE)
        if given:
            return cls(Path(given).expanduser().absolute())
        return cls(platformdirs.user_cache_path("vllm-windows-build", appauthor=False))

    @classmethod
    def at(cls, place: Cache | Path | None) -> Cache:
        """`place` as a cache; None is the default one."""
        if isinstance(place, Cache):
            return place
        return cls(place) if place is not None else cls.default()

    @cached_property
    def store(self) -> Store:
        with self._writing():
            return Store.create(self.path / "upstream.git")

    @contextmanager
    def lock(self, events: Events = silent) -> Iterator[Store]:
        """The store, for one writer at a time; leftovers of a killed one are swept away."""
        import filelock  # noqa: PLC0415  (slow to import, and who only reads needs no lock)

        store = self.store
        lock = filelock.FileLock(self.path / "lock")
        with self._writing():
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                events(Event("waiting for another import"))
                try:
                    lock.acquire(timeout=_LOCK_TIMEOUT)
                except filelock.Timeout:
                    raise Busy(f"another process holds the cache {self.path}") from None
            try:
                sweep(store)
                yield store
            finally:
                lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = ": ".join(filter(None, (error.strerror or str(error), error.filename)))
            raise Unavailable(
                f"cannot use the cache {self.path}: {reason}",
                hint=f"free the disk, or name another folder with {CACHE_VARIABLE}",
            ) from error

    def tags(self) -> list[str]:
        """The tags fetched so far, oldest first."""
        listing = self.store.git("for-each-ref", "--format=%(refname:strip=2)", "refs/tags")
        return sorted(listing.decode().split(), key=Version)


def stored(store: Store, tag: str, ref: str, origin: str) -> Source | None:
    """What the store has at `ref`, from its self-describing commit."""
    head, _, body = store.git("cat-file", "commit", ref, ok=(0, 128)).decode().partition("\n\n")
    if not head:
        return None
    trailers = dict(line.split(": ", 1) for line in body.splitlines() if ": " in line)
    archive = None
    if "Archive-Sha256" in trailers:
        archive = Archive(
            trailers["Archive-Name"], int(trailers["Archive-Size"]), trailers["Archive-Sha256"]
        )
    commit = trailers.get("Upstream-Commit", "")
    return Source(tag, commit, head.split()[1], archive, origin)


def import_archive(store: Store, tag: str, ref: str, path: Path, events: Events) -> None:
    """Store the source archive at `path` at `ref`, whole or not at all; hold the lock."""
    archive = describe(path)
    import_members(
        store,
        ref,
        archive_members(path, f"{PROJECT}-{Version(tag)}", events=events),
        subject=f"vLLM {tag}",
        trailers={
            "Archive-Name": archive.name,
            "Archive-Size": str(archive.size),
            "Archive-Sha256": archive.sha256,
        },
    )


def fetch_tag(store: Store, tag: str, ref: str, remote: str, *options: str) -> None:
    """Fetch `tag` of a git repository as one commit of ours at `ref`; hold the lock."""
    incoming = f"refs/incoming/{tag}"
    try:
        refspec = f"+refs/tags/{tag}:{incoming}"
        store.git(*_STALLED, *_FETCH, "--depth=1", *options, remote, refspec)
        commit = store.resolve(f"{incoming}^{{commit}}")
        tree = store.resolve(f"{incoming}^{{tree}}")
        if commit is None or tree is None:
            raise BadInput(f"{tag} of {remote} is not a tag of source code")
        if options:
            _fetch_missing_blobs(store, tree, remote)
        text = message(f"vLLM {tag}", {}, commit).rstrip("\n")
        store.git("update-ref", ref, store.commit(tree, message=text))
    finally:
        store.git("update-ref", "-d", incoming)
        sweep(store)


def _fetch_missing_blobs(store: Store, tree: str, remote: str) -> None:
    """Complete a tree fetched without blobs: only those no other tag has brought."""
    listing = store.git("rev-list", "--objects", "--no-object-names", "--missing=print", tree)
    missing = [line[1:] for line in listing.splitlines() if line.startswith(b"?")]
    if missing:
        noop = ("-c", "fetch.negotiationAlgorithm=noop")
        wanted = b"".join(oid + b"\n" for oid in missing)
        options = ("--filter=blob:none", "--stdin", remote)
        store.git(*_STALLED, *noop, *_FETCH, *options, stdin=wanted)
