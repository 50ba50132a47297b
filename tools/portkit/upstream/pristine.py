"""The pinned upstream's files one by one: only the blobs that are asked for are read.

Trees and blobs are named by their content, so what the cache holds under the pin's tree is the
pinned source, whoever put it there; only where it is not there is upstream asked (`obtain`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from portkit.errors import IntegrityError
from portkit.model import Events, Pin, silent
from portkit.upstream.git import Store, TreeEntry

Progress = Callable[[], AbstractContextManager[Events]]


def quiet() -> AbstractContextManager[Events]:
    """The `Progress` of a caller that shows none."""
    """No progress."""
    return nullcontext(silent)


class Pristine:
    """The files of `pin`, from the user's cache; a context manager that closes git.

    `upstream` and `offline` are those of `obtain`; `progress` is entered only if it is called.
    """

    def __init__(
        self,
        pin: Pin,
        *,
        upstream: Path | None = None,
        progress: Progress = quiet,
        offline: bool = False,
    ) -> None:
        self._pin = pin
        self._upstream = upstream
        self._progress = progress
        self._offline = offline
        self._store: Store | None = None

    def __enter__(self) -> Pristine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> Store:
        """The store, which holds the pinned tree; raises as `obtain` does."""
        if self._store is None:
            self._store = self._opened()
        return self._store

    @property
    def tree(self) -> str:
        return self._pin.tree

    def read(self, path: str) -> bytes | None:
        """The bytes of a file, None where upstream has none."""
        try:
            return self.store.read(f"{self.tree}:{path}")
        except IntegrityError:
            if path in self.store.files(self.tree):
                raise
            return None

    def entries(self, *paths: str) -> dict[str, TreeEntry]:
        """Mode and blob id of those of `paths` that upstream has."""
        files = self.store.files(self.tree)
        return {path: entry for path in paths if (entry := files.get(path)) is not None}

    def _opened(self) -> Store:
        # Imported here: a command that needs no source should not pay for it.
        from portkit.upstream.cache import Cache  # noqa: PLC0415

        cache = Cache.default()
        if self._upstream is None and (cache.path / "upstream.git" / "HEAD").is_file():
            store = Store(cache.path / "upstream.git")
            if store.resolve(f"{self.tree}^{{tree}}") is not None:
                return store
        from portkit.upstream.source import obtain  # noqa: PLC0415

        pin = self._pin
        with self._progress() as events:
            obtain(
                pin.tag, cache=cache, upstream=self._upstream, pins=[pin], events=events,
                offline=self._offline,
            )  # fmt: skip
        return cache.store
