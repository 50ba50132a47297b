"""What the pinned release asks of a build, read from its own files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from portkit.build import thirdparty
from portkit.build.thirdparty import Dependency
from portkit.cuda.torchheaders import REQUIREMENTS, pinned_torch
from portkit.model import Pin
from portkit.text import archlists
from portkit.text.archlists import ArchList
from portkit.text.cmakefile import commands
from portkit.upstream.git import Store

PACKAGE = "vllm/"


@dataclass(frozen=True)
class Pinned:
    """The patched tree of a pin: its paths, and how to read one."""

    pin: Pin
    paths: tuple[str, ...]
    read: Callable[[str], bytes]

    @classmethod
    def of(cls, store: Store, pin: Pin, tree: str) -> Pinned:
        files = store.files(tree)
        return cls(pin, tuple(files), lambda path: store.read(files[path].oid))

    @property
    def version(self) -> str:
        return self.pin.tag.removeprefix("v")

    @cached_property
    def torch(self) -> str:
        """The version of torch the release is built with."""
        return pinned_torch(self.read(REQUIREMENTS))

    @cached_property
    def _project(self) -> dict[str, object]:
        return tomli.loads(self.read("pyproject.toml").decode("utf-8"))

    @cached_property
    def python(self) -> SpecifierSet:
        project = self._project.get("project")
        text = project.get("requires-python", "") if isinstance(project, dict) else ""
        return SpecifierSet(str(text))

    @cached_property
    def build_requirements(self) -> tuple[Requirement, ...]:
        """The packages upstream's build needs in the target, torch aside."""
        system = self._project.get("build-system")
        listed = system.get("requires", ()) if isinstance(system, dict) else ()
        found = [Requirement(str(one)) for one in listed]
        return tuple(one for one in found if one.name != "torch")

    @cached_property
    def archs(self) -> tuple[ArchList, ...]:
        """The lists of upstream's main CMake file."""
        return archlists.arch_lists(commands(self.read("CMakeLists.txt")))

    @cached_property
    def dependencies(self) -> tuple[Dependency, ...]:
        return thirdparty.dependencies(self.paths, self.read)


def package_files(store: Store, tree: str) -> dict[str, str]:
    """The files of a tree that are in the wheel: path to git's id of the content."""
    return {
        path: entry.oid for path, entry in store.files(tree).items() if path.startswith(PACKAGE)
    }


def needed(requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """The names to ask a target for."""
    return tuple(one.name for one in requirements)
