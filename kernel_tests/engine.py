"""vLLM's in-process engine on tiny random models: both builds must say the same.

Patched kernels are on the path of a real model here, called by vLLM's own code: each build with the
Python files of its own source.  Every model and build is a process of its own
with a time limit, so that none can spoil another, or the rest of a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kernel_tests import partial, upstream_tests
from kernel_tests.build import Builder, Side, patched_side, upstream_alone
from kernel_tests.engine_child import MODELS
from kernel_tests.trees import Trees
from portkit.errors import BadFile
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import Engine

_SECONDS = 240
KERNELS = ("fp8_quant", "selective_scan")  # patched, and called by the models below


_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Said:
    """What a model said on one build, or why it said nothing."""

    tokens: list[list[int]]
    logprobs: list[list[float]]
    ops: list[str]
    failure: str = ""


def run(
    root: Path, builder: Builder, trees: Trees, manifest: Manifest, work: Path,
    jobs: int | None = None,
) -> tuple[Engine, ...]:  # fmt: skip
    """Let each model speak on both builds; the builds side by side."""
    sides = (patched_side(trees.patched), upstream_alone(trees.upstream))
    listed = [_listed(builder, manifest, side, work, jobs) for side in sides]
    asked = [
        (name, side, libraries)
        for name in MODELS
        for side, libraries in zip(sides, listed, strict=True)
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        said = list(pool.map(lambda one: _said(root, *one, tag=trees.tag, work=work), asked))
    return tuple(
        compared(name, *pair)
        for name, pair in zip(MODELS, zip(said[::2], said[1::2], strict=True), strict=True)
    )


def compared(name: str, ours: Said, theirs: Said) -> Engine:
    """The verdict about one model."""
    failures = {"patched": ours.failure, "upstream": theirs.failure}
    message = "; ".join(f"{side}: {why}" for side, why in failures.items() if why)
    calls = MODELS[name].calls
    if not message and calls and calls not in ours.ops:
        message = f"{calls} was not called"
    pairs = [
        (one, other)
        for mine, upstreams in zip(ours.logprobs, theirs.logprobs, strict=False)
        for one, other in zip(mine, upstreams, strict=False)
    ]
    return Engine(
        model=name,
        tokens=sum(map(len, ours.tokens)),
        distinct=len({token for one in ours.tokens for token in one}),
        equal=not message and ours.tokens == theirs.tokens,
        difference=max((abs(one - other) for one, other in pairs), default=0.0),
        ops=tuple(ours.ops),
        message=message,
    )


def _listed(builder: Builder, manifest: Manifest, side: Side, work: Path, jobs: int | None) -> Path:
    paths = upstream_tests.libraries(builder, side, manifest, KERNELS, jobs)
    return upstream_tests.listed(paths, work / f"{side.name}.json")


def _said(root: Path, name: str, side: Side, libraries: Path, *, tag: str, work: Path) -> Said:
    file, log = (work / f"{name}-{side.name}.{kind}" for kind in ("said.json", "log"))
    file.unlink(missing_ok=True)
    # Its own Triton cache: what one process compiles, another must not find half written.
    own = {"TRITON_CACHE_DIR": str(work / f"triton-{name}-{side.name}")}
    environment = partial.environment(root, side.tree, work, tag) | _ENVIRONMENT | own
    command = [
        sys.executable, "-m", "kernel_tests.engine_child",
        name, str(libraries), str(side.tree), str(file),
    ]  # fmt: skip
    with log.open("wb") as out:
        try:
            subprocess.run(
                command, check=False, cwd=work, env=environment,
                stdout=out, stderr=out, timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Said([], [], [], f"no end after {_SECONDS} s")
    return read(file, log)


def read(file: Path, log: Path) -> Said:
    """What the process wrote to `file`, else the last line of its log."""
    if not file.exists():
        lines: Sequence[str] = log.read_text("utf-8", "replace").strip().splitlines()
        return Said([], [], [], (lines or ["no output"])[-1][:300])
    try:
        return Said(**json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError):
        raise BadFile(str(file), None, "is not what an engine's process writes") from None
