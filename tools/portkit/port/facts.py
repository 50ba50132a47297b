"""What a porting maintainer must know about the new tag: what upstream builds with, and from what.

Facts are read from upstream's files, never guessed: what is declared in a way that cannot be read
is `UNKNOWN`, what is not declared at all is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import tomli

from portkit.port.rebase import Snapshot
from portkit.text import archlists, requirements
from portkit.text.archlists import ArchList
from portkit.text.cmakefile import Command, Condition, commands
from portkit.text.requirements import BUILD_SYSTEM, RequirementChange
from portkit.upstream.git import Store

UNKNOWN = "unknown"
_TORCH = ("torch", "torchvision", "torchaudio")


@dataclass(frozen=True)
class Fact:
    """One value at both tags; `note` narrows it down (a toolkit range, a file)."""

    name: str
    old: str | None
    new: str | None
    note: str = ""

    @property
    def changed(self) -> bool:
        return self.old != self.new


@dataclass(frozen=True)
class SourceChange:
    """A compiled file that CMake lists at one tag only, or at another path (`old` and `new`).

    `device` is who builds it: `cuda`, `rocm` or `cpu`.
    """

    old: str | None
    new: str | None
    device: str


@dataclass(frozen=True)
class Facts:
    """The facts of two tags: all that were looked for, changed or not.

    `skipped` are requirement files left out because a resolver wrote them.
    """

    old_tag: str
    new_tag: str
    versions: tuple[Fact, ...]
    archs: tuple[Fact, ...]
    dependencies: tuple[Fact, ...]
    extensions: tuple[Fact, ...]
    requirements: tuple[RequirementChange, ...]
    sources: tuple[SourceChange, ...]
    skipped: tuple[str, ...] = ()


def facts(store: Store, old: Snapshot, new: Snapshot) -> Facts:
    """Compare what two tags are built with."""
    was, now = _Tag(store, old), _Tag(store, new)
    return Facts(
        old.tag,
        new.tag,
        _pairs(was.versions, now.versions),
        tuple(_archs(was.arch_lists, now.arch_lists)),
        tuple(_dependencies(was, now)),
        _pairs(was.extensions, now.extensions),
        requirements.compare(was.requirements, now.requirements),
        tuple(_sources(was.sources, now.sources)),
        tuple(dict.fromkeys((*now.compiled_requirements, *was.compiled_requirements))),
    )


def _pairs(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> tuple[Fact, ...]:
    return tuple(Fact(name, old.get(name), new.get(name)) for name in {**new, **old})


def _dependencies(old: _Tag, new: _Tag) -> Iterator[Fact]:
    was, now = old.dependencies, new.dependencies
    for name in {**now, **was}:
        before, after = was.get(name), now.get(name)
        revisions = (before.revision if before else None, after.revision if after else None)
        path = (now.get(name) or was[name]).path
        yield Fact(name, *revisions, path)
        # A dependency that comes or goes says so by its revision.
        if before and after and before.repository != after.repository:
            yield Fact(f"{name}, repository", before.repository, after.repository, after.path)


def _archs(old: Iterable[ArchList], new: Iterable[ArchList]) -> Iterator[Fact]:
    for row in archlists.compare(tuple(old), tuple(new)):
        yield Fact(row.group, _spelled(row.old), _spelled(row.new), str(row.span))


def _spelled(archs: tuple[str, ...] | None) -> str | None:
    return UNKNOWN if archs is None else " ".join(archs) or None


def _sources(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[SourceChange]:
    """Removed and added files; a name that left one folder for one other has moved."""
    gone = [path for path in old if path not in new]
    come = [path for path in new if path not in old]
    for path in gone:
        name = PurePosixPath(path).name
        twins = [other for other in gone if PurePosixPath(other).name == name]
        heirs = [other for other in come if PurePosixPath(other).name == name]
        if len(twins) == len(heirs) == 1:
            come.remove(heirs[0])
            yield SourceChange(path, heirs[0], new[heirs[0]])
        else:
            yield SourceChange(path, None, old[path])
    for path in come:
        yield SourceChange(None, path, new[path])


class _Tag:
    """What one tag's build files say."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self._store = store
        self._files = snapshot.files

    def _read(self, path: str) -> bytes | None:
        entry = self._files.get(path)
        return None if entry is None else self._store.read(entry.oid)

    def _toml(self, path: str) -> dict[str, Any] | None:
        try:
            return tomli.loads((self._read(path) or b"").decode())
        except (tomli.TOMLDecodeError, UnicodeDecodeError):
            return None

    @cached_property
    def _cmake(self) -> dict[str, tuple[Command, ...]]:
        """The commands of every CMake file, the top one first."""
        paths = ["CMakeLists.txt", *sorted(p for p in self._files if _CMAKE.fullmatch(p))]
        return {path: commands(self._read(path) or b"") for path in paths}

    # versions

    @property
    def versions(self) -> dict[str, str | None]:
        """Torch, language and toolchain versions; every name is always there."""
        top = self._cmake["CMakeLists.txt"]
        known = "CMakeLists.txt" in self._files
        runtime = self.requirements.get("requirements/cuda.txt")
        found: dict[str, str | None] = {"torch, to build with": self._build_torch}
        for name in _TORCH:
            found[name] = UNKNOWN if runtime is None else _joined(runtime.get(name, ()), name)
        found["torch, expected by CMake"] = _set(top, "TORCH_SUPPORTED_VERSION_CUDA", known)
        found["Python"] = self._python
        found["Python, accepted by CMake"] = _set(top, "PYTHON_SUPPORTED_VERSIONS", known)
        found["CMake"] = _called(top, "cmake_minimum_required", "VERSION", known)
        found["C++ standard"] = _set(top, "CMAKE_CXX_STANDARD", known)
        found["CUDA C++ standard"] = _set(top, "CMAKE_CUDA_STANDARD", known)
        found["Rust toolchain"] = self._rust
        return found

    @property
    def _build_torch(self) -> str | None:
        lines = self.requirements.get(BUILD_SYSTEM)
        return UNKNOWN if lines is None else _joined(lines.get("torch", ()), "torch")

    @property
    def _python(self) -> str | None:
        project = (self._toml(BUILD_SYSTEM) or {}).get("project", {})
        return str(project.get("requires-python", UNKNOWN))

    @property
    def _rust(self) -> str | None:
        if "rust-toolchain.toml" not in self._files:
            return None
        toolchain = (self._toml("rust-toolchain.toml") or {}).get("toolchain", {})
        return str(toolchain.get("channel", UNKNOWN))

    # requirements

    @cached_property
    def requirements(self) -> dict[str, requirements.Lines]:
        """Requirement files that people write, by path, and pyproject's build requirements."""
        found: dict[str, requirements.Lines] = {}
        build = (self._toml(BUILD_SYSTEM) or {}).get("build-system", {}).get("requires")
        if isinstance(build, list):
            found[BUILD_SYSTEM] = requirements.parse(str(line) for line in build)
        for path, data in self._requirement_files.items():
            if not requirements.is_compiled(data):
                found[path] = requirements.parse(requirements.logical_lines(data))
        return found

    @property
    def compiled_requirements(self) -> tuple[str, ...]:
        files = self._requirement_files.items()
        return tuple(path for path, data in files if requirements.is_compiled(data))

    @cached_property
    def _requirement_files(self) -> dict[str, bytes]:
        paths = [path for path in self._files if re.fullmatch(r"requirements/.+\.txt", path)]
        return {path: self._read(path) or b"" for path in paths}

    # CMake

    @property
    def arch_lists(self) -> list[ArchList]:
        return [one for lines in self._cmake.values() for one in archlists.arch_lists(lines)]

    @property
    def dependencies(self) -> dict[str, _Fetched]:
        """Third-party sources that CMake fetches, by name."""
        found: dict[str, _Fetched] = {}
        for path, lines in self._cmake.items():
            for command in lines:
                tag, origin = command.after("GIT_TAG"), command.after("GIT_REPOSITORY")
                if command.name not in _FETCHING or tag is None:
                    continue
                origins = dict(resolved(lines, origin or UNKNOWN))
                for condition, revision in resolved(lines, tag):
                    name = command.arguments[0] + (f" ({condition})" if condition else "")
                    repository = origins.get(condition, origins.get("", UNKNOWN))
                    found[name] = _Fetched(revision, repository, path)
        return found

    @property
    def extensions(self) -> dict[str, str | None]:
        """Compiled modules: name to the devices they are built for."""
        found: dict[str, str | None] = {}
        for path, command in self._each():
            if command.name == "define_extension_target" and command.arguments:
                name, device = command.arguments[0], _device(path, command)
                devices = [*(found.get(name) or "").split(), device]
                found[name] = " ".join(sorted(set(devices), key=_DEVICES.index))
        return found

    @property
    def sources(self) -> dict[str, str]:
        """Compiled files (or patterns of generated ones) that CMake lists: path to device."""
        found: dict[str, str] = {}
        for path, command in self._each():
            if command.name not in _LISTING:
                continue
            for word in (w for argument in command.arguments for w in argument.split(";")):
                match = _SOURCE.fullmatch(word)
                if match is not None and ("*" in word or match[1] in self._files):
                    device = _device(path, command)
                    found[match[1]] = min(device, found.get(match[1], device), key=_DEVICES.index)
        return found

    def _each(self) -> Iterator[tuple[str, Command]]:
        return ((path, command) for path, lines in self._cmake.items() for command in lines)


@dataclass(frozen=True)
class _Fetched:
    revision: str
    repository: str
    path: str


_CMAKE = re.compile(r"cmake/.+\.cmake")
_FETCHING = ("fetchcontent_declare", "fetchcontent_populate", "externalproject_add")
# Paths below another folder are sources of a dependency, pinned by its revision.
_SOURCE = re.compile(r"(?:\$\{CMAKE_(?:CURRENT_)?SOURCE_DIR\}/)?(csrc/[^$\s]+\.(?:cu|cpp|cc|c))")
_LISTING = ("set", "list", "file", "define_extension_target", "add_library")
_DEVICES = ("cuda", "rocm", "cpu")


def _joined(specifiers: tuple[str, ...], name: str) -> str | None:
    """The versions of a package (`2.9.1` for `torch==2.9.1`), None when there is none."""
    return " or ".join(s.removeprefix(name).removeprefix("==") or "any" for s in specifiers) or None


def _device(path: str, command: Command) -> str:
    if command.under("VLLM_GPU_LANG", "STREQUAL", "HIP"):
        return "rocm"
    return "cpu" if path == "cmake/cpu_extension.cmake" else "cuda"


def _set(lines: Iterable[Command], variable: str, known: bool) -> str | None:
    """What `set` gives a variable; None when it is never set, unknown when it is not plain."""
    values = [c.arguments[1:] for c in lines if c.name == "set" and c.arguments[:1] == (variable,)]
    if not values:
        return None if known else UNKNOWN
    text = " ".join(values[-1])
    return text if len(values) == 1 and "$" not in text else UNKNOWN


def _called(lines: Iterable[Command], name: str, keyword: str, known: bool) -> str | None:
    found = [command.after(keyword) for command in lines if command.name == name]
    return (found[0] or UNKNOWN) if found else (None if known else UNKNOWN)


def resolved(lines: Iterable[Command], word: str) -> Iterator[tuple[str, str]]:
    """The values `word` can stand for, each with the condition that tells it from the others."""
    variable = re.fullmatch(r"\$\{(\w+)\}", word)
    if variable is None:
        yield "", UNKNOWN if "$" in word else word
        return
    setting = [c for c in lines if c.name == "set" and c.arguments[:1] == (variable[1],)]
    values = [c for c in setting if len(c.arguments) > 1 and "$" not in c.arguments[1]]
    if not values or len(values) < len(setting):
        yield "", UNKNOWN
        return
    common = set.intersection(*(set(c.conditions) for c in values))
    for command in values:
        own = [c for c in command.conditions if c not in common]
        yield _told(own), command.arguments[1]


def _told(conditions: Iterable[Condition]) -> str:
    """A condition as an addition to a name; the branch taken otherwise needs none."""
    return " and ".join(str(c) for c in conditions if c.holds)
