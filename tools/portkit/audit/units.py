"""The translation units of upstream: what CMakeLists.txt lists, and for which GPU language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from portkit.cuda.includes import Closure, Includes, Read
from portkit.text.cmakefile import commands

FOLDERS = ("csrc",)  # include folders of the tree (CMakeLists.txt: INCLUDE_DIRECTORIES)
_SOURCES = (".cu", ".cpp", ".cc")
_OF_CUDA = ("VLLM_GPU_LANG", "STREQUAL", "CUDA")
_OF_ROCM = ("VLLM_GPU_LANG", "STREQUAL", "HIP")


@dataclass(frozen=True)
class Unit:
    """A source file that CMake compiles: for CUDA, for ROCm, or for both."""

    path: str
    cuda: bool
    rocm: bool


class Units:
    """The units of one tree, and which of them include a file."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._includes = Includes(read, FOLDERS)

    @cached_property
    def all(self) -> tuple[Unit, ...]:
        """Every unit named in CMakeLists.txt that is a file of the tree, by path."""
        found: dict[str, Unit] = {}
        for command in commands(self._read("CMakeLists.txt") or b""):
            for word in command.arguments:
                path = word.removeprefix("${CMAKE_CURRENT_SOURCE_DIR}/")
                if path.endswith(_SOURCES) and self._read(path) is not None:
                    known = found.get(path, Unit(path, cuda=False, rocm=False))
                    found[path] = Unit(
                        path,
                        cuda=known.cuda or not command.under(*_OF_ROCM),
                        rocm=known.rocm or not command.under(*_OF_CUDA),
                    )
        return tuple(sorted(found.values(), key=lambda unit: unit.path))

    def closure(self, unit: str) -> Closure:
        return self._includes.closure(unit)

    def including(self, paths: Iterable[str]) -> tuple[Unit, ...]:
        """The units that are, or include, one of `paths`."""
        wanted = set(paths)
        return tuple(one for one in self.all if wanted & set(self.closure(one.path).files))
