"""What the CUDA build on Windows compiles, read from CMake's files without running them.

A source counts as built where a command that Windows reaches lists it, and a header where a built
source includes it, directly or not.  Kernel groups whose architectures are only 9.x, 10.x and 11.x
(data centre and Jetson chips, which have no Windows driver) are not built there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from packaging.version import Version

from portkit.scan import ternary
from portkit.scan.model import Language
from portkit.scan.ternary import Truth
from portkit.scan.tree import SourceTree
from portkit.text.cmakefile import Command, Definition, commands, definitions

_LISTED = re.compile(r"csrc/[^$\s;\"]+\.(?:cu|cpp|cc|c|py)\b")
_INCLUDE = re.compile(rb'#\s*include\s*"([^"\n]+)"')
_REFERENCE = re.compile(r"\$\{(\w+)\}|(?<![\w$])([A-Z][A-Z0-9_]*ARCHS)\b")
_ARCH = re.compile(r"(\d+)\.\d[af]?(?:\+PTX)?")
_WINDOWS_MAJORS = {"7", "8", "12"}
_LISTING = {"set", "list", "file", "define_extension_target", "add_library"}
_TORCH = re.compile(rb"^torch\s*==\s*(\d+(?:\.\d+)*)", re.MULTILINE)
_SYSTEM = {"WIN32", "MSVC", "UNIX", "LINUX", "CMAKE_SYSTEM_NAME"}
_DEFINE = re.compile(r"-D(ENABLE_\w+)")  # kernel groups


class Build:
    """The build of one tree."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree

    @cached_property
    def cxx_standard(self) -> int | None:
        """The oldest C++ standard that a part of the build asks for; None where it is not said."""
        names = ("CMAKE_CXX_STANDARD", "CMAKE_CUDA_STANDARD")
        found = [
            int(command.arguments[1])
            for command in self._commands
            if command.name == "set" and len(command.arguments) > 1
            if command.arguments[0] in names and command.arguments[1].isdigit()
        ]
        return min(found, default=None)

    def left_out(self, path: str) -> str:
        """Why Windows does not compile a C++ or CUDA file; empty where it does."""
        if path in self._reached or not self._walk.listed:
            return ""
        return "no source that the CUDA build on Windows compiles is or includes this file"

    def not_run(self, path: str, line: int) -> str:
        """Why Windows does not get to a line (1-based) of a CMake file; empty where it may."""
        for definition in self._definitions.get(path, ()):
            if definition.line <= line <= definition.last_line:
                called = definition.name in self._called
                return "" if called else f"nothing that Windows runs calls {definition.name}"
        runs = self._walk.runs.get(path, {})
        around = [runs[span] for span in runs if span[0] <= line <= span[1]]
        skipped = around and not any(around)
        return "in a part of the build that Windows does not get to" if skipped else ""

    def names(self, path: str) -> bool:
        """Whether the build's own files name a script."""
        name = posixpath.basename(path).removesuffix(".py").encode()
        return any(name in data for data in self._build_files.values())

    @property
    def undefined(self) -> frozenset[str]:
        """Macros that only unreached commands define."""
        return frozenset(self._walk.elsewhere - self._walk.defined)

    # reading CMake

    @cached_property
    def _commands(self) -> tuple[Command, ...]:
        return commands(self._tree.read("CMakeLists.txt"))

    @property
    def dropped(self) -> frozenset[str]:
        """Sources and modules that the build names and leaves out because of the system."""
        return frozenset(self._walk.dropped - self._walk.reached)

    @cached_property
    def sources(self) -> frozenset[str]:
        """The sources and headers that Windows compiles."""
        return frozenset(self._reached)

    @cached_property
    def _walk(self) -> _Walk:
        walk = _Walk()
        archs = _Archs(self._versions)
        for path, command, live in self._with_included("CMakeLists.txt", archs):
            span = (command.line, command.last_line)
            runs = walk.runs.setdefault(path, {})
            runs[span] = live or runs.get(span, False)
            walk.called |= {command.name} if live else set()
            words = " ".join(command.arguments)
            named = set(_LISTED.findall(words)) if command.name in _LISTING else set()
            if command.name == "define_extension_target":
                named |= set(command.arguments[:1])
            walk.listed |= named
            if live and command.arguments[:1] == ("REMOVE_ITEM",) and _of_system(command):
                walk.removed |= named
            elif live:
                walk.reached |= named
            elif _of_system(command):
                walk.dropped |= named
            (walk.defined if live else walk.elsewhere).update(_DEFINE.findall(words))
        walk.dropped |= walk.removed
        walk.reached -= walk.removed
        return walk

    def _with_included(
        self, path: str, archs: _Archs, live: bool = True
    ) -> Iterator[tuple[str, Command, bool]]:
        """Each command with its file and whether Windows may get to it, included files in place."""
        for command in commands(self._tree.read(path)):
            here = live and archs.reaches(command) is not False
            yield path, command, here
            archs.read(command)
            if command.name == "include" and command.arguments:
                included = command.arguments[0].removeprefix("${CMAKE_CURRENT_LIST_DIR}/")
                yield from self._with_included(included, archs, here)

    @cached_property
    def _versions(self) -> Mapping[str, Version]:
        """torch's version, where the requirements pin it."""
        found = _TORCH.search(self._tree.read("requirements/cuda.txt"))
        return {"Torch_VERSION": Version(found[1].decode())} if found else {}

    @cached_property
    def _build_files(self) -> Mapping[str, bytes]:
        paths = self._tree.of_language(Language.CMAKE)
        return self._tree.read_all([*paths, *(p for p in ("setup.py",) if p in self._tree)])

    @cached_property
    def _definitions(self) -> Mapping[str, tuple[Definition, ...]]:
        return {
            path: definitions(data)
            for path, data in self._build_files.items()
            if path != "setup.py"
        }

    @cached_property
    def _called(self) -> set[str]:
        """The functions that Windows calls, at first or second hand."""
        bodies = {one.name: one.body for some in self._definitions.values() for one in some}
        found = set(self._walk.called)
        pending = list(found)
        while pending:
            for command in bodies.get(pending.pop(), ()):
                if command.name not in found:
                    found.add(command.name)
                    pending.append(command.name)
        return found

    # headers

    @cached_property
    def _reached(self) -> set[str]:
        """Every file of a built source: itself, and what it includes."""
        files = self._tree.read_all(self._tree.of_language(Language.CPP))
        scripts = [path for path in self._walk.reached if path.endswith(".py")]
        files = {**files, **self._tree.read_all(p for p in scripts if p in self._tree)}
        pending = [path for path in self._walk.reached if path in files]
        found = set(pending)
        while pending:
            path = pending.pop()
            for name in _INCLUDE.findall(files[path]):
                target = self._resolved(path, name.decode("utf-8", "replace"), files)
                if target and target not in found:
                    found.add(target)
                    pending.append(target)
        return found

    @staticmethod
    def _resolved(path: str, name: str, files: Iterable[str]) -> str:
        """The file an `#include "name"` means, looked for beside the file, then below csrc."""
        for folder in (posixpath.dirname(path), "csrc", "", "csrc/libtorch_stable"):
            target = posixpath.normpath(posixpath.join(folder, name))
            if target in files:
                return target
        return ""


@dataclass
class _Walk:
    """What the commands name: sources and modules, and macros of kernel groups."""

    listed: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)  # by a command that Windows gets to
    dropped: set[str] = field(default_factory=set)  # by one that only other systems get to
    removed: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)  # every command that Windows gets to
    # Whether Windows gets to the command on these lines, by file.
    runs: dict[str, dict[tuple[int, int], bool]] = field(default_factory=dict)


def _of_system(command: Command) -> bool:
    """Whether a command stands under a condition on the system or its compiler."""
    return any(set(c.words) & _SYSTEM for c in command.conditions)


class _Archs:
    """Which architecture variables hold an architecture that Windows builds for."""

    def __init__(self, versions: Mapping[str, Version]) -> None:
        self._versions = versions
        self._values: dict[str, Truth] = {}
        self._used: set[str] = set()

    def reaches(self, command: Command) -> Truth:
        """Whether Windows gets to a command: False only where that is sure."""
        found: Truth = True
        for condition in command.conditions:
            self._used |= set(_names(condition.words))
            holds = ternary.cmake(condition.words, self._values, self._versions)
            if holds is not None and holds is not condition.holds:
                return False
            if holds is None:
                found = None
        return found

    def read(self, command: Command) -> None:
        words = command.arguments
        if not words:
            return
        if command.name == "cuda_archs_loose_intersection" and len(words) > 1:
            # Branches for two toolkits set a variable twice before anything uses it.
            before = self._values.get(words[0]) if words[0] not in self._used else False
            self._values[words[0]] = bool(before) or _for_windows(words[1], self._values)
            self._used.discard(words[0])
        elif command.name.startswith("cuda_archs_"):
            self._values[words[0]] = None
        elif command.name == "set" and words[0].endswith("ARCHS") and len(words) == 1:
            self._values[words[0]] = False
        elif command.name == "list" and words[:1] == ("APPEND",) and words[1:2] in self._keys():
            held = self._values[words[1]]
            self._values[words[1]] = held or _for_windows(" ".join(words[2:]), self._values)
        if command.name != "message":
            self._used |= set(_names(words[1:]))

    def _keys(self) -> set[tuple[str]]:
        return {(name,) for name in self._values}


def _names(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        for one, other in _REFERENCE.findall(word):
            yield one or other


def _for_windows(text: str, known: dict[str, Truth]) -> bool:
    """Whether a list of architectures, or the variables in it, holds one of a Windows GPU."""
    majors = {match[1] for match in _ARCH.finditer(text)}
    others = [known.get(name, True) for name in _names([text])]
    return bool(majors & _WINDOWS_MAJORS) or any(value is not False for value in others)
