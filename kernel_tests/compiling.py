"""Patched units, each for one arch: what names one on any machine, and compiling many of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from kernel_tests.build import PROBES
from kernel_tests.trees import BRANCH, Trees
from portkit.cuda import nvcc
from portkit.cuda.includes import Closure, Includes
from portkit.errors import IntegrityError
from portkit.kernels.manifest import Manifest
from portkit.model import Event, Events

_INCLUDES = ("csrc", "csrc/moe")
How = Literal["recorded", "cached", "compiled", "left"]


@dataclass(frozen=True)
class Unit:
    """One unit for one arch; `digest` is of all that is compiled and how, whatever the machine."""

    kernel: str
    path: str
    arch: str
    closure: Closure
    flags: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Compiled:
    """What came of a unit: `error` is the compiler's first word about it, or empty.

    `how` is `left` for a unit there was no time for; nobody compiled that, so `compiler` is empty.
    """

    unit: Unit
    how: How
    compiler: str = ""
    error: str = ""


def units(
    trees: Trees, manifest: Manifest, names: Sequence[str], archs: Sequence[str], torch: str
) -> tuple[Unit, ...]:
    """Each patched unit of `names`, with our Windows branches on, for each of `archs`.

    Only for archs that upstream builds the kernel for.  Generated kernels are upstream's own to the
    byte, which a test of the series proves; the unit that selects among them is one.
    """
    folders = (trees.patched, PROBES)

    def read(path: str) -> bytes | None:
        files = (folder / path for folder in folders)
        return next((file.read_bytes() for file in files if file.is_file()), None)

    includes = Includes(read, _INCLUDES)
    closures = {
        path: includes.closure(path) for name in names for path in manifest.kernels[name].units
    }

    def unit(name: str, path: str, arch: str) -> Unit:
        closure = closures[path]
        flags = (*nvcc.COMMON_FLAGS, f"-D{BRANCH}=1", *manifest.kernels[name].flags)
        asked = nvcc.asked(closure, arch, folders=_INCLUDES, flags=flags)
        text = "\n".join((f"torch {torch}", *asked))
        return Unit(
            name, path, arch, closure, flags, hashlib.sha256(text.encode()).hexdigest()[:32]
        )

    return tuple(
        unit(name, path, arch)
        for arch in archs
        for name in names
        if manifest.kernels[name].runs_on(arch)
        for path in manifest.kernels[name].units
    )


def settle(
    wanted: Sequence[Unit],
    recorded: Mapping[str, str],
    environment: nvcc.Environment,
    *,
    patient: frozenset[Unit] = frozenset(),
    budget: float | None = None,
    jobs: int,
    events: Events,
) -> list[Compiled]:
    """Compile those of `wanted` that are not recorded, in order.

    `recorded` has compilers by digest.  After `budget` seconds no further unit is begun but the
    `patient` ones, which are compiled however long it takes.
    """
    ends = None if budget is None else time.monotonic() + budget
    compiler = f"nvcc {environment.toolkit.version}, {nvcc.host_compiler()}"

    def one(unit: Unit) -> Compiled:
        if unit.digest in recorded:
            return Compiled(unit, "recorded", recorded[unit.digest])
        if ends is not None and unit not in patient and time.monotonic() > ends:
            return Compiled(unit, "left")
        try:
            _, cached = nvcc.compile_unit(
                unit.closure, unit.arch, environment, folders=_INCLUDES, flags=unit.flags
            )
        except (nvcc.DoesNotCompile, IntegrityError) as error:
            return Compiled(unit, "compiled", compiler, error.message)
        return Compiled(unit, "cached" if cached else "compiled", compiler)

    first = sorted(wanted, key=lambda unit: unit not in patient)
    done: list[Compiled] = []
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(one, first):
            done.append(result)
            events(Event("compiling", len(done), len(wanted), "units"))
    return done
