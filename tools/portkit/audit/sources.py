"""Both trees as the audit reads them: upstream's files, and the same with the series applied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from portkit.errors import IntegrityError
from portkit.model import Patch
from portkit.patches.apply import DoesNotApply, apply_change
from portkit.upstream.git import Store


class Sources:
    """The files of upstream's `tree` in `store`, and what `patches` make of them."""

    def __init__(self, store: Store, tree: str, patches: Sequence[Patch]) -> None:
        self._store = store
        self._tree = tree
        self._files = store.files(tree)
        self._changed: dict[str, bytes | None] = {}
        self._read = cache(self._fetch)
        for patch in patches:
            self._apply(patch)

    def upstream(self, path: str) -> bytes | None:
        """The bytes of a file of upstream, None where there is none."""
        return self._read(path)

    def patched(self, path: str) -> bytes | None:
        """The bytes of a file with the series applied, None where there is none."""
        return self._changed[path] if path in self._changed else self._read(path)

    def _fetch(self, path: str) -> bytes | None:
        entry = self._files.get(path)
        try:
            return self._store.read(entry.oid) if entry is not None else None
        except IntegrityError:
            if entry is not None and entry.mode == "160000":  # a submodule is no file
                return None
            raise

    def _apply(self, patch: Patch) -> None:
        change = patch.change
        base = self.patched(change.old_path) if change.old_path is not None else None
        try:
            after = apply_change(change, base)
        except DoesNotApply as error:
            raise DoesNotApply(
                patch.name, error.message, hunk=error.hunk, line=error.line
            ) from None
        if change.old_path is not None:
            self._changed[change.old_path] = None
        if change.new_path is not None:
            self._changed[change.new_path] = after
