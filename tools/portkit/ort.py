"""Git's own merge of the whole series (merge-ort), as rename tracker and second opinion.

`git merge-tree --write-tree` merges two commits without a work tree in about 0.1 s for any
number of patches, and follows files that upstream moved between adjacent releases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from portkit.git import Store, TreeEntry, path_from_bytes


@dataclass(frozen=True)
class Witness:
    """What merge-ort made of the series.

    `clean` maps a path of the new tag to the blob it merged there without conflict; `renamed`
    maps a path of the old tag that is gone to where git says it went.
    """

    clean: dict[str, str]
    renamed: dict[str, str]

    def successor(self, path: str) -> str:
        return self.renamed.get(path, path)


def merge(
    store: Store,
    base_tree: str,
    theirs_tree: str,
    ours: Mapping[str, tuple[str, bytes]],
    missing: Iterable[str],
) -> Witness:
    """Merge the files `ours` (path to mode and bytes), made on `base_tree`, with `theirs_tree`.

    `missing` are the paths of the old tag that the new one does not have.
    """
    oids = store.write_blobs([data for _, data in ours.values()])
    entries = {p: TreeEntry(ours[p][0], oid) for p, oid in zip(ours, oids, strict=True)}
    ours_tree = store.edit_tree(base_tree, entries)
    base = store.commit(base_tree)
    one, other = store.commit(ours_tree, [base]), store.commit(theirs_tree, [base])
    said = store.git(
        "merge-tree", "--write-tree", "-z", "--no-messages", one, other, ok=(0, 1)
    ).split(b"\0")
    merged = said[0].decode().strip()
    conflicted = {path_from_bytes(r.partition(b"\t")[2]) for r in said[1:] if b"\t" in r}
    changed = _changed(store, theirs_tree, merged)
    gone = list(missing)
    renamed = _renames(store, base_tree, theirs_tree, gone, [*changed, *conflicted]) if gone else {}
    clean = {path: oid for path, oid in changed.items() if path not in conflicted}
    return Witness(clean, renamed)


def _changed(store: Store, old: str, new: str) -> dict[str, str]:
    """Path to blob id of every file that differs, in `new`."""
    words = store.git("diff-tree", "-r", "-z", "--no-renames", old, new).split(b"\0")
    return {
        path_from_bytes(path): head.split(b" ")[3].decode()
        for head, path in zip(words[::2], words[1::2], strict=False)
        if not head.endswith(b" D")
    }


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
