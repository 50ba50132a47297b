"""`kernel_tests/results/*.json`: what a GPU said about the kernels, and whether it still holds.

A run of the kernel tests writes one file per GPU; nobody writes one by hand.  A result of a kernel
holds as long as its patched sources, the tests and the manifest are those it was made with: their
hashes are in the file, and `stale` compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portkit.change import durable
from portkit.errors import BadFile
from portkit.kernels.manifest import MANIFEST_FILE, Kernel, Manifest
from portkit.patches.patchfile import SERIES_FOLDER

RESULTS_FOLDER = "kernel_tests/results"
SCHEMA = 1
_SHARED_TESTS = ("bench.py", "numeric.py", "cases/marlin_formats.py")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Record):
    """The machine that the run used."""

    name: str
    capability: str = Field(description="compute capability, as `9.0`")
    driver: str
    cuda: str = Field(description="of the toolkit, or of torch for an installed vLLM")
    torch: str
    python: str


class Check(_Record):
    """One comparison: `error` in units of what is allowed, 1 being the limit."""

    what: str
    error: float
    allowed: str


class Timing(_Record):
    """Medians in microseconds: patched, upstream, and upstream against itself."""

    op: str
    what: str
    patched: float
    upstream: float
    again: float

    @property
    def ratio(self) -> float:
        return self.patched / self.upstream

    @property
    def noise(self) -> float:
        """How far upstream is from itself."""
        return abs(self.again / self.upstream - 1.0)

    @property
    def slower(self) -> bool:
        """Whether the patched kernel is slower than 1.02 of upstream's beyond the noise."""
        return self.ratio > 1.02 + self.noise


class Case(_Record):
    """One test case."""

    case: str
    outcome: Literal["passed", "failed", "skipped"]
    seconds: float
    message: str = ""
    checks: tuple[Check, ...] = ()
    timings: tuple[Timing, ...] = ()


class UpstreamTests(_Record):
    """What upstream's own tests of the kernel said about the patched build."""

    passed: int
    failed: int
    skipped: int
    broken: int = Field(default=0, description="not set up: a package is missing, say")
    failures: tuple[str, ...] = ()


class KernelResult(_Record):
    """All about one kernel; `sources` and `tests` are what it holds for."""

    sources: str = Field(description="hash of the patches and what they apply to")
    tests: str = Field(description="hash of the case file, its references and its helpers")
    cases: tuple[Case, ...]
    upstream_tests: UpstreamTests | None = None

    @property
    def outcome(self) -> Literal["passed", "failed", "not run"]:
        """`passed` if some case did and none failed."""
        outcomes = [case.outcome for case in self.cases]
        if "failed" in outcomes or any(t.slower for case in self.cases for t in case.timings):
            return "failed"
        return "passed" if "passed" in outcomes else "not run"


class Mutant(_Record):
    """A wrong variant of a patch, and which case noticed it."""

    name: str
    patch: str
    kernel: str
    killed: bool
    by: str = Field(default="", description="the first case that failed, or how it did not build")


class Sanitizer(_Record):
    """A run of compute-sanitizer."""

    tool: str
    cases: int = Field(description="that ran and passed under the tool")
    errors: int = Field(description="-1 when the tool did not get to its summary")
    summary: str
    upstream: int | None = Field(
        default=None, description="errors of upstream's build on the same cases"
    )
    upstream_summary: str = ""

    @property
    def worse(self) -> bool:
        """Whether the patched build has more errors than upstream's, as far as that is known."""
        return self.errors != 0 and (self.upstream is None or self.errors > self.upstream)


class Engine(_Record):
    """A tiny model in vLLM's in-process engine, on the patched build and on upstream's."""

    model: str
    tokens: int = Field(description="that it said greedily")
    distinct: int = Field(description="different tokens among them")
    equal: bool = Field(description="upstream's build said the same tokens")
    difference: float = Field(description="largest, of the tokens' log-probabilities")
    ops: tuple[str, ...] = Field(default=(), description="compiled ops that it called")
    message: str = Field(default="", description="why it said nothing")


class Result(_Record):
    """One file."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    tag: str = Field(description="upstream's release")
    date: str
    seed: int
    against: Literal["build", "installed"]
    gpu: Gpu
    kernels: dict[str, KernelResult]
    mutants: tuple[Mutant, ...] = ()
    sanitizer: tuple[Sanitizer, ...] = ()
    engine: tuple[Engine, ...] = ()

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def read(file: Path) -> Result:
    """One result file; raises `BadFile`."""
    try:
        return Result.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BadFile(file.name, None, (error.strerror or str(error)).lower()) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(
            file.name, None, f"{place}: {first['msg']}", hint="run the kernel tests again"
        ) from None


def read_all(root: Path) -> dict[str, Result]:
    """The results of the repository at `root`, by file name; raises `BadFile`."""
    folder = root / RESULTS_FOLDER
    return {file.name: read(file) for file in sorted(folder.glob("*.json"))}


def write(file: Path, result: Result) -> None:
    """Write a result file, whole or not at all."""
    text = result.model_dump_json(indent=1, by_alias=True, exclude_defaults=True)
    durable.put(file, (text + "\n").encode())


def file_name(gpu: Gpu, tag: str) -> str:
    """`h100-80gb-hbm3-v0.14.1.json`: one file for each GPU and release."""
    plain = gpu.name.lower().removeprefix("nvidia ").replace(" ", "-")
    return f"{plain}-{tag}.json"


def stale(root: Path, manifest: Manifest, result: Result) -> tuple[str, ...]:
    """The kernels of `result` that it no longer speaks for, in the order of the manifest.

    A kernel is stale when its patches, the pinned release or its tests are others now, or when the
    manifest does not have it any more.
    """
    gone = [name for name in result.kernels if name not in manifest.kernels]
    changed = [
        name
        for name, kernel in manifest.kernels.items()
        if name in result.kernels
        and (
            result.kernels[name].sources != sources_key(root, kernel, result.tag)
            or result.kernels[name].tests != tests_key(root, kernel)
        )
    ]
    return (*changed, *gone)


def sources_key(root: Path, kernel: Kernel, tag: str) -> str:
    """The hash of what makes the kernel's patched source: upstream's release and the patches.

    Only the diffs count; a better description of a patch does not make results stale.
    """
    digest = hashlib.sha256(tag.encode())
    for patch in sorted(kernel.patches):
        file = root / SERIES_FOLDER / patch
        data = file.read_bytes().replace(b"\r\n", b"\n") if file.exists() else b"missing"
        digest.update(patch.encode() + data[max(data.find(b"diff --git "), 0) :])
    return digest.hexdigest()[:32]


def tests_key(root: Path, kernel: Kernel) -> str:
    """The hash of what decides about the kernel: its cases, all references, the helpers."""
    folder = root / Path(MANIFEST_FILE).parent
    names = [f"cases/{kernel.cases}", *_SHARED_TESTS]
    names += [f"references/{file.name}" for file in (folder / "references").glob("*.py")]
    if kernel.kind == "probe":
        names += [f"probes/{source}" for source in kernel.sources]
    return _hash((name, folder / name) for name in sorted(names))


def _hash(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, file in files:
        data = file.read_bytes().replace(b"\r\n", b"\n") if file.exists() else b"missing"
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


def with_upstream_tests(result: Result, found: Mapping[str, UpstreamTests]) -> Result:
    """`result` with what upstream's tests said, for the kernels in `found`."""
    kernels = {
        name: kernel.model_copy(update={"upstream_tests": found.get(name, kernel.upstream_tests)})
        for name, kernel in result.kernels.items()
    }
    return result.model_copy(update={"kernels": kernels})
