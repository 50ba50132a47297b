"""The status page: patches by architectures, and what is known of each cell at the pin.

Nothing here runs a compiler or a GPU.  What was run elsewhere is read from the files its run wrote,
and holds only for the contents it was run on; a cell that nobody ran is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from portkit import header, kernelresults
from portkit.audit.verdict import Verdict
from portkit.ci.results import CompileResult
from portkit.kernelmanifest import Manifest
from portkit.kernelresults import Result
from portkit.model import Patch

Outcome = Literal["passed", "failed", "stale"]
SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One thing that ran: `where` is a system and toolkit, or a GPU."""

    where: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """One patch on one architecture; `concerned` is False where the patch has no part in it."""

    concerned: bool
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
    gpus: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `docs/status.json`."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Evidence:
    """What was run: results of compile cells and of GPU runs, and the manifest that names both."""

    root: Path
    manifest: Manifest
    compiled: Sequence[CompileResult]
    tested: Sequence[Result]


def status(
    tag: str,
    archs: Sequence[str],
    patches: Sequence[Patch],
    verdicts: Mapping[str, Verdict],
    evidence: Evidence,
) -> Status:
    """The page of `patches` at the release `tag`; `verdicts` are the audit's, by patch."""
    rows = tuple(_row(archs, patch, verdicts[patch.name], evidence) for patch in patches)
    gpus = tuple(sorted({_gpu(result) for result in evidence.tested}))
    return Status(tag, tuple(archs), rows, gpus)


def _row(archs: Sequence[str], patch: Patch, verdict: Verdict, evidence: Evidence) -> Row:
    kernels = evidence.manifest.claimed.get(patch.name, ())
    named = header.parse(patch.header).archs
    cells = {
        arch: Cell(
            bool(kernels) and not {"all", "none", arch}.isdisjoint(named),
            tuple(_compiled(kernels, arch, evidence)),
            tuple(_tested(kernels, arch, evidence)),
        )
        for arch in archs
    }
    found = (int(verdict.level), verdict.level.word, verdict.evidence or verdict.doubt)
    return Row(patch.name, patch.path, *found, cells)


def _compiled(kernels: Sequence[str], arch: str, evidence: Evidence) -> Iterator[Run]:
    for result in evidence.compiled:
        units = [one for one in result.units if one.kernel in kernels and one.arch == arch]
        if not units:
            continue
        where = f"{result.system}, CUDA {result.toolkit}"
        built = [name for name in kernels if name in result.sources]
        if any(result.sources[name] != _sources(evidence, name, result.tag) for name in built):
            yield Run(where, "stale", "run on other contents")
        elif failed := [unit for unit in units if unit.error]:
            yield Run(where, "failed", f"{failed[0].unit}: {failed[0].error}")
        else:
            yield Run(where, "passed", f"{len(units)} units")


def _sources(evidence: Evidence, kernel: str, tag: str) -> str:
    return kernelresults.sources_key(evidence.root, evidence.manifest.kernels[kernel], tag)


def _tested(kernels: Sequence[str], arch: str, evidence: Evidence) -> Iterator[Run]:
    for result in evidence.tested:
        ran = {name: result.kernels[name] for name in kernels if name in result.kernels}
        if result.gpu.capability != arch or not ran:
            continue
        outcomes = {name: kernel.outcome for name, kernel in ran.items()}
        failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
        passed = [name for name, outcome in outcomes.items() if outcome == "passed"]
        stale = set(kernelresults.stale(evidence.root, evidence.manifest, result))
        if stale.intersection(ran):
            yield Run(_gpu(result), "stale", "run on other contents")
        elif failed:
            yield Run(_gpu(result), "failed", ", ".join(failed))
        elif passed:
            yield Run(_gpu(result), "passed", ", ".join(passed))


def _gpu(result: Result) -> str:
    gpu = result.gpu
    return f"{gpu.name.removeprefix('NVIDIA ')}, CUDA {gpu.cuda}, torch {gpu.torch}"
