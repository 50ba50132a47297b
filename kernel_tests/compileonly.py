"""Without a GPU: does every patched unit compile, for every arch that upstream builds for?

No torch is installed for it: the headers come from the wheel of torch's CUDA build, of the version
that upstream pins, and are cached, as is what nvcc made of each unit, by content.  What was found
is recorded by content too, in `ci/results`: with `--recorded` only what is not is compiled.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernel_tests import run as kernel_run
from kernel_tests.compiling import Compiled, Unit, settle, units
from kernel_tests.trees import open_prepared
from portkit.ci import results
from portkit.ci.results import CompiledUnit, CompileResult
from portkit.cuda import nvcc, toolkits, torchheaders
from portkit.cuda.toolkits import Toolkit
from portkit.errors import Exit, Unavailable
from portkit.face import console
from portkit.kernels import results as kernelresults
from portkit.kernels.manifest import Manifest
from portkit.patches import pin as pinfile
from portkit.text import archlists
from portkit.text.cmakefile import commands


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
    version = torchheaders.pinned_torch((trees.upstream / torchheaders.REQUIREMENTS).read_bytes())
    release = ".".join(str(part) for part in toolkit.version.release[:2])
    before = results.known(results.read_all(root), "linux", release) if given.recorded else []
    with console.progress() as events:
        wanted = units(trees, manifest, names, archs, version)
        done = settle(
            wanted,
            {one.digest: one.compiler for one in before if not one.error},
            nvcc.environment(toolkit, version, events=events),
            patient=_changed(wanted, before),
            budget=given.budget,
            jobs=given.jobs or os.cpu_count() or 1,
            events=events,
        )
    sources = {
        name: kernelresults.sources_key(root, manifest.kernels[name], trees.tag) for name in names
    }
    found = CompileResult(
        system="linux", toolkit=release, tag=trees.tag, archs=tuple(archs), sources=sources,
        units=tuple(_as_unit(one) for one in done if one.how != "left"),
    )  # fmt: skip
    if given.record:
        results.record(root, found, {unit.digest for unit in wanted})
    if given.json:
        left = [{"unit": one.unit.path, "arch": one.unit.arch} for one in _left(done)]
        console.print_json("kernel-tests", {**found.model_dump(), "left": left})
    else:
        _show(done, archs)
    return Exit.WAITING if any(one.error for one in done) else Exit.OK


def toolkit_archs(toolkit: Toolkit, cmake: bytes) -> tuple[str, ...]:
    """The archs that upstream's CMakeLists.txt builds for and the toolkit compiles for."""
    taken = archlists.supported(archlists.arch_lists(commands(cmake)), toolkit.version.release)
    return tuple(arch for arch in taken if arch in toolkit.archs)


def _cmake(root: Path, prepared: Path | None) -> bytes:
    """CMakeLists.txt as upstream has it: of the prepared source, else of the pin."""
    if prepared is not None:
        return (open_prepared(prepared).upstream / "CMakeLists.txt").read_bytes()
    from portkit.upstream.pristine import Pristine  # noqa: PLC0415

    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, progress=console.progress) as pristine:
        return pristine.read("CMakeLists.txt") or b""


def _changed(wanted: Sequence[Unit], before: Sequence[CompiledUnit]) -> frozenset[Unit]:
    """The units that are recorded with other contents only: what a budget does not spare."""
    names = {(one.kernel, one.unit, one.arch) for one in before}
    return frozenset(unit for unit in wanted if (unit.kernel, unit.path, unit.arch) in names)


def _as_unit(one: Compiled) -> CompiledUnit:
    unit = one.unit
    return CompiledUnit(
        kernel=unit.kernel, unit=unit.path, arch=unit.arch, digest=unit.digest,
        compiler=one.compiler, error=one.error,
    )  # fmt: skip


def _left(done: Sequence[Compiled]) -> list[Compiled]:
    return [one for one in done if one.how == "left"]


def _show(done: Sequence[Compiled], archs: Sequence[str]) -> None:
    for one in done:
        if one.error:
            print(f"{one.unit.kernel}: {one.unit.path} for {one.unit.arch}: {one.error}")
    for arch in archs:
        names = [Path(one.unit.path).name for one in _left(done) if one.unit.arch == arch]
        if names:
            print(f"{arch}: {len(names)} not recorded and not compiled here: {', '.join(names)}")
    print(summary(done, archs))


def summary(done: Sequence[Compiled], archs: Sequence[str]) -> str:
    """One sentence: how many units, and what came of them."""
    hows: Mapping[str, int] = Counter(one.how for one in done)
    failed = sum(bool(one.error) for one in done)
    said = [
        f"{hows['recorded']} recorded",
        f"{hows['compiled'] + hows['cached']} compiled here ({hows['cached']} of them cached)",
        f"{hows['left']} not compiled",
    ]
    return f"{len(done)} units for {', '.join(archs)}: {', '.join(said)}; {failed} fail"
