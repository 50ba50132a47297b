"""Building kernels for a test: every object once, named by the content of all that made it.

An object's name is the hash of its source and every header of the tree it includes, its flags,
archs and toolchain.  What is there is not built again, whatever built it: upstream's and the
patched tree share each unit that is the same in both, and a broken-off build goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kernel_tests import bindings
from kernel_tests.toolchain import Toolchain, gencode, ninja
from kernel_tests.trees import BRANCH, generated
from portkit.errors import BadInput, Unavailable
from portkit.kernels.manifest import Kernel

PROBES = Path(__file__).parent / "probes"
_WINDOWS = PROBES / "windows"  # headers of the Windows SDK that a Windows branch includes
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)
_GIB_PER_JOB = 3.0


@dataclass(frozen=True)
class Side:
    """One of the two builds; its ops are in libraries named `prefix` + upstream's name."""

    name: str
    tree: Path
    prefix: str
    defines: tuple[str, ...] = ()


def patched_side(tree: Path) -> Side:
    """The patched source; its ops carry upstream's names, as in an installed vLLM."""
    return Side("patched", tree, "", (f"-D{BRANCH}=1",))


def upstream_side(tree: Path) -> Side:
    """Upstream's own source, beside the patched one."""
    return Side("upstream", tree, "upstream")


def upstream_alone(tree: Path) -> Side:
    """Upstream's own source in a process of its own, under upstream's names."""
    return Side("upstream-alone", tree, "")


@dataclass(frozen=True)
class Unit:
    """A translation unit: `source` lies in `root`, and what it includes in `root` or `includes`."""

    root: Path
    source: Path
    includes: tuple[Path, ...]
    flags: tuple[str, ...]

    @cached_property
    def sources(self) -> dict[str, bytes]:
        """The source and every header it includes that is not the toolchain's, by relative path."""
        found: dict[str, bytes] = {}
        waiting = [self.source]
        while waiting:
            file = waiting.pop()
            name = _relative(file, (self.root, *self.includes))
            if name in found:
                continue
            found[name] = file.read_bytes()
            for included in _INCLUDE.findall(found[name]):
                for folder in (file.parent, *self.includes):
                    header = Path(os.path.normpath(folder / os.fsdecode(included)))
                    if header.is_file():
                        waiting.append(header)
                        break
        return found

    def key(self, archs: Sequence[str], fingerprint: str) -> str:
        digest = hashlib.sha256()
        for name, data in sorted(self.sources.items()):
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        digest.update("\0".join((*self.flags, *archs, fingerprint)).encode())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Library:
    """A kernel's shared library of one side."""

    kernel: str
    side: Side
    units: tuple[Unit, ...]
    objects: tuple[Path, ...]
    path: Path
    links: tuple[str, ...]


@dataclass(frozen=True)
class Builder:
    """Builds libraries into `cache`, for `archs`."""

    toolchain: Toolchain
    archs: tuple[str, ...]
    cache: Path

    def library(self, name: str, kernel: Kernel, side: Side) -> Library:
        """The library of `kernel` as it will be; nothing is built yet."""
        units = tuple(self._units(name, kernel, side))
        objects = tuple(
            self.cache / "objects" / f"{unit.key(self.archs, self.toolchain.fingerprint)}.o"
            for unit in units
        )
        key = hashlib.sha256("\n".join(file.stem for file in objects).encode()).hexdigest()[:16]
        folder = self.cache / "libraries" / key
        file = "cumem_allocator.so" if kernel.kind == "python" else f"{name}-{side.name}.so"
        return Library(name, side, units, objects, folder / file, kernel.libraries)

    def build(self, libraries: Iterable[Library], jobs: int | None = None) -> dict[str, str]:
        """Build what is missing, all that can be built; the failures, by library's path.

        Raises `Unavailable` when ninja cannot run.
        """
        wanted = [library for library in libraries if not library.path.exists()]
        if not wanted:
            return {}
        (self.cache / "objects").mkdir(parents=True, exist_ok=True)
        text = self._ninja(wanted)
        # Two builds at a time have a folder each.
        folder = self.cache / "builds" / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(text, "utf-8")
        command = [ninja(), "-C", str(folder), "-k", "0", "-j", str(jobs or default_jobs())]
        # Progress is for a person; stdout may be JSON.
        done = subprocess.run(command, check=False, stdout=sys.stderr)
        if done.returncode < 0:
            raise Unavailable(f"ninja was stopped by signal {-done.returncode}")
        return {
            str(library.path): _failure(library) for library in wanted if not library.path.exists()
        }

    def _units(self, name: str, kernel: Kernel, side: Side) -> Iterable[Unit]:
        tree = side.tree
        csrc = tree / "csrc"
        includes = (csrc, csrc / "moe") if _module(kernel) == "_moe_C" else (csrc,)
        if kernel.kind == "python":
            includes = (csrc, _WINDOWS)
        sources = [*kernel.sources, *generated(tree, kernel.generated)]
        if kernel.kind == "probe":
            sources = []
            yield self._unit(PROBES, PROBES / kernel.sources[0], includes, kernel, side)
        for source in sources:
            yield self._unit(tree, tree / source, includes, kernel, side)
        if kernel.ops:
            text = bindings.write(tree, kernel.ops, side.prefix)
            file = self.cache / "bindings" / side.name / f"{name}.cpp"
            _write_if_other(file, text)
            yield self._unit(self.cache / "bindings" / side.name, file, includes, kernel, side)

    def _unit(
        self, root: Path, source: Path, includes: tuple[Path, ...], kernel: Kernel, side: Side
    ) -> Unit:
        flags = [*kernel.flags] if source.suffix == ".cu" else []
        text = source.read_bytes()
        # Only where it matters: a unit that is the same in both trees is to be one object.
        if b"TORCH_EXTENSION_NAME" in text:
            flags.append(f"-DTORCH_EXTENSION_NAME={side.prefix}{_module(kernel)}")
        unit = Unit(root, source, includes, (*self.toolchain.flags, *flags))
        if any(BRANCH.encode() in data for data in unit.sources.values()):
            return Unit(root, source, includes, (*unit.flags, *side.defines))
        return unit

    def _ninja(self, libraries: Sequence[Library]) -> str:
        # A compiler's words go to a file, and an object gets its name when it is whole.
        lines = [
            f"nvcc = {_escape(self.toolchain.nvcc)}",
            "rule compile",
            "  command = $nvcc $flags -c $in -o $out.part.o > $out.log 2>&1 && mv $out.part.o $out",
            "  description = compile $name",
            "rule link",
            "  command = g++ -shared -o $out.part $in $links > $out.log 2>&1 && mv $out.part $out",
            "  description = link $name",
        ]
        stated: set[Path] = set()
        for library in libraries:
            for unit, file in zip(library.units, library.objects, strict=True):
                if file.exists() or file in stated:
                    continue
                stated.add(file)
                lines += [
                    f"build {_escape(file)}: compile {_escape(unit.source)}",
                    f"  flags = {_shell(self._compile_flags(unit))}",
                    f"  name = {library.side.name} {unit.source.name}",
                ]
            library.path.parent.mkdir(parents=True, exist_ok=True)
            links = self.toolchain.link_arguments(library.links)
            lines += [
                f"build {_escape(library.path)}: link {' '.join(map(_escape, library.objects))}",
                f"  links = {_shell(links)}",
                f"  name = {library.side.name} {library.kernel}",
            ]
        return "\n".join(lines) + "\n"

    def _compile_flags(self, unit: Unit) -> list[str]:
        folders = [*unit.includes, *self.toolchain.includes]
        return [*unit.flags, *gencode(self.archs), *(f"-I{folder}" for folder in folders)]


def default_jobs() -> int:
    """As many compilers as the processors and the memory carry."""
    count = os.cpu_count() or 1
    try:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError):
        return count
    return max(1, min(count, int(gib / _GIB_PER_JOB)))


def _module(kernel: Kernel) -> str:
    library = kernel.ops[0].partition("::")[0] if kernel.ops else "_C"
    return "_moe_C" if library == "_moe_C" else "_C"


def _failure(library: Library) -> str:
    """The first error of the compiler or the linker."""
    for file in (*library.objects, library.path):
        if file.exists():
            continue
        log = file.with_name(f"{file.name}.log")
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        lines = [line for line in text.splitlines() if "error" in line.lower()]
        if lines or text.strip():
            return (lines or text.strip().splitlines())[0]
    return "not built"


def _relative(file: Path, folders: Iterable[Path]) -> str:
    for folder in folders:
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    raise BadInput(f"{file} is included from outside the source tree")


def _write_if_other(file: Path, text: str) -> None:
    if not file.exists() or file.read_text("utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def _escape(path: Path | str) -> str:
    return re.sub(r"([$ :])", r"$\1", str(path))


def _shell(arguments: Sequence[str]) -> str:
    import shlex  # noqa: PLC0415

    return shlex.join(arguments).replace("$", "$$")
