"""The patched tree: a tree of the store with the patches of a series applied, as a tree id."""

from __future__ import annotations

from collections.abc import Sequence

from portkit.errors import IntegrityError
from portkit.model import FileChange, Patch, Pin
from portkit.patches.apply import DoesNotApply, apply_change
from portkit.patches.patchfile import canonical_change
from portkit.upstream.git import Store, TreeEntry


def patched_tree(store: Store, tree: str, patches: Sequence[Patch]) -> str:
    """The id of `tree` with `patches` applied; raises `DoesNotApply` naming the patch."""
    files = store.files(tree)
    entries: dict[str, TreeEntry | None] = {}
    written: list[tuple[str, str, bytes]] = []
    for patch in patches:
        change = canonical_change(patch.change)
        entry = files.get(change.old_path) if change.old_path is not None else None
        base = store.read(entry.oid) if entry is not None else None
        if change.old_path is None and change.path in files:
            raise DoesNotApply(patch.name, f"{change.path} exists already")
        try:
            after = apply_change(change, base)
        except DoesNotApply as error:
            raise DoesNotApply(
                patch.name, error.message, hunk=error.hunk, line=error.line
            ) from None
        if change.old_path is not None:
            entries[change.old_path] = None
        if after is not None:
            written.append((change.path, mode_after(change, entry), after))
    oids = store.write_blobs([data for _, _, data in written])
    for (path, mode, _), oid in zip(written, oids, strict=True):
        entries[path] = TreeEntry(mode, oid)
    return store.edit_tree(tree, entries)


def verified_tree(store: Store, pin: Pin, patches: Sequence[Patch]) -> str:
    """The patched tree of the pin; raises `IntegrityError` unless it is the one the pin names."""
    found = patched_tree(store, pin.tree, patches)
    if found != pin.patched_tree:
        raise IntegrityError(
            f"the patched tree is {found}, the pin says {pin.patched_tree}",
            hint="patch_series/ was changed by hand; restore it, or move both with the tools",
        )
    return found


def mode_after(change: FileChange, entry: TreeEntry | None) -> str:
    """The mode of a file after `change`: the new one it says, else the one it had."""
    if change.new_mode is not None:
        return change.new_mode
    assert entry is not None  # a new file always has a mode in canonical form
    return entry.mode
