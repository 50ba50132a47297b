"""The status page says what ran on these contents, and nothing of what did not."""

from __future__ import annotations

import json
from pathlib import Path

import html5lib
import pytest

from portkit.audit import tested
from portkit.audit.verdict import Level, Verdict
from portkit.ci import results, statuspage
from portkit.ci.results import CompiledUnit, CompileResult
from portkit.ci.status import Evidence, Status, status
from portkit.errors import BadFile
from portkit.kernels import manifest as kernelmanifest
from portkit.kernels import results as kernelresults
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import Case, Gpu, KernelResult, Result
from portkit.model import Patch
from portkit.patches import series

ROOT = Path(__file__).resolve().parents[2]
TAG = "v0.14.1"
AWQ = "kernels/csrc/quantization/awq/gemm_kernels.cu.patch"
ALLSPARK = "kernels/csrc/quantization/gptq_allspark/allspark_qgemm_w8a16.cu.patch"
CUMEM = "kernels/csrc/cumem_allocator.cpp.patch"
PYTHON = "runtime/vllm/utils/system_utils.py.patch"
H100 = "H100 80GB HBM3, CUDA 13.0, torch 2.11.0"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return kernelmanifest.load(ROOT)


def gpu_result(manifest: Manifest, outcome: str = "passed", sources: str | None = None) -> Result:
    """A run of the AWQ kernel on an H100; `sources` other than today's make it stale."""
    kernel = manifest.kernels["awq"]
    ran = KernelResult(
        sources=sources or kernelresults.sources_key(ROOT, kernel, TAG),
        tests=kernelresults.tests_key(ROOT, kernel),
        cases=(Case.model_validate({"case": "test_it", "outcome": outcome, "seconds": 1.0}),),
    )
    gpu = Gpu(
        name="NVIDIA H100 80GB HBM3", capability="9.0", driver="580", cuda="13.0",
        torch="2.11.0", python="3.12",
    )  # fmt: skip
    return Result(
        schema=1, tag=TAG, date="2026-11-23", seed=1, against="build", gpu=gpu,
        kernels={"awq": ran},
    )  # fmt: skip


def compiled(
    manifest: Manifest, error: str = "", kernel: str = "awq", tag: str = TAG, units: int = 9
) -> CompileResult:
    """A compile cell of one kernel, of the first `units` of it."""
    sources = {kernel: kernelresults.sources_key(ROOT, manifest.kernels[kernel], tag)}
    archs = ("8.6", "9.0")
    made = [
        CompiledUnit(
            kernel=kernel, unit=unit, arch=arch, digest="d", compiler="nvcc 13.0.88", error=error
        )
        for arch in archs
        for unit in manifest.kernels[kernel].units[:units]
    ]
    return CompileResult(
        system="linux", toolkit="13.0", tag=tag, archs=archs, sources=sources, units=tuple(made)
    )


def page(
    manifest: Manifest, ran: list[CompileResult] | None = None, on_gpu: list[Result] | None = None
) -> Status:
    patches: list[Patch] = [
        patch
        for patch in series.load(ROOT).upstream
        if patch.name in (AWQ, ALLSPARK, CUMEM, PYTHON)
    ]
    verdicts = {
        patch.name: Verdict(patch.name, patch.path, Level.IDENTICAL, "the same <tokens>")
        for patch in patches
    }
    evidence = Evidence(ROOT, TAG, manifest, ran or [], on_gpu or [])
    return status(("8.6", "9.0", "12.0"), patches, verdicts, evidence)


def marks(found: Status) -> dict[str, list[str]]:
    return {
        row.patch: [statuspage.mark(row.cells[arch]) for arch in found.archs] for row in found.rows
    }


def test_what_nobody_ran_is_empty(manifest: Manifest) -> None:
    assert marks(page(manifest)) == {
        AWQ: ["C· T·", "C· T·", "C· T·"],
        ALLSPARK: ["C· T·", "", ""],  # upstream builds it for 8.x alone
        CUMEM: ["T·", "T·", "T·"],  # a host file: nvcc has no part in it
        PYTHON: ["", "", ""],
    }


def test_what_ran_stands_in_its_own_cells(manifest: Manifest) -> None:
    found = page(manifest, [compiled(manifest)], [gpu_result(manifest)])
    assert marks(found)[AWQ] == ["C✓ T·", "C✓ T✓", "C· T·"]
    assert marks(found)[ALLSPARK] == ["C· T·", "", ""]
    assert found.gpus == (H100,)


def test_failures_and_results_of_other_contents_show(manifest: Manifest) -> None:
    broken = [compiled(manifest, "error: identifier `uint` is undefined")]
    assert marks(page(manifest, broken, [gpu_result(manifest, "failed")]))[AWQ][1] == "C✗ T✗"
    old = [gpu_result(manifest, sources="0" * 32)]
    assert marks(page(manifest, [], old))[AWQ][1] == "C· T?"
    # A failure is not hidden by a success elsewhere.
    both = [compiled(manifest), *broken]
    assert marks(page(manifest, both))[AWQ][0] == "C✗ T·"


def test_a_cell_passes_with_all_its_units_and_no_fewer(manifest: Manifest) -> None:
    found = page(manifest, [compiled(manifest, kernel="allspark", units=1)])
    assert marks(found)[ALLSPARK][0] == "C◐ T·"
    (row,) = [row for row in found.rows if row.patch == ALLSPARK]
    assert row.cells["8.6"].compiled[0].note == "1 of 2 units"
    assert found.compilers == ("linux, CUDA 13.0 (nvcc 13.0.88)",)
    assert marks(page(manifest, [compiled(manifest, kernel="allspark")]))[ALLSPARK][0] == "C✓ T·"


def test_results_of_another_release_are_no_results_of_this_one(manifest: Manifest) -> None:
    kernel = manifest.kernels["awq"]
    old = gpu_result(manifest, sources=kernelresults.sources_key(ROOT, kernel, "v0.14.0"))
    old = old.model_copy(update={"tag": "v0.14.0"})
    assert marks(page(manifest, [compiled(manifest, tag="v0.14.0")], [old]))[AWQ][1] == "C? T?"
    # A GPU's file of the last release stays where it is, and says nothing beside one of this.
    assert marks(page(manifest, [], [old, gpu_result(manifest)]))[AWQ][1] == "C· T✓"


def test_the_three_files_say_the_same(manifest: Manifest) -> None:
    found = page(manifest, [compiled(manifest)], [gpu_result(manifest)])
    plain = json.loads(json.dumps(found.as_json()))
    (row,) = [one for one in plain["rows"] if one["patch"] == AWQ]
    assert row["cells"]["9.0"]["tested"][0]["where"] == H100
    text, markup = statuspage.markdown(found), statuspage.html(found)
    html5lib.HTMLParser(strict=True).parse(markup)
    assert "the same &lt;tokens&gt;" in markup
    for said in (
        H100,
        "csrc/quantization/awq/gemm_kernels.cu",
        "4 patches apply; audit: 4 identical",
    ):
        assert said in text
        assert said in markup


def repository(tmp_path: Path, manifest: Manifest, result: Result) -> Path:
    """A repository with the series and the kernel tests of ours, and one result."""
    for name in ("patch_series", "kernel_tests"):
        for file in (ROOT / name).rglob("*"):
            if file.is_file() and "results" not in file.parts and "__pycache__" not in file.parts:
                copy = tmp_path / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    kernelresults.write(tmp_path / kernelresults.RESULTS_FOLDER / "h100.json", result)
    return tmp_path


@pytest.mark.parametrize(
    ("outcome", "sources", "expected"),
    [
        (
            "passed",
            None,
            "kernel tests awq passed on NVIDIA H100 80GB HBM3, CUDA 13.0, torch 2.11.0",
        ),
        ("failed", None, ""),
        ("skipped", None, ""),
        ("passed", "0" * 32, ""),
    ],
)
def test_the_audit_takes_a_result_of_exactly_these_contents(
    tmp_path: Path, manifest: Manifest, outcome: str, sources: str | None, expected: str
) -> None:
    root = repository(tmp_path, manifest, gpu_result(manifest, outcome, sources))
    said = tested.results(root, TAG)
    by_name = {patch.name: patch for patch in series.load(ROOT).upstream}
    assert said(by_name[AWQ]) == expected
    assert said(by_name[PYTHON]) == ""


def test_a_result_that_is_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / results.FOLDER
    folder.mkdir(parents=True)
    (folder / "compile-linux-13.0-8.6.json").write_text('{"tag": "v0.14.1"}')
    with pytest.raises(BadFile, match=r"ci/results/compile-linux-13\.0-8\.6\.json: archs"):
        results.read_all(tmp_path)
    (folder / "compile-linux-13.0-8.6.json").rename(folder / "mine.json")
    with pytest.raises(BadFile, match="is not named compile-SYSTEM-TOOLKIT"):
        results.read_all(tmp_path)
