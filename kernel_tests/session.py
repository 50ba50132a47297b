"""A whole run on a GPU: build, cases, upstream's tests, mutants, sanitizer, result file."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kernel_tests import extensions as found
from kernel_tests import report
from kernel_tests import run as kernel_run
from kernel_tests.build import Builder, patched_side
from kernel_tests.toolchain import with_torch
from kernel_tests.trees import Trees
from portkit.errors import BadInput, Exit, Unavailable
from portkit.face import console
from portkit.kernels import results as kernelresults
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import (
    Case,
    Gpu,
    KernelResult,
    Mutant,
    Result,
    Sanitizer,
    UpstreamTests,
)
from portkit.patches import pin as pinfile


def main(root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace) -> int:
    """Run what the options ask for; raises `Unavailable` without a GPU."""
    gpu = this_gpu()
    tag = pinfile.read(root / pinfile.PIN_FILE).tag
    file = given.results
    if file is None and given.against == "build" and set(names) == set(manifest.kernels):
        file = root / kernelresults.RESULTS_FOLDER / kernelresults.file_name(gpu, tag)

    def keep(result: Result) -> None:
        if file is not None:
            kernelresults.write(file, result)

    with tempfile.TemporaryDirectory(prefix="kernel-tests-") as scratch:
        work = Path(scratch)
        if given.against == "installed":
            found.installed()  # the one sentence, before pytest says it for each case
            result = _cases(root, manifest, names, given, gpu, work, None)
        else:
            before = earlier(root, manifest, file, gpu) if given.add else None
            result = _built(root, manifest, names, given, gpu, work, keep, before)
    keep(result)
    if given.html:
        given.html.write_text(report.html(result), "utf-8")
    if given.json:
        console.print_json("kernel-tests", json.loads(result.model_dump_json(by_alias=True)))
    else:
        print("\n".join(report.lines(result, manifest)))
        if file is not None:
            print(f"result: {file}")
    return Exit.WAITING if report.faults(result) else Exit.OK


def this_gpu() -> Gpu:
    """The first GPU and what drives it; raises `Unavailable`."""
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(f"torch cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        raise Unavailable(
            "there is no CUDA GPU", hint="--compile-only checks that everything compiles"
        )
    major, minor = torch.cuda.get_device_capability(0)
    return Gpu(
        name=torch.cuda.get_device_name(0),
        capability=f"{major}.{minor}",
        driver=_driver(),
        cuda=str(torch.version.cuda),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def earlier(root: Path, manifest: Manifest, file: Path | None, gpu: Gpu) -> Result:
    """The result in `file`, to add to; raises `BadInput` where it does not hold here and now."""
    if file is None or not file.exists():
        raise BadInput("there is no earlier result of all kernels to add to", hint="omit --add")
    result = kernelresults.read(file)
    if stale := kernelresults.stale(root, manifest, result):
        raise BadInput(f"{file.name} is stale for {', '.join(stale)}", hint="omit --add")
    if result.gpu != gpu:
        raise BadInput(f"{file.name} is of another GPU, driver or torch", hint="omit --add")
    return result


def _built(
    root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace, gpu: Gpu,
    work: Path, keep: Callable[[Result], None], before: Result | None,
) -> Result:  # fmt: skip
    archs = kernel_run.archs_of(given.archs)
    cache = kernel_run.cache_of(given.cache)
    trees = kernel_run.source(root, manifest, archs, given.trees, cache)
    builder = Builder(with_torch(), archs, cache)
    extensions = found.built(builder, trees, manifest, names, jobs=given.jobs)
    if before is None:
        libraries = found.saved(extensions, work / "libraries.json")
        result = _cases(root, manifest, names, given, gpu, work, libraries)
        keep(result)
    else:
        result = before
    # The cases had the GPU for themselves, for the stopwatch; these share it.
    with ThreadPoolExecutor() as pool:
        tests = given.upstream_tests and pool.submit(
            _upstream, root, manifest, names, builder, trees, given, cache
        )
        verdicts = given.mutants and pool.submit(
            _mutants, root, manifest, names, builder, trees, given, cache
        )
        checked = given.sanitize and pool.submit(
            _sanitized, root, manifest, extensions, result.seed, cache
        )
        if tests:
            result = kernelresults.with_upstream_tests(result, tests.result())
            keep(result)
        if verdicts:
            result = result.model_copy(update={"mutants": verdicts.result()})
            keep(result)
        if checked:
            result = result.model_copy(update={"sanitizer": checked.result()})
            keep(result)
    if given.engine:
        from kernel_tests import engine  # noqa: PLC0415

        said = engine.run(root, builder, trees, manifest, cache / "engine", given.jobs)
        result = result.model_copy(update={"engine": said})
    return result


def _cases(
    root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace, gpu: Gpu,
    work: Path, libraries: Path | None,
) -> Result:  # fmt: skip
    records = work / "records.json"
    command = [
        sys.executable, "-m", "pytest", "kernel_tests", "-q", "-p", "no:cacheprovider",
        "--against", given.against, "--kernels", ",".join(names), "--records", str(records),
        *(["--libraries", str(libraries)] if libraries else []),
        *([] if given.no_speed else ["--measure"]),
        *(["--seed", str(given.seed)] if given.seed is not None else []),
    ]  # fmt: skip
    # pytest's own words are for a person and go to stderr, so that stdout can be JSON.
    done = subprocess.run(command, check=False, cwd=root, stdout=sys.stderr)
    if not records.exists():
        raise BadInput(f"pytest ended with {done.returncode} before it ran a case")
    data = json.loads(records.read_text("utf-8"))
    tag = pinfile.read(root / pinfile.PIN_FILE).tag
    return Result(
        tag=tag, date=data["date"], seed=data["seed"], against=given.against, gpu=gpu,
        kernels=_by_kernel(root, manifest, names, tag, data["cases"]),
    )  # fmt: skip


def _by_kernel(
    root: Path, manifest: Manifest, names: Sequence[str], tag: str, cases: list[dict[str, Any]]
) -> dict[str, KernelResult]:
    found_cases: dict[str, list[Case]] = {name: [] for name in names}
    for record in cases:
        # The file keeps a case's worst check; all of them passed or the message says which did not.
        worst = sorted(record.pop("checks"), key=lambda check: float(check["error"]))[-1:]
        name = record.pop("kernel")
        found_cases[name].append(Case.model_validate({**record, "checks": worst}))
    return {
        name: KernelResult(
            sources=kernelresults.sources_key(root, manifest.kernels[name], tag),
            tests=kernelresults.tests_key(root, manifest.kernels[name]),
            cases=tuple(of_kernel),
        )
        for name, of_kernel in found_cases.items()
    }


def _upstream(
    root: Path, manifest: Manifest, names: Sequence[str], builder: Builder, trees: Trees,
    given: argparse.Namespace, cache: Path,
) -> dict[str, UpstreamTests]:  # fmt: skip
    from kernel_tests import upstream_tests  # noqa: PLC0415

    side = patched_side(trees.patched)
    paths = upstream_tests.libraries(builder, side, manifest, manifest.kernels, given.jobs)
    return upstream_tests.run(root, trees, manifest, names, paths, cache / "upstream-tests")


def _mutants(
    root: Path, manifest: Manifest, names: Sequence[str], builder: Builder, trees: Trees,
    given: argparse.Namespace, cache: Path,
) -> tuple[Mutant, ...]:  # fmt: skip
    from kernel_tests import mutants  # noqa: PLC0415

    wanted = [one for one in mutants.load(root, manifest) if one.kernel in names]
    planned = mutants.prepare(wanted, manifest, trees, builder)
    built = mutants.build(planned, builder, given.jobs)
    return mutants.judge(root, manifest, built, cache / "mutant-runs")


def _sanitized(
    root: Path, manifest: Manifest, extensions: found.Extensions, seed: int, cache: Path
) -> tuple[Sanitizer, ...]:
    from kernel_tests import sanitizer  # noqa: PLC0415

    if sanitizer.available() is None:
        print("compute-sanitizer is not installed; left out", file=sys.stderr)
        return ()
    # Generated kernels are upstream's own, and there are too many to instrument.  A Python module
    # here is an allocator for torch's cache, which is off under the tool.
    sides = [
        found.Extensions(
            (prefix,),
            {
                name: paths[number : number + 1]
                for name, paths in extensions.libraries.items()
                if not manifest.kernels[name].generated and manifest.kernels[name].kind != "python"
            },
        )
        for number, prefix in enumerate(extensions.sides)
    ]
    return sanitizer.run(root, sides, seed, cache / "sanitizer")


def _driver() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0]
