"""The patched source of the pin in a folder, kept up to date file by file.

A file that is right already is not written again, so that a build goes on from where it was after
a change of one patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from portkit.change import durable
from portkit.errors import Unavailable
from portkit.model import Event, Events, Pin, silent
from portkit.upstream.git import Store, TreeEntry, blob_id
from portkit.upstream.tree import GITLINK, long_path, write_checkout

_EGG_INFO = "vllm.egg-info/SOURCES.txt"
_TREE = ".portkit-tree"  # which tree the folder was brought to


def packaging_files(pin: Pin, paths: Iterable[str]) -> dict[str, bytes]:
    """What setuptools needs beside upstream's files where there is no git repository.

    `PKG-INFO` is where setuptools_scm then finds the version, and the list of sources names the
    package data (chat templates and such) that it would else ask git for.
    """
    version = pin.tag.removeprefix("v")
    info = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n".encode()
    listed = "".join(f"{path}\n" for path in sorted(paths)).encode()
    return {"PKG-INFO": info, _EGG_INFO: listed}


def bring(store: Store, tree: str, pin: Pin, folder: Path, events: Events = silent) -> int:
    """Make `folder` hold `tree`; the number of upstream's files written.

    Other files there (generated sources, build folders) stay, those of an earlier tree go.  Raises
    `Unavailable` when the disk does not serve, `BadInput` when the folder holds something else.
    """
    entries = store.files(tree)
    extra = {**packaging_files(pin, entries), _TREE: f"{tree}\n".encode()}
    before = present(folder)
    if before is None:
        write_checkout(store, tree, folder, extra, events)
        return len(entries)
    try:
        for path in set(store.files(before)) - set(entries):
            Path(long_path(folder / path)).unlink(missing_ok=True)
        written = _update(store, entries, folder, events)
        for path, data in extra.items():
            durable.write(folder / path, data)
    except OSError as error:
        raise Unavailable(f"cannot write {folder}: {error.strerror or error}") from error
    return written


def present(folder: Path) -> str | None:
    """The tree that `bring` last put into a folder; None where it put none."""
    try:
        return (folder / _TREE).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _update(store: Store, entries: Mapping[str, TreeEntry], folder: Path, events: Events) -> int:
    """Write the files that are not what their entry says."""
    wrong: list[str] = []
    for number, (path, entry) in enumerate(entries.items()):
        if number % 100 == 0:
            events(Event("comparing the source", number, len(entries), "files"))
        if entry.mode != GITLINK and _id_of(folder / path) != entry.oid:
            wrong.append(path)
    for path in wrong:
        target = Path(long_path(folder / path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(entries[path].oid))
    return len(wrong)


def _id_of(path: Path) -> str:
    """The id of a file's content; empty for no file."""
    try:
        return blob_id(Path(long_path(path)).read_bytes())
    except OSError:
        return ""
