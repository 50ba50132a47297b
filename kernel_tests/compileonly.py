"""Without a GPU: does every patched unit compile, for every arch that the toolkit knows?

No torch is installed for it.  The headers come from the wheel of torch's CUDA build, of the version
that upstream pins, and are cached; so is every object, by content.
"""

from __future__ import annotations

import argparse
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kernel_tests import run as kernel_run
from kernel_tests.build import Builder, Unit, patched_side
from kernel_tests.toolchain import HEADER_FLAGS, Toolchain, gencode
from kernel_tests.trees import Trees
from portkit import console
from portkit.cuda import mathheaders, toolkits, torchheaders
from portkit.errors import Exit, Unavailable
from portkit.kernelmanifest import Manifest
from portkit.model import Event, Events


@dataclass(frozen=True)
class Compiled:
    """One unit of one kernel: `error` is the compiler's first word about it, or empty."""

    kernel: str
    unit: str
    cached: bool
    error: str = ""


def main(root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace) -> int:
    """Compile the patched units of `names`; 1 when one does not compile."""
    toolkit = toolkits.first()
    if toolkit is None:
        raise Unavailable("no CUDA toolkit with nvcc was found", hint="set CUDA_HOME")
    archs = plain_archs(toolkit.archs) if given.archs == "native" else _asked(given.archs)
    cache = kernel_run.cache_of(given.cache)
    trees = kernel_run.source(root, manifest, archs, given.trees, cache)
    with console.progress() as events:
        builder = Builder(with_headers(toolkit, trees, events), archs, cache)
        results = compile_all(builder, trees, manifest, names, given.jobs or 1, events)
    failed = [one for one in results if one.error]
    if given.json:
        units = [vars(one) for one in results]
        console.print_json("kernel-tests", {"archs": [*archs], "units": units})
    else:
        for one in failed:
            print(f"{one.kernel}: {one.unit}: {one.error}")
        cached = sum(one.cached for one in results)
        print(
            f"{len(results)} units for {', '.join(archs)}: {len(results) - len(failed)} compile"
            f"{f', {cached} of them cached' if cached else ''}, {len(failed)} do not"
        )
    return Exit.WAITING if failed else Exit.OK


def plain_archs(archs: Sequence[str]) -> tuple[str, ...]:
    """The archs that all kernels can be built for: those without a letter."""
    return tuple(arch for arch in archs if arch[-1].isdigit())


def with_headers(toolkit: toolkits.Toolkit, trees: Trees, events: Events) -> Toolchain:
    """A toolchain that compiles and cannot link: the toolkit and the headers of torch."""
    requirements = (trees.upstream / torchheaders.REQUIREMENTS).read_bytes()
    version = torchheaders.pinned_torch(requirements)
    torch = torchheaders.torch_headers(version, events=events)
    return Toolchain(
        nvcc=toolkit.nvcc,
        flags=HEADER_FLAGS,
        includes=(
            *torchheaders.torch_includes(torch),
            toolkit.include,
            *mathheaders.includes(toolkit, events=events),
            Path(sysconfig.get_paths()["include"]),
        ),
        library_folders=(),
        fingerprint=f"nvcc {toolkit.version} torch {version} headers",
    )


def compile_all(
    builder: Builder,
    trees: Trees,
    manifest: Manifest,
    names: Sequence[str],
    jobs: int,
    events: Events,
) -> list[Compiled]:
    """Compile each patched unit of `names` for the builder's archs that upstream builds it for.

    Generated kernels are upstream's own to the byte, which a test of the series proves; the unit
    that selects among them is compiled.
    """
    side = patched_side(trees.patched)
    wanted: list[tuple[str, Unit, tuple[str, ...]]] = []
    for name in names:
        kernel = manifest.kernels[name]
        plain = kernel.model_copy(update={"generated": ()})
        archs = tuple(arch for arch in builder.archs if kernel.runs_on(arch))
        if archs:
            wanted += [(name, unit, archs) for unit in builder.units(name, plain, side)]
    done: list[Compiled] = []
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(lambda item: _compiled(builder, *item), wanted):
            done.append(one)
            events(Event("compiling", len(done), len(wanted), "units"))
    return done


def _compiled(builder: Builder, name: str, unit: Unit, archs: tuple[str, ...]) -> Compiled:
    label = unit.source.name
    mark = builder.cache / "compiled" / unit.key(archs, builder.toolchain.fingerprint)
    if mark.exists():
        return Compiled(name, label, cached=True)
    with tempfile.TemporaryDirectory(prefix="kernel-tests-") as scratch:
        folders = [*unit.includes, *builder.toolchain.includes]
        command = [
            str(builder.toolchain.nvcc), *unit.flags, *gencode(archs),
            *(f"-I{folder}" for folder in folders), "-c", str(unit.source),
            "-o", str(Path(scratch) / "unit.o"),
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        return Compiled(name, label, cached=False, error=(lines or ["no message"])[0])
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return Compiled(name, label, cached=False)


def _asked(text: str) -> tuple[str, ...]:
    return kernel_run.archs_of(text)
