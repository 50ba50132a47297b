"""Searching the new tag for code that moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from portkit.model import Hunk
from portkit.text.sides import Text, telling
from portkit.text.syntax import Language, language_of
from portkit.upstream.git import Difference, Files, Store

_ENOUGH = 12  # characters that make a line worth searching for
_MOST = 8  # files that hold one line; beyond, it says nothing


class Library:
    """The files of the new tag, each read once."""

    def __init__(self, store: Store, tag: str, files: Files) -> None:
        self.store = store
        self.tag = tag
        self.files = files
        self._texts: dict[str, Text] = {}
        self._differences: dict[str, list[Difference]] = {}
        self._changed: dict[tuple[str, Language], list[Text]] = {}

    def text(self, path: str) -> Text:
        if path not in self._texts:
            self._texts[path] = Text(path, self.store.read(self.files[path].oid))
        return self._texts[path]

    def texts(self, paths: Sequence[str]) -> list[Text]:
        """Many files at once."""
        self.files.look_up(paths)
        return self._read({path: self.files[path].oid for path in paths})

    def share(self, other: Library, paths: Iterable[str]) -> None:
        """Take files that are the same in `other`, with all that is known of them there."""
        self._texts.update((path, other.text(path)) for path in paths)

    def changed(self, other: Library, language: Language) -> list[Text]:
        """The files in `language` that `other` does not hold with the same content."""
        key = other.tag, language
        if key not in self._changed:
            self._changed[key] = self._read(_oids(self._since(other, language)))
        return self._changed[key]

    def added(self, other: Library, language: Language) -> list[Text]:
        """The files in `language` that `other` does not hold at all."""
        return self._read(_oids(c for c in self._since(other, language) if c.old is None))

    def _since(self, other: Library, language: Language) -> list[Difference]:
        """How this library differs from `other`, for the files in `language` that it has."""
        if other.tag not in self._differences:
            found = self.store.differences(other.files.tree, self.files.tree)
            self._differences[other.tag] = found
            other._differences[self.tag] = [Difference(c.path, c.new, c.old) for c in found]
        found = self._differences[other.tag]
        return [c for c in found if c.new is not None and language_of(c.path) is language]

    def _read(self, oids: Mapping[str, str]) -> list[Text]:
        missing = [path for path in oids if path not in self._texts]
        blobs = self.store.read_many([oids[path] for path in missing])
        self._texts.update((path, Text(path, b)) for path, b in zip(missing, blobs, strict=True))
        return [self._texts[path] for path in oids]


def _oids(differences: Iterable[Difference]) -> dict[str, str]:
    return {c.path: c.new.oid for c in differences if c.new is not None}


class Finder:
    """Searches the files in one language that upstream added or changed since a tag.

    Code that moved is in one of them; the others hold what they held before.
    """

    def __init__(self, old: Library, library: Library, path: str) -> None:
        self.library = library
        self.tag = library.tag
        self._old = old
        self._path = path
        self._language = language_of(path)

    @property
    def _candidates(self) -> list[Text]:
        return self.library.changed(self._old, self._language)

    @property
    def _former(self) -> list[Text]:
        return self._old.changed(self.library, self._language)

    def containing(self, needle: bytes) -> tuple[str, ...]:
        """The files that contain `needle`, in tree order."""
        return tuple(text.path for text in self._candidates if needle in text.data)

    def arrivals(self, needles: Sequence[bytes]) -> tuple[str, ...]:
        """The files that are new and contain all of `needles`; reads none of the others."""
        added = self.library.added(self._old, self._language)
        return tuple(t.path for t in added if all(needle in t.data for needle in needles))

    def gained(self, needle: bytes) -> tuple[str, ...]:
        """The files that contain `needle` now and did not before."""
        old = self._old
        return tuple(
            path
            for path in self.containing(needle)
            if path not in old.files or needle not in old.text(path).data
        )

    def lost(self, needle: bytes) -> bool:
        """Whether fewer files contain `needle` than did: a copy was deleted, none moved.

        Twins (two generators with the same lines) keep theirs and explain what is left.
        """
        return len(self.containing(needle)) < self._before(needle)

    def multiplied(self, needle: bytes) -> bool:
        """Whether more files contain `needle` than did: the code was copied or split."""
        return len(self.containing(needle)) > self._before(needle)

    def _before(self, needle: bytes) -> int:
        return sum(needle in text.data for text in self._former)

    def holders(self, hunk: Hunk) -> list[tuple[Text, str]]:
        """The other files that hold one of the most telling lines of the hunk's old side."""
        library = self.library
        for line in searchable(hunk.before)[:3]:
            paths = [path for path in self.containing(line) if path != self._path]
            if paths:
                return [(library.text(p), library.files[p].oid) for p in paths[:_MOST]]
        return []


def searchable(lines: Sequence[bytes]) -> list[bytes]:
    """The lines worth searching for, stripped, longest first."""
    wanted = {line.strip() for line in lines if len(line.strip()) >= _ENOUGH and telling(line)}
    return sorted(wanted, key=lambda line: (-len(line), line))
