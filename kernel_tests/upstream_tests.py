"""Upstream's own tests of the patched files, run unchanged against the patched kernels.

Nobody here wrote them: they are an independent check.  They need the packages that vLLM imports,
not an installed vLLM: its Python files are those of the patched source.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from kernel_tests import partial
from kernel_tests.build import Builder, Side
from kernel_tests.trees import Trees
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import UpstreamTests

VARIABLE = "KERNEL_TESTS_LIBRARIES"  # a JSON list of libraries, for upstream_plugin
_AT_ONCE = 6
_SECONDS = 400  # for one kernel's files
_TO_REPORT = 20
_SHOWN = 20  # failures named
# A process started in the background may have been told to ignore Ctrl-C, which ends it here.
_INTERRUPTIBLE = (
    "import signal, sys, pytest; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
PYTEST = (sys.executable, "-c", _INTERRUPTIBLE, "-q", "-c", os.devnull, "-p", "no:cacheprovider")
"""The command that `counted` can stop: pytest without settings of its own."""


def libraries(
    builder: Builder, side: Side, manifest: Manifest, names: Iterable[str], jobs: int | None = None
) -> list[Path]:
    """Build the kernels `names` that have ops, and those that vLLM's Python calls besides."""
    kernels = {name: manifest.kernels[name] for name in names if manifest.kernels[name].ops}
    kernels |= {f"support-{name}": one.as_kernel() for name, one in manifest.support.items()}
    planned = [builder.library(name, kernel, side) for name, kernel in kernels.items()]
    builder.build(planned, jobs)
    return [one.path for one in planned if one.path.exists()]


def listed(paths: Iterable[Path], file: Path) -> Path:
    """Write `paths` to `file`, for `partial.install` in another process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([str(path) for path in paths]), "utf-8")
    return file


def run(
    root: Path,
    trees: Trees,
    manifest: Manifest,
    names: Sequence[str],
    paths: Sequence[Path],
    work: Path,
) -> dict[str, UpstreamTests]:
    """Run upstream's tests of the kernels `names`, some at a time; what each said."""
    libraries = listed(paths, work / "libraries.json")
    wanted = [name for name in names if manifest.kernels[name].upstream_tests]

    def one(name: str) -> UpstreamTests:
        return _run(root, trees, name, manifest.kernels[name].upstream_tests, libraries, work)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def summary(found: Mapping[str, UpstreamTests]) -> str:
    """The sum as a line."""
    counts = [sum(getattr(one, kind) for one in found.values()) for kind in _KINDS]
    return "upstream's own tests: " + ", ".join(
        f"{count} {kind}" for count, kind in zip(counts, _KINDS, strict=True)
    )


_KINDS = ("passed", "failed", "skipped", "broken")


def _run(
    root: Path, trees: Trees, name: str, tests: Sequence[str], libraries: Path, work: Path
) -> UpstreamTests:
    report = work / f"{name}.xml"
    report.unlink(missing_ok=True)
    environment = partial.environment(root, trees.patched, work, trees.tag)
    environment[VARIABLE] = str(libraries)
    command = [
        *PYTEST, "--noconftest", "--rootdir", str(trees.patched),
        "-p", "kernel_tests.upstream_plugin", f"--junitxml={report}", *tests,
    ]  # fmt: skip
    with (
        (work / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            command, cwd=trees.patched, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        return counted(process, report, name)


def counted(process: subprocess.Popen[bytes], report: Path, name: str) -> UpstreamTests:
    """What pytest reports when it ends; after `_SECONDS` it is stopped, and reports what ran."""
    late = ""
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        late = f"not all ran: no end after {_SECONDS} s"
        if os.name == "nt":  # no Ctrl-C for one process there, so no report either
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_TO_REPORT)
        except subprocess.TimeoutExpired:
            process.kill()
    if not report.exists():
        return _lost(late or f"pytest ended early: see {name}.log")
    found = read(report)
    if not late:
        return found
    more = {"failed": found.failed + 1, "failures": (late, *found.failures)}
    return found.model_copy(update=more)


def read(report: Path) -> UpstreamTests:
    """What a JUnit report says; a test that could not be set up is broken, not failed."""
    counts = dict.fromkeys(_KINDS, 0)
    failures: list[str] = []
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        if not case.get("name"):  # the one that was interrupted
            continue
        broken = case.find("error")
        if broken is not None:
            counts["broken"] += 1
            reasons[broken.get("message", "").partition("\n")[0]] += 1
            continue
        failure = case.find("failure")
        if failure is not None:
            counts["failed"] += 1
            first = failure.get("message", "").partition("\n")[0]
            failures.append(f"{case.get('name')}: {first}"[:300])
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    words = [f"{count} could not be set up: {reason}"[:300] for reason, count in reasons.items()]
    return UpstreamTests(**counts, failures=tuple([*words, *failures][:_SHOWN]))


def _lost(why: str) -> UpstreamTests:
    return UpstreamTests(passed=0, failed=1, skipped=0, failures=(why,))
