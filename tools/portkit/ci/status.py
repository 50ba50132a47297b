"""The status page: patches by architectures, and what is known of each cell at the pin.

Nothing here runs a compiler or a GPU.  What was run elsewhere is read from the files its run wrote,
and holds only for the contents it was run on; a cell that nobody ran is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from portkit.audit.verdict import Verdict
from portkit.ci.results import CompiledUnit, CompileResult
from portkit.kernels import results as kernelresults
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import Result
from portkit.model import Patch
from portkit.patches import header

Outcome = Literal["passed", "failed", "stale", "part"]
SCHEMA = 2


@dataclass(frozen=True)
class Run:
    """One thing that ran: `where` is a system and toolkit, or a GPU."""

    where: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """One patch on one architecture; `concerned` is False where the patch has no part in it.

    `units` is how many the compiler has for it: with none there is nothing to have compiled.
    """

    concerned: bool
    units: int = 0
    compiled: tuple[Run, ...] = ()
    tested: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Row:
    """One patch: it applies (else there is no page), its audit, its cells by architecture."""

    patch: str
    path: str
    level: int
    verdict: str
    evidence: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Status:
    """The page."""

    tag: str
    archs: tuple[str, ...]
    rows: tuple[Row, ...]
    compilers: tuple[str, ...]
    gpus: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `docs/status.json`."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Evidence:
    """What was run: results of compile cells and of GPU runs, and the manifest that names both.

    It holds for the release `tag` and for the patches of the repository at `root`.
    """

    root: Path
    tag: str
    manifest: Manifest
    compiled: Sequence[CompileResult]
    tested: Sequence[Result]


def status(
    archs: Sequence[str],
    patches: Sequence[Patch],
    verdicts: Mapping[str, Verdict],
    evidence: Evidence,
) -> Status:
    """The page of `patches`; `verdicts` are the audit's, by patch."""
    rows = tuple(_row(archs, patch, verdicts[patch.name], evidence) for patch in patches)
    gpus = tuple(sorted({_gpu(result) for result in evidence.tested}))
    compilers = tuple(sorted({_where(one, one.units) for one in evidence.compiled}))
    return Status(evidence.tag, tuple(archs), rows, compilers, gpus)


def _row(archs: Sequence[str], patch: Patch, verdict: Verdict, evidence: Evidence) -> Row:
    kernels = evidence.manifest.claimed.get(patch.name, ())
    named = header.parse(patch.header).archs

    def cell(arch: str) -> Cell:
        expected = _units(kernels, arch, evidence.manifest)
        return Cell(
            bool(kernels) and not {"all", "none", arch}.isdisjoint(named),
            len(expected),
            tuple(_compiled(expected, arch, evidence)),
            tuple(_tested(kernels, arch, evidence)),
        )

    cells = {arch: cell(arch) for arch in archs}
    found = (int(verdict.level), verdict.level.word, verdict.evidence or verdict.doubt)
    return Row(patch.name, patch.path, *found, cells)


def _units(kernels: Sequence[str], arch: str, manifest: Manifest) -> frozenset[tuple[str, str]]:
    """What has to compile for a patch: kernel and unit."""
    return frozenset(
        (name, unit)
        for name in kernels
        if manifest.kernels[name].runs_on(arch)
        for unit in manifest.kernels[name].units
    )


def _compiled(expected: Set[tuple[str, str]], arch: str, evidence: Evidence) -> Iterator[Run]:
    for result in evidence.compiled:
        units = [
            one for one in result.units if (one.kernel, one.unit) in expected and one.arch == arch
        ]
        if not units:
            continue
        where = _where(result, units)
        holding = {
            one.kernel
            for one in units
            if result.sources.get(one.kernel) == _sources(evidence, one.kernel)
        }
        failed = [one for one in units if one.error and one.kernel in holding]
        if failed:
            yield Run(where, "failed", f"{failed[0].unit}: {failed[0].error}")
        elif any(one.kernel not in holding for one in units):
            yield Run(where, "stale", "run on other contents")
        elif len(units) < len(expected):
            yield Run(where, "part", f"{len(units)} of {_count(len(expected))}")
        else:
            yield Run(where, "passed", _count(len(units)))


def _where(result: CompileResult, units: Sequence[CompiledUnit]) -> str:
    """`linux, CUDA 13.0 (nvcc 13.0.88, g++ 12.2.0)`: of the units, so every compiler is named."""
    compilers = " and ".join(sorted({one.compiler for one in units}))
    return f"{result.system}, CUDA {result.toolkit} ({compilers})"


def _count(units: int) -> str:
    return f"{units} unit" if units == 1 else f"{units} units"


def _sources(evidence: Evidence, kernel: str) -> str:
    manifest, root = evidence.manifest, evidence.root
    return kernelresults.sources_key(root, manifest.kernels[kernel], evidence.tag)


def _tested(kernels: Sequence[str], arch: str, evidence: Evidence) -> Iterator[Run]:
    """What GPUs said; of other releases only where there is nothing for this one."""
    ran = [
        (result, {name: result.kernels[name] for name in kernels if name in result.kernels})
        for result in evidence.tested
        if result.gpu.capability == arch
    ]
    now = any(found for result, found in ran if result.tag == evidence.tag)
    for result, found in ran:
        if not found or (now and result.tag != evidence.tag):
            continue
        outcomes = {name: kernel.outcome for name, kernel in found.items()}
        failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
        passed = [name for name, outcome in outcomes.items() if outcome == "passed"]
        stale = set(kernelresults.stale(evidence.root, evidence.manifest, result))
        if result.tag != evidence.tag:
            yield Run(_gpu(result), "stale", f"run on {result.tag}")
        elif stale.intersection(found):
            yield Run(_gpu(result), "stale", "run on other contents")
        elif failed:
            yield Run(_gpu(result), "failed", ", ".join(failed))
        elif passed:
            yield Run(_gpu(result), "passed", ", ".join(passed))


def _gpu(result: Result) -> str:
    gpu = result.gpu
    return f"{gpu.name.removeprefix('NVIDIA ')}, CUDA {gpu.cuda}, torch {gpu.torch}"
