"""The cells of the CI matrix: which combinations exist at the pin, and why others do not.

A cell is one job.  What exists follows from upstream's own files at the pin (architectures by
toolkit in CMakeLists.txt, torch and Python in pyproject.toml) and from torch's builds; nothing of
it is written down a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from portkit.ci.plan import PLAN_FILE, Plan
from portkit.errors import BadFile
from portkit.model import Patch
from portkit.patches.header import parse
from portkit.text import archlists
from portkit.text.archlists import ArchList, arch_lists
from portkit.text.cmakefile import commands

Kind = Literal["check", "compile", "gpu", "wheel"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What no compiled module is made of or checked by.
_UNCOMPILED = (
    *("docs/", "launcher/", "tests/", "benchmarks/", ".ci/", "ci/results/"),
    *("kernel_tests/cases/", "kernel_tests/references/", "kernel_tests/results/"),
    *("patch_series/evidence.json", "patch_series/resolutions/", "patch_series/rules/"),
)

Read = Callable[[str], "bytes | None"]


@dataclass(frozen=True)
class Upstream:
    """What the pin says: its torch release, its Pythons, its architectures by toolkit."""

    tag: str
    torch: str
    pythons: SpecifierSet
    archs: tuple[ArchList, ...]

    def builds(self, toolkit: str, arch: str) -> bool:
        """Whether upstream's CMake takes `arch` with this toolkit."""
        return arch in archlists.supported(self.archs, [int(part) for part in toolkit.split(".")])


@dataclass(frozen=True)
class Cell:
    """One job.  Fields that do not matter to its kind are empty.

    `toolkit` is the version torch names (`12.6`), `cuda` the release CI installs (`12.6.3`).
    """

    kind: Kind
    system: str
    runner: tuple[str, ...]
    python: str
    toolkit: str = ""
    cuda: str = ""
    arch: str = ""

    @property
    def name(self) -> str:
        parts = [self.system, f"Python {self.python}" if self.kind == "check" else ""]
        parts += [f"CUDA {self.toolkit}" if self.toolkit else "", f"sm_{squeezed(self.arch)}"]
        return ", ".join(part for part in parts if part not in ("", "sm_"))


@dataclass(frozen=True)
class Gap:
    """A combination that is asked for and does not exist."""

    toolkit: str
    arch: str
    reason: str


def squeezed(arch: str) -> str:
    """`86` for `8.6`, as compilers spell it."""
    return arch.replace(".", "")


def upstream(tag: str, read: Read) -> Upstream:
    """The facts of a tag whose files `read` gives; raises `BadFile` where they cannot be read."""
    project = tomli.loads(_text(read, "pyproject.toml"))
    needed = [Requirement(line) for line in project["build-system"]["requires"]]
    torch = [str(one.specifier) for one in needed if one.name == "torch"]
    if len(torch) != 1 or not torch[0].startswith("=="):
        raise BadFile("pyproject.toml", None, f"vLLM {tag} does not pin one torch to build with")
    lists = arch_lists(commands(_text(read, "CMakeLists.txt").encode()))
    if all(one.group != archlists.SUPPORTED for one in lists):
        raise BadFile("CMakeLists.txt", None, f"vLLM {tag} lists no CUDA architectures")
    pythons = SpecifierSet(project["project"]["requires-python"])
    return Upstream(tag, torch[0].removeprefix("=="), pythons, lists)


def _text(read: Read, path: str) -> str:
    data = read(path)
    if data is None:
        raise BadFile(path, None, "upstream has no such file")
    return data.decode("utf-8", "replace")


def combinations(plan: Plan, at: Upstream) -> tuple[list[tuple[str, str]], list[Gap]]:
    """The toolkit and architecture pairs that exist at the pin, and the gaps between them."""
    built = _torch_builds(plan, at)
    pairs: list[tuple[str, str]] = []
    gaps: list[Gap] = []
    for toolkit in plan.toolkits:
        for arch in plan.architectures:
            if toolkit not in built:
                gaps.append(Gap(toolkit, arch, f"torch {at.torch} has no build for CUDA {toolkit}"))
            elif not at.builds(toolkit, arch):
                gaps.append(Gap(toolkit, arch, f"not in upstream's list for CUDA {toolkit}"))
            else:
                pairs.append((toolkit, arch))
    return pairs, gaps


def _torch_builds(plan: Plan, at: Upstream) -> Sequence[str]:
    minor = ".".join(at.torch.split(".")[:2])
    if minor not in plan.torch:
        raise BadFile(
            PLAN_FILE,
            None,
            f"[torch] says nothing of torch {minor}, which vLLM {at.tag} builds with",
            hint="add the CUDA toolkits it is built with",
        )
    return plan.torch[minor]


def cells(plan: Plan, at: Upstream, kind: Kind, archs: Iterable[str] | None = None) -> list[Cell]:
    """The cells of one kind; `archs` keeps those architectures only (see `concerned`).

    Checks depend on the Python alone.  Compiled modules use Python's stable ABI, so everything
    else takes the lowest Python.
    """
    pythons = [one for one in plan.pythons if at.pythons.contains(one)]
    if kind == "check":
        return [
            Cell(kind, name, (system.runner,), python)
            for name, system in plan.systems.items()
            for python in pythons
        ]
    pairs, _ = combinations(plan, at)
    wanted = [pair for pair in pairs if archs is None or pair[1] in set(archs)]
    found: list[Cell] = []
    for name, system in plan.systems.items():
        if kind == "wheel" and name != "windows":
            continue  # for Linux upstream publishes them
        for toolkit, arch in wanted:
            if kind == "gpu" and toolkit != plan.gpu.toolkit:
                continue
            labels = [*plan.gpu.labels, name, f"sm-{squeezed(arch)}"]
            runner = tuple(labels) if kind == "gpu" else (system.runner,)
            release = plan.toolkits[toolkit].release
            found.append(Cell(kind, name, runner, pythons[0], toolkit, release, arch))
    return found


def concerned(plan: Plan, changed: Iterable[str], patches: Mapping[str, Patch]) -> list[str]:
    """The architectures that a change of the files `changed` can matter to.

    A patch concerns those its header names (`Archs:`), a text none, anything else all of them.
    `patches` are those of the series by their path in the repository.
    """
    named: set[str] = set()
    for path in changed:
        if path in patches:
            named |= set(parse(patches[path].header).archs)
        elif not _harmless(path):
            named.add("all")
    return [arch for arch in plan.architectures if "all" in named or arch in named]


def _harmless(path: str) -> bool:
    """Whether no compiled module can depend on the file."""
    return path.endswith(".md") or path.startswith(_UNCOMPILED)
