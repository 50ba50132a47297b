"""Without a GPU: does every patched unit compile, for every arch that the toolkit knows?

No torch is installed for it: the headers come from the wheel of torch's CUDA build, of the version
that upstream pins, and are cached, as is what nvcc made of each unit, by content.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_tests import run as kernel_run
from kernel_tests.build import PROBES
from kernel_tests.trees import BRANCH, Trees, open_prepared
from portkit import archlists, console, kernelresults
from portkit import pin as pinfile
from portkit.cmakefile import commands
from portkit.cuda import nvcc, toolkits, torchheaders
from portkit.cuda.includes import Includes
from portkit.cuda.toolkits import Toolkit
from portkit.errors import Exit, PortError, Unavailable
from portkit.kernelmanifest import Kernel, Manifest
from portkit.model import Event, Events

_INCLUDES = ("csrc", "csrc/moe")


@dataclass(frozen=True)
class Compiled:
    """One unit for one arch: `error` is the compiler's first word about it, or empty.

    `digest` is of all that was compiled and how, on any machine; `compiler` names who did it.
    """

    kernel: str
    unit: str
    arch: str
    digest: str
    compiler: str
    cached: bool = False
    error: str = ""


def main(root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace) -> int:
    """Compile the patched units of `names`; 1 when one does not compile."""
    toolkit = toolkits.first()
    if toolkit is None:
        raise Unavailable("no CUDA toolkit with nvcc was found", hint="set CUDA_HOME")
    # Always the source of a build for all archs: what is generated depends on them, and the same
    # unit shall be the same whichever archs are asked for.
    known = toolkit_archs(toolkit, _cmake(root, given.trees))
    archs = known if given.archs == "native" else kernel_run.archs_of(given.archs)
    cache = kernel_run.cache_of(given.cache)
    trees = kernel_run.source(root, manifest, known, given.trees, cache)
    requirements = (trees.upstream / torchheaders.REQUIREMENTS).read_bytes()
    with console.progress() as events:
        version = torchheaders.pinned_torch(requirements)
        environment = nvcc.environment(toolkit, version, events=events)
        jobs = given.jobs or os.cpu_count() or 1
        results = compile_all(environment, version, trees, manifest, names, archs, jobs, events)
    failed = [one for one in results if one.error]
    if given.json:
        units = [vars(one) for one in results]
        sources = {
            name: kernelresults.sources_key(root, manifest.kernels[name], trees.tag)
            for name in names
        }
        console.print_json(
            "kernel-tests",
            {
                "tag": trees.tag,
                "toolkit": str(toolkit.version),
                "archs": [*archs],
                "sources": sources,
                "units": units,
            },
        )
    else:
        for one in failed:
            print(f"{one.kernel}: {one.unit} for {one.arch}: {one.error}")
        cached = sum(one.cached for one in results)
        print(
            f"{len(results)} compilations for {', '.join(archs)}: {len(results) - len(failed)} "
            f"succeed, {cached} of them cached; {len(failed)} fail"
        )
    return Exit.WAITING if failed else Exit.OK


def toolkit_archs(toolkit: Toolkit, cmake: bytes) -> tuple[str, ...]:
    """The archs that upstream's CMakeLists.txt builds for and the toolkit compiles for."""
    taken = archlists.supported(archlists.arch_lists(commands(cmake)), toolkit.version.release)
    return tuple(arch for arch in taken if arch in toolkit.archs)


def _cmake(root: Path, prepared: Path | None) -> bytes:
    """CMakeLists.txt as upstream has it: of the prepared source, else of the pin."""
    if prepared is not None:
        return (open_prepared(prepared).upstream / "CMakeLists.txt").read_bytes()
    from portkit.pristine import Pristine  # noqa: PLC0415

    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, progress=console.progress) as pristine:
        return pristine.read("CMakeLists.txt") or b""


def compile_all(
    environment: nvcc.Environment,
    torch: str,
    trees: Trees,
    manifest: Manifest,
    names: Sequence[str],
    archs: Sequence[str],
    jobs: int,
    events: Events,
) -> list[Compiled]:
    """Compile each patched unit of `names`, with our Windows branches on, for each of `archs`.

    Only for archs that upstream builds the kernel for.  Generated kernels are upstream's own to the
    byte, which a test of the series proves; the unit that selects among them is compiled.
    """
    wanted = [
        (name, manifest.kernels[name], source, arch)
        for name in names
        for source in manifest.kernels[name].sources
        for arch in archs
        if manifest.kernels[name].runs_on(arch) and source.endswith(".cu")
    ]
    done: list[Compiled] = []
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(lambda item: _compiled(environment, torch, trees, *item), wanted):
            done.append(one)
            events(Event("compiling", len(done), len(wanted), "units"))
    return done


def _compiled(
    environment: nvcc.Environment,
    torch: str,
    trees: Trees,
    name: str,
    kernel: Kernel,
    source: str,
    arch: str,
) -> Compiled:
    flags = (*nvcc.COMMON_FLAGS, f"-D{BRANCH}=1", *kernel.flags)
    folders = (trees.patched, PROBES)

    def read(path: str) -> bytes | None:
        files = (folder / path for folder in folders)
        return next((file.read_bytes() for file in files if file.is_file()), None)

    closure = Includes(read, _INCLUDES).closure(source)
    asked = nvcc.asked(closure, arch, folders=_INCLUDES, flags=flags)
    digest = hashlib.sha256("\n".join((f"torch {torch}", *asked)).encode()).hexdigest()[:32]
    compiler = f"nvcc {environment.toolkit.version}, {nvcc.host_compiler()}"
    made = Compiled(name, source, arch, digest, compiler)
    try:
        _, cached = nvcc.compile_unit(closure, arch, environment, folders=_INCLUDES, flags=flags)
    except PortError as error:
        return replace(made, error=error.message)
    return replace(made, cached=cached)
