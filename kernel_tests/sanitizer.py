"""compute-sanitizer over a few cases of each test: reads and writes out of bounds, and races."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernel_tests.extensions import Extensions, given, saved
from portkit.kernels.results import Sanitizer

TOOLS = ("memcheck", "racecheck")
_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)")
_PYTEST = re.compile(r"(\d+) passed")
_FOUND = re.compile(r"(\d+) (?:error|hazard)")
_SECONDS = 400
# Under the tool a case takes some ten times as long.
_CASES = 1


def available() -> str | None:
    """The program, or None where the toolkit has none."""
    return shutil.which("compute-sanitizer")


def run(root: Path, sides: Sequence[Extensions], seed: int, work: Path) -> tuple[Sanitizer, ...]:
    """Every tool over the first case of each test, on the patched build and on upstream's.

    Kernels that synchronise within a warp have hazards by design; what counts is whether the
    patched build has more than upstream's on the same inputs.
    """
    work.mkdir(parents=True, exist_ok=True)
    libraries = [
        saved(side, work / f"{name}.json")
        for name, side in zip(("patched", "upstream"), sides, strict=True)
    ]
    asked = [(tool, file) for tool in TOOLS for file in libraries]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: _run(root, one[0], one[1], seed, work), asked))
    return tuple(
        ours.model_copy(update={"upstream": theirs.errors, "upstream_summary": theirs.summary})
        for ours, theirs in zip(found[::2], found[1::2], strict=True)
    )


def _run(root: Path, tool: str, libraries: Path, seed: int, work: Path) -> Sanitizer:
    log = work / f"{tool}-{libraries.stem}.log"
    program = available()
    assert program is not None
    kernels = ",".join(given(libraries).libraries)
    command = [
        program, "--tool", tool, "--target-processes", "application-only",
        sys.executable, "-m", "pytest", "kernel_tests", "-q", "-p", "no:cacheprovider",
        "--libraries", str(libraries), "--small", str(_CASES), "--kernels", kernels,
        "--seed", str(seed),
    ]  # fmt: skip
    # The caching allocator would hide what lies beyond a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    with log.open("wb") as out:
        try:
            subprocess.run(
                command, check=False, cwd=root, stdout=out, stderr=out, env=environment,
                timeout=_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Sanitizer(tool=tool, cases=0, errors=-1, summary=f"no end after {_SECONDS} s")
    return read(tool, log.read_text("utf-8", "replace"))


def read(tool: str, log: str) -> Sanitizer:
    """What the tool's output says; -1 errors when it did not get to its summary."""
    passed = _PYTEST.search(log)
    cases = int(passed[1]) if passed else 0
    said = _SUMMARY.findall(log)
    if not said:
        last = (log.strip().splitlines() or ["no output"])[-1]
        return Sanitizer(tool=tool, cases=cases, errors=-1, summary=last[:200])
    found = _FOUND.search(said[-1])
    return Sanitizer(tool=tool, cases=cases, errors=int(found[1]) if found else 0, summary=said[-1])
