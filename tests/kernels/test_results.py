"""Result files: read, stale, reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kernel_tests import report, sanitizer, session, upstream_tests
from portkit.audit import tested
from portkit.errors import BadFile, BadInput
from portkit.kernels import manifest as kernelmanifest
from portkit.kernels import results as kernelresults
from portkit.kernels.results import (
    Case,
    Gpu,
    KernelResult,
    Mutant,
    Result,
    Sanitizer,
    Timing,
    UpstreamTests,
)
from portkit.patches import series

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = kernelmanifest.load(ROOT)
GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    capability="9.0",
    driver="1",
    cuda="13.0",
    torch="2.11",
    python="3",
)


def result(**changes: object) -> Result:
    kernel = MANIFEST.kernels["awq"]
    case = Case(case="test_awq.py::test_gemm", outcome="passed", seconds=0.1)
    of_kernel = KernelResult(
        sources=kernelresults.sources_key(ROOT, kernel, "v0.14.1"),
        tests=kernelresults.tests_key(ROOT, kernel),
        cases=(case,),
    )
    made = Result(
        tag="v0.14.1", date="2026-01-01", seed=1, against="build", gpu=GPU,
        kernels={"awq": of_kernel},
    )  # fmt: skip
    return made.model_copy(update=changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / kernelresults.file_name(GPU, "v0.14.1")
    assert file.name == "h100-80gb-hbm3-v0.14.1.json"
    kernelresults.write(file, result())
    assert kernelresults.read(file) == result()
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


def test_the_shipped_results_read() -> None:
    found = kernelresults.read_all(ROOT)
    assert found
    for one in found.values():
        assert set(one.kernels) == set(MANIFEST.kernels)
        assert all(mutant.killed for mutant in one.mutants)
        kernelresults.stale(ROOT, MANIFEST, one)


def test_a_changed_patch_or_test_makes_a_result_stale(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    ignored = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "kernel_tests", tmp_path / "kernel_tests", ignore=ignored)
    assert kernelresults.stale(tmp_path, MANIFEST, result()) == ()
    patch = tmp_path / "patch_series" / MANIFEST.kernels["awq"].patches[0]
    words = patch.read_bytes()
    patch.write_bytes(b"Description: better words\n" + words)
    assert kernelresults.stale(tmp_path, MANIFEST, result()) == ()
    patch.write_bytes(words.replace(b"asm volatile", b"asm"))
    assert kernelresults.stale(tmp_path, MANIFEST, result()) == ("awq",)
    patch.write_bytes(words)
    case = tmp_path / "kernel_tests/cases/test_awq.py"
    case.write_text(case.read_text("utf-8") + "\n# looser\n", "utf-8")
    assert kernelresults.stale(tmp_path, MANIFEST, result()) == ("awq",)


def test_another_release_or_a_kernel_that_is_gone_is_stale() -> None:
    assert kernelresults.stale(ROOT, MANIFEST, result(tag="v0.16.0")) == ("awq",)
    gone = result(kernels={"gone": result().kernels["awq"]})
    assert kernelresults.stale(ROOT, MANIFEST, gone) == ("gone",)


@pytest.mark.parametrize("text", ["", "{}", '{"tag": 1}'])
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gpu.json"
    file.write_text(text, "utf-8")
    with pytest.raises(BadFile, match=r"gpu\.json"):
        kernelresults.read(file)


def test_speed_counts_beyond_the_noise() -> None:
    def timing(patched: float, again: float) -> Timing:
        return Timing(op="o", what="w", patched=patched, upstream=100.0, again=again)

    assert not timing(101.9, 100.0).slower
    assert timing(102.5, 100.0).slower
    assert not timing(102.5, 101.0).slower  # upstream itself is as far from itself


def test_faults_are_named() -> None:
    case = Case(case="test_awq.py::test_gemm", outcome="failed", seconds=1, message="off")
    slow = Case(
        case="test_awq.py::test_speed", outcome="passed", seconds=1,
        timings=(Timing(op="_C::awq", what="big", patched=110, upstream=100, again=100),),
    )  # fmt: skip
    kernel = result().kernels["awq"].model_copy(update={"cases": (case, slow)})
    mutant = Mutant(name="m", patch="p", kernel="awq", killed=False)
    found = result(
        kernels={"awq": kernel},
        mutants=(mutant,),
        sanitizer=(
            Sanitizer(tool="memcheck", cases=1, errors=2, summary="2 errors", upstream=0),
            Sanitizer(tool="racecheck", cases=1, errors=5, summary="5 hazards", upstream=5),
        ),
    )
    assert kernel.outcome == "failed"
    said = report.faults(found)
    assert [one.partition(":")[0] for one in said] == [
        "test_awq.py", "awq", "mutant m survived", "memcheck",
    ]  # fmt: skip
    page = report.html(found)
    assert "SURVIVED" in page and "110" not in page
    assert any("0 of 1 mutants" in line for line in report.lines(found, MANIFEST))


def test_upstreams_tests_are_counted(tmp_path: Path) -> None:
    report_file = tmp_path / "r.xml"
    report_file.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no"/>'
        '</testcase><testcase name="c"><skipped/></testcase><testcase name="d">'
        '<error message="No module"/></testcase></testsuite></testsuites>',
        "utf-8",
    )
    found = upstream_tests.read(report_file)
    assert (found.passed, found.failed, found.skipped, found.broken) == (1, 1, 1, 1)
    assert found.failures == ("1 could not be set up: No module", "b: no")


def test_sanitizer_output_is_read() -> None:
    said = "5 passed in 1 s\n========= RACECHECK SUMMARY: 10 hazards displayed (5 errors)\n"
    assert sanitizer.read("racecheck", said).errors == 10
    assert sanitizer.read("memcheck", "========= ERROR SUMMARY: 0 errors\n").errors == 0
    assert sanitizer.read("memcheck", "killed").errors == -1


def test_the_audit_counts_a_patch_whose_kernels_all_passed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    ignored = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "kernel_tests", tmp_path / "kernel_tests", ignore=ignored)
    shutil.copy(ROOT / "upstream_pin.txt", tmp_path)
    patches = {patch.name: patch for patch in series.load(ROOT).upstream}
    awq = patches[MANIFEST.kernels["awq"].patches[0]]
    assert tested.results(tmp_path, "v0.14.1")(awq) == ""
    kernelresults.write(tmp_path / kernelresults.RESULTS_FOLDER / "gpu.json", result())
    said = tested.results(tmp_path, "v0.14.1")
    assert said(awq).startswith("kernel tests awq passed on NVIDIA H100 80GB HBM3")
    assert said(patches["kernels/csrc/quantization/utils.cuh.patch"]) == ""
    assert said(patches["build/setup.py.patch"]) == ""
    case = tmp_path / "kernel_tests/cases/test_awq.py"
    case.write_text("# other\n", "utf-8")
    assert tested.results(tmp_path, "v0.14.1")(awq) == ""


def test_a_run_adds_only_to_a_result_that_holds_here(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    with pytest.raises(BadInput, match="no earlier result"):
        session.earlier(ROOT, MANIFEST, file, GPU)
    kernelresults.write(file, result())
    assert session.earlier(ROOT, MANIFEST, file, GPU) == result()
    with pytest.raises(BadInput, match="another GPU"):
        session.earlier(ROOT, MANIFEST, file, GPU.model_copy(update={"driver": "2"}))
    kernelresults.write(file, result(tag="v0.16.0"))
    with pytest.raises(BadInput, match="stale for awq"):
        session.earlier(ROOT, MANIFEST, file, GPU)


@pytest.mark.skipif(os.name == "nt", reason="no Ctrl-C for one process, so no report")
def test_tests_that_do_not_end_are_counted_as_far_as_they_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "test_slow.py"
    begun = tmp_path / "begun"
    tests.write_text(
        "import pathlib, time\n\n"
        "def test_quick(): pass\n\n"
        f"def test_slow(): pathlib.Path({str(begun)!r}).touch(); time.sleep(600)\n",
        "utf-8",
    )
    file = tmp_path / "report.xml"
    command = [*upstream_tests.PYTEST, f"--junitxml={file}", str(tests)]
    monkeypatch.setattr(upstream_tests, "_SECONDS", 0)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as one:
        while not begun.exists():  # however loaded the machine is
            assert one.poll() is None
            time.sleep(0.05)
        assert upstream_tests.counted(one, file, "slow") == UpstreamTests(
            passed=1, failed=1, skipped=0, failures=("not all ran: no end after 0 s",)
        )
