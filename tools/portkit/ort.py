"""Git's own merge of the whole series (merge-ort), as rename tracker and second opinion.

`git merge-tree --write-tree` merges two commits without a work tree in about 0.1 s for any
number of patches, and follows files that upstream moved between adjacent releases.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from portkit.git import Store, TreeEntry, git, path_from_bytes


@dataclass(frozen=True)
class Series:
    """The series as git sees it: the files it changes, made on `base_tree`, and the new tag.

    `ours` is path to mode, base bytes and patched bytes; `missing` are the paths that the new
    tag does not have.  Nothing is merged until someone asks.
    """

    store: Store
    base_tree: str
    theirs_tree: str
    ours: Mapping[str, tuple[str, bytes, bytes]]
    missing: frozenset[str]

    def successor(self, path: str) -> str:
        """Where git says the file at `path` went; `path` itself where it did not move."""
        return self._renamed.get(path, path) if path in self.missing else path

    def merged(self, path: str, theirs: bytes) -> bytes | None:
        """Git's own merge of our file at `path` with `theirs`; None where it conflicts."""
        if path not in self.ours:
            return None
        _, base, ours = self.ours[path]
        return merge_file(base, ours, theirs)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """Where merge-ort moved the files that are gone."""
        store = self.store
        oids = store.write_blobs([data for _, _, data in self.ours.values()])
        changes: dict[str, TreeEntry | None] = {
            path: TreeEntry(self.ours[path][0], oid)
            for path, oid in zip(self.ours, oids, strict=True)
        }
        base = store.commit(self.base_tree)
        one = store.commit(store.edit_tree(self.base_tree, changes), [base])
        other = store.commit(self.theirs_tree, [base])
        said = store.git(
            "merge-tree", "--write-tree", "-z", "--no-messages", one, other, ok=(0, 1)
        ).split(b"\0")
        merged = said[0].decode().strip()
        conflicted = [path_from_bytes(r.partition(b"\t")[2]) for r in said[1:] if b"\t" in r]
        changed = _changed(store, self.theirs_tree, merged)
        gone = sorted(self.missing)
        return _renames(store, self.base_tree, self.theirs_tree, gone, [*changed, *conflicted])


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


def _changed(store: Store, old: str, new: str) -> list[str]:
    """The path of every file that differs, in `new`."""
    words = store.git("diff-tree", "-r", "-z", "--no-renames", old, new).split(b"\0")
    return [
        path_from_bytes(path)
        for head, path in zip(words[::2], words[1::2], strict=False)
        if not head.endswith(b" D")
    ]


def _renames(
    store: Store, old: str, new: str, gone: list[str], candidates: list[str]
) -> dict[str, str]:
    """Which of `gone` git pairs with which of `candidates`."""
    said = store.git(
        "diff-tree", "-r", "-z", "-M", "-l0", "--diff-filter=R", old, new, "--",
        *(f":(literal){path}" for path in dict.fromkeys([*gone, *candidates])),
    )  # fmt: skip
    words = said.split(b"\0")
    return {
        path_from_bytes(words[n + 1]): path_from_bytes(words[n + 2])
        for n in range(0, len(words) - 2, 3)
    }
