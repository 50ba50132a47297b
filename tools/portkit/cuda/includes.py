"""What a translation unit is made of: the files of its own tree that it includes, all of them.

Every `#include` counts, whatever `#if` it stands under, so the answer needs no compiler and holds
for every configuration.  It may name a file too many, never one too few: `nvcc.compile_unit` checks
it against what the compiler really read.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

Read = Callable[[str], "bytes | None"]  # a path of the tree to its bytes, None where there is none

_INCLUDE = re.compile(
    rb'^[ \t]*(?:#|%:)[ \t]*(?:include|include_next|import)[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)',
    re.MULTILINE,
)
_COMMENT_OR_CONTINUED = re.compile(rb"/\*[\s\S]*?\*/|\\\r?\n")


@dataclass(frozen=True)
class Closure:
    """A unit and all it includes, with their contents: path to bytes, in the order of paths."""

    unit: str
    files: dict[str, bytes] = field(hash=False)

    @cached_property
    def digest(self) -> str:
        """A sha256 over the names and contents of all files."""
        total = hashlib.sha256(self.unit.encode())
        for path, data in sorted(self.files.items()):
            total.update(f"\n{path} {hashlib.sha256(data).hexdigest()}".encode())
        return total.hexdigest()


class Includes:
    """The include graph of one tree; every file is read and scanned once."""

    def __init__(self, read: Read, folders: Sequence[str]) -> None:
        """`folders` are the include folders inside the tree, such as `csrc`."""
        self._read = read
        self._folders = tuple(folders)
        self._contents: dict[str, bytes | None] = {}
        self._direct: dict[str, tuple[str, ...]] = {}

    def closure(self, unit: str) -> Closure:
        """`unit` and every file of the tree it can include; empty when there is no such file."""
        files: dict[str, bytes] = {}
        pending = [unit]
        while pending:
            path = pending.pop()
            data = self._content(path)
            if path not in files and data is not None:
                files[path] = data
                pending += self._includes(path, data)
        return Closure(unit, dict(sorted(files.items())))

    def _content(self, path: str) -> bytes | None:
        if path not in self._contents:
            self._contents[path] = self._read(path)
        return self._contents[path]

    def _includes(self, path: str, data: bytes) -> tuple[str, ...]:
        if path not in self._direct:
            self._direct[path] = tuple(self._found(path, data))
        return self._direct[path]

    def _found(self, path: str, data: bytes) -> Iterator[str]:
        """Every file an include of `path` may mean: beside it, or below an include folder."""
        plain = _COMMENT_OR_CONTINUED.sub(lambda match: b" " * (b"\n" not in match[0]), data)
        for quoted, angled in {match.groups() for match in _INCLUDE.finditer(plain)}:
            name = (quoted or angled).decode("utf-8", "surrogateescape")
            for folder in (posixpath.dirname(path), *self._folders):
                target = posixpath.normpath(posixpath.join(folder, name))
                if not target.startswith("..") and self._content(target) is not None:
                    yield target
