"""`kernel_tests/manifest.toml`: which kernels the series touches, and how each is built and tested.

The manifest is data.  This module gives it types, checks it against itself, and says which patch
of a compiled file no kernel claims; `series.py lint`, the audit and the kernel tests read it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portkit.errors import BadFile

MANIFEST_FILE = "kernel_tests/manifest.toml"
COMPILED = frozenset({".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"})
_GENERATOR = "generate_kernels.py"

Arch = Annotated[str, Field(pattern=r"^\d+\.\d[af]?$")]
Op = Annotated[str, Field(pattern=r"^_(C|C_cache_ops|moe_C)::\w+$")]


class Kernel(BaseModel):
    """One kernel, or a family of them that one file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    patches: tuple[str, ...] = Field(min_length=1)
    sources: tuple[str, ...] = Field(min_length=1, description="below the source tree")
    cases: str = Field(description="the test file, below kernel_tests/cases")
    ops: tuple[Op, ...] = Field(default=(), description="schemas are in torch_bindings.cpp")
    kind: Literal["ops", "python", "probe"] = Field(
        default="ops",
        description="a library of ops, a Python extension module, or our own file that includes "
        "upstream's header",
    )
    archs: tuple[Arch, ...] = Field(default=(), description="upstream's; empty is every one")
    dtypes: tuple[str, ...] = ()
    flags: tuple[str, ...] = Field(default=(), description="as in upstream's CMakeLists.txt")
    libraries: tuple[str, ...] = ()
    generator: str | None = Field(default=None, description="writes more sources into its folder")
    generated: tuple[str, ...] = Field(default=(), description="patterns of what it writes")
    upstream_tests: tuple[str, ...] = Field(default=(), description="pytest arguments")

    @property
    def units(self) -> tuple[str, ...]:
        """Those of the sources that nvcc compiles."""
        return tuple(source for source in self.sources if source.endswith(".cu"))

    def runs_on(self, arch: str) -> bool:
        """Whether upstream builds the kernel for `arch`."""
        return not self.archs or arch in self.archs


class Support(BaseModel):
    """Kernels that no patch touches, and that upstream's tests of the others call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[str, ...] = Field(min_length=1)
    ops: tuple[Op, ...] = Field(min_length=1)

    def as_kernel(self) -> Kernel:
        """The same as something to build."""
        return Kernel(about="", patches=("none",), sources=self.sources, cases="", ops=self.ops)


class Manifest(BaseModel):
    """All kernels by name, in the order of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernels: dict[str, Kernel]
    support: dict[str, Support] = {}
    elsewhere: dict[str, str] = Field(
        default={}, description="patches of compiled files that no GPU test can reach, and why"
    )

    @cached_property
    def claimed(self) -> Mapping[str, tuple[str, ...]]:
        """For each patch the kernels that name it."""
        found: dict[str, tuple[str, ...]] = {}
        for name, kernel in self.kernels.items():
            for patch in kernel.patches:
                found[patch] = (*found.get(patch, ()), name)
        return found


def load(root: Path) -> Manifest:
    """The manifest of the repository at `root`; raises `BadFile`."""
    file = root / MANIFEST_FILE
    try:
        data = tomli.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadFile(MANIFEST_FILE, None, "is missing") from None
    except tomli.TOMLDecodeError as error:
        raise BadFile(MANIFEST_FILE, None, str(error)) from None
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(MANIFEST_FILE, None, f"{place}: {first['msg']}") from None


def is_compiled(path: str) -> bool:
    """Whether upstream's `path` ends up in a compiled unit, itself or by what it generates."""
    file = PurePosixPath(path)
    return path.startswith("csrc/") and (file.suffix in COMPILED or file.name == _GENERATOR)


def unclaimed(manifest: Manifest, paths: Mapping[str, str]) -> frozenset[str]:
    """The patches (name to path of the file it changes) of compiled files that no kernel names."""
    known = {*manifest.claimed, *manifest.elsewhere}
    return frozenset(
        name for name, path in paths.items() if is_compiled(path) and name not in known
    )


def unknown(manifest: Manifest, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the manifest names and the series does not have: the kernel and the patch."""
    known = set(names)
    for patch, kernels in manifest.claimed.items():
        if patch not in known:
            yield kernels[0], patch
