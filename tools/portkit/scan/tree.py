"""The source that is scanned: files by path, read lazily from the git store, a folder or memory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from portkit.errors import BadInput
from portkit.scan.model import Language
from portkit.upstream.git import Store

_SKIPPED = {".git", ".venv", "venv", "__pycache__", "node_modules", "build", ".deps"}
_LARGEST = 4_000_000  # bytes; larger files are data

_SUFFIXES = {
    **dict.fromkeys((".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inl"), Language.CPP),
    **dict.fromkeys((".py", ".pyi"), Language.PYTHON),
    ".cmake": Language.CMAKE,
    ".rs": Language.RUST,
}


# What the build reads and the package holds; all else is documentation, tests and services.
_SHIPPED = re.compile(
    r"(?:csrc|vllm|cmake|rust)/|(?:CMakeLists\.txt|setup\.py|pyproject\.toml|MANIFEST\.in"
    r"|requirements/(?:common|cuda|build)[\w./-]*\.txt|rust-toolchain\.toml|tools/build_\w+\.py)$"
)


def is_shipped(path: str) -> bool:
    """Whether a file is part of the build or of the package: nothing else is scanned."""
    return _SHIPPED.match(path) is not None


@cache
def language_of(path: str) -> Language:
    """The language of an upstream file, by its name."""
    name = PurePosixPath(path)
    if name.name == "CMakeLists.txt":
        return Language.CMAKE
    if name.suffix == ".txt" and "requirements" in path:
        return Language.REQUIREMENTS
    return _SUFFIXES.get(name.suffix, Language.TEXT)


class SourceTree:
    """A tree of files; `name` is for people (`v0.14.1`, a folder).

    `identity` names the exact contents where that is known (a git tree id), else it is empty.
    """

    def __init__(
        self,
        name: str,
        paths: Iterable[str],
        read_many: Callable[[Sequence[str]], Sequence[bytes]],
        identity: str = "",
    ) -> None:
        self.name = name
        self.identity = identity
        self.paths = tuple(sorted(paths))
        self._read_many = read_many
        self._known: dict[str, bytes] = {}

    @classmethod
    def of_store(cls, store: Store, name: str, tree: str) -> SourceTree:
        """A tree of the git store."""
        files = {p: e.oid for p, e in store.files(tree).items() if e.mode.startswith("100")}

        def read(paths: Sequence[str]) -> Sequence[bytes]:
            return store.read_many([files[path] for path in paths])

        return cls(name, files, read, tree)

    @classmethod
    def of_folder(cls, folder: Path) -> SourceTree:
        """A folder that holds upstream's source, patched or not; raises `BadInput` for none."""
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder", hint="give a source tree, or --tag TAG")
        paths = list(_files_below(folder))
        return cls(str(folder), paths, lambda some: [(folder / p).read_bytes() for p in some])

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], name: str = "memory") -> SourceTree:
        """Files in memory, for snippets and for patched files."""
        return cls(name, files, lambda paths: [files[path] for path in paths])

    def overlaid(self, changes: Mapping[str, bytes | None]) -> SourceTree:
        """This tree with the contents of some paths replaced, added, or removed (None)."""
        kept = {path for path in self.paths if changes.get(path, b"") is not None}
        added = {path: data for path, data in changes.items() if data is not None}
        digest = hashlib.sha256(self.identity.encode())
        for path, data in sorted(added.items()):
            digest.update(path.encode("utf-8", "surrogateescape") + b"\0" + data + b"\0")
        digest.update("\0".join(sorted(set(self.paths) - kept)).encode("utf-8", "surrogateescape"))

        def read(paths: Sequence[str]) -> Sequence[bytes]:
            below = self.read_all(path for path in paths if path not in added)
            return [added[path] if path in added else below.get(path, b"") for path in paths]

        identity = digest.hexdigest() if self.identity else ""
        return SourceTree(self.name, kept | added.keys(), read, identity)

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.paths)

    def __contains__(self, path: str) -> bool:
        return path in self._set

    def read(self, path: str) -> bytes:
        """The bytes of a file; empty where there is none."""
        return self.read_all([path]).get(path, b"") if path in self._set else b""

    def read_all(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of many files in one go; each is read once and kept."""
        wanted = list(paths)
        missing = [path for path in wanted if path not in self._known]
        if missing:
            blobs = self._read_many(missing)
            self._known.update(zip(missing, blobs, strict=True))
        return {path: self._known[path] for path in wanted if len(self._known[path]) <= _LARGEST}

    def of_language(self, *languages: Language) -> list[str]:
        """The paths of files in these languages."""
        return [path for path in self.paths if language_of(path) in languages]


def _files_below(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                yield file.relative_to(folder).as_posix()
