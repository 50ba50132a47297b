"""The kernels under test in this process: those just built, or those of an installed vLLM."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from kernel_tests.build import Builder, Library, patched_side, upstream_side
from kernel_tests.trees import Trees
from portkit.errors import BadInput
from portkit.kernels.manifest import Kernel, Manifest

_LOADED: set[Path] = set()
_INSTALLED = ("vllm._C", "vllm._moe_C")


@dataclass
class Extensions:
    """Which library serves which kernel; `sides` are the prefixes of the ops (see `Bench`)."""

    sides: tuple[str, ...]
    libraries: dict[str, tuple[Path, ...]] = field(default_factory=dict)  # patched, upstream
    failures: dict[str, str] = field(default_factory=dict)

    def load(self, name: str, kernel: Kernel) -> tuple[ModuleType | None, ...]:
        """Load the libraries of `name`; modules for a Python extension, else None per side.

        Raises `BadInput` with the compiler's words for a kernel that was not built.
        """
        if name in self.failures:
            raise BadInput(f"{name} was not built: {self.failures[name]}")
        if name not in self.libraries:
            return self._installed(name, kernel)
        if kernel.kind == "python":
            return tuple(_module(path) for path in self.libraries[name])
        import torch  # noqa: PLC0415

        for path in self.libraries[name]:
            if path not in _LOADED:
                torch.ops.load_library(str(path))
                _LOADED.add(path)
        return tuple(None for _ in self.libraries[name])

    def _installed(self, name: str, kernel: Kernel) -> tuple[ModuleType | None, ...]:
        if kernel.kind == "python":
            return (importlib.import_module(f"vllm.{name}"),)
        import torch  # noqa: PLC0415

        for op in kernel.ops:
            library, _, plain = op.partition("::")
            if not hasattr(getattr(torch.ops, library), plain):
                raise BadInput(f"the installed vLLM has no {op}")
        return (None,)


def built(
    builder: Builder,
    trees: Trees,
    manifest: Manifest,
    names: Sequence[str],
    *,
    upstream: bool = True,
    jobs: int | None = None,
) -> Extensions:
    """Build the kernels `names` of both trees; what cannot be built is in `failures`."""
    sides = [patched_side(trees.patched), *([upstream_side(trees.upstream)] if upstream else [])]
    planned: dict[str, list[Library]] = {
        name: [builder.library(name, manifest.kernels[name], side) for side in sides]
        for name in names
    }
    failures = builder.build([one for libraries in planned.values() for one in libraries], jobs)
    found = Extensions(tuple(side.prefix for side in sides))
    for name, libraries in planned.items():
        failed = [failures[str(one.path)] for one in libraries if str(one.path) in failures]
        if failed:
            found.failures[name] = failed[0]
        else:
            found.libraries[name] = tuple(one.path for one in libraries)
    return found


def installed() -> Extensions:
    """The ops of the installed vLLM, without upstream's to compare with; raises `BadInput`."""
    for module in _INSTALLED:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise BadInput(
                f"{module} cannot be imported: {error}",
                hint="install the wheel into this Python, or test a build: --against build",
            ) from None
    return Extensions(("",))


def saved(found: Extensions, file: Path) -> Path:
    """Write which libraries there are to `file`, for another process to take."""
    libraries = {name: [str(path) for path in paths] for name, paths in found.libraries.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {"sides": found.sides, "libraries": libraries, "failures": found.failures}
    file.write_text(json.dumps(data), "utf-8")
    return file


def given(file: Path) -> Extensions:
    """The libraries that `saved` wrote to `file`; raises `BadInput`."""
    try:
        data = json.loads(file.read_text("utf-8"))
        libraries = {name: tuple(map(Path, paths)) for name, paths in data["libraries"].items()}
        return Extensions(tuple(data["sides"]), libraries, dict(data["failures"]))
    except (OSError, ValueError, KeyError, AttributeError):
        raise BadInput(f"{file} does not name libraries that were built") from None


@functools.cache
def _module(path: Path) -> ModuleType:
    """A Python extension module by path; each path is a module of its own, loaded once."""
    spec = importlib.util.spec_from_file_location("cumem_allocator", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
