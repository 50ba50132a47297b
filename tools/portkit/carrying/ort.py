"""Git's own merge, as tracker of files that upstream moved and as second opinion.

`git merge-tree --write-tree` (merge-ort) merges two commits without a work tree, in one run for any
number of files, and follows what upstream moved between adjacent releases.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from portkit.upstream.git import Store, TreeEntry, git, path_to_bytes


@dataclass(frozen=True)
class Series:
    """The series as git sees it: the files it changes, made on `base_tree`, and the new tag.

    `ours` gives the base bytes and the patched bytes of each of `paths`; `missing` are the paths
    that the new tag does not have.  Nothing is read or merged until someone asks.
    """

    store: Store
    base_tree: str
    theirs_tree: str
    paths: frozenset[str]
    missing: frozenset[str]
    ours: Callable[[str], tuple[bytes, bytes]]

    def successor(self, path: str) -> str:
        """Where git says the file at `path` went; `path` itself where it did not move."""
        return self._renamed.get(path, path) if path in self.missing else path

    def merged(self, path: str, theirs: bytes) -> bytes | None:
        """Git's own merge of our file at `path` with `theirs`; None where it conflicts."""
        return merge_file(*self.ours(path), theirs) if path in self.paths else None

    @cached_property
    def _renamed(self) -> dict[str, str]:
        gone = self.missing & self.paths
        return renames(self.store, self.base_tree, self.theirs_tree, gone) if gone else {}


def renames(store: Store, old: str, new: str, gone: Iterable[str]) -> dict[str, str]:
    """Where the files `gone` from tree `new` went since `old`, those that moved.

    Merge-ort is asked to carry a change that fits nowhere in each of them: it leaves the changed
    file whole, where it holds the file to be now.
    """
    marks = {store.write("blob", b"\0" + path_to_bytes(path)): path for path in gone}
    changes = {path: TreeEntry("100644", mark) for mark, path in marks.items()}
    base = store.commit(old)
    ours, theirs = store.commit(store.edit_tree(old, changes), [base]), store.commit(new, [base])
    said = store.git("merge-tree", "--write-tree", "--no-messages", ours, theirs, ok=(0, 1))
    merged = said[:40].decode()
    return {
        marks[change.new.oid]: change.path
        for change in store.differences(new, merged)
        if change.old is not None and change.new is not None and change.new.oid in marks
    }


def merge_file(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Git's merge of one file; None where it conflicts, or for a binary file."""
    if any(b"\0" in data for data in (base, ours, theirs)):
        return None
    with tempfile.TemporaryDirectory(prefix="portkit-") as folder:
        names = [Path(folder, name) for name in ("ours", "base", "theirs")]
        for name, data in zip(names, (ours, base, theirs), strict=True):
            name.write_bytes(data)
        options = ["-p", "--quiet", f"--marker-size={_MARKER_SIZE}"]
        said = git("merge-file", *options, *map(str, names), ok=range(128))
    return None if _MARKER.search(said) else said


_MARKER_SIZE = 41  # no file has such a line of its own
_MARKER = re.compile(rb"^<{%d} " % _MARKER_SIZE, re.MULTILINE)
