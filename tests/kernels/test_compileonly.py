"""Compile results by content: what is recorded is not compiled, what changed always is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_tests import compileonly
from kernel_tests.compileonly import summary, toolkit_archs
from kernel_tests.compiling import Compiled, Unit, settle, units
from kernel_tests.trees import Trees
from portkit.ci import results
from portkit.ci.results import CompiledUnit, CompileResult
from portkit.cuda import toolkits
from portkit.cuda.nvcc import Environment
from portkit.cuda.toolkits import Toolkit
from portkit.kernels.manifest import Kernel, Manifest
from portkit.model import silent

ROOT = Path(__file__).resolve().parents[2]
TOOLKIT = toolkits.first()
needs_nvcc = pytest.mark.skipif(
    TOOLKIT is None or shutil.which("g++") is None, reason="nvcc or g++ is not installed"
)
MANIFEST = Manifest(
    kernels={
        "good": Kernel(
            about="", patches=("p",), sources=("csrc/good.cu", "csrc/host.cpp"), cases=""
        ),
        "bad": Kernel(about="", patches=("p",), sources=("csrc/bad.cu",), cases="", archs=("9.0",)),
    }
)


def trees(folder: Path, header: str = "#define N 1\n") -> Trees:
    csrc = folder / "patched/csrc"
    csrc.mkdir(parents=True, exist_ok=True)
    (csrc / "n.h").write_text(header)
    (csrc / "good.cu").write_text('#include "n.h"\n__global__ void k(int* out) { *out = N; }\n')
    (csrc / "bad.cu").write_text("__global__ void k() { uint128 nothing; }\n")
    (csrc / "host.cpp").write_text("int main() {}\n")
    return Trees(folder / "upstream", folder / "patched", "v1", ("8.0", "9.0"))


def wanted(folder: Path, header: str = "#define N 1\n", torch: str = "2.9.1") -> tuple[Unit, ...]:
    return units(trees(folder, header), MANIFEST, ("good", "bad"), ("8.0", "9.0"), torch)


def environment() -> Environment:
    return Environment(TOOLKIT or Toolkit(Path("/nowhere"), "test"), (), ("test",))


def run(
    asked: tuple[Unit, ...], known: list[CompiledUnit] | None = None, budget: float | None = None
) -> dict[tuple[str, str], Compiled]:
    known = known or []
    recorded = {one.digest: one.compiler for one in known if not one.error}
    changed = compileonly._changed(asked, known)
    done = settle(
        asked, recorded, environment(), patient=changed, budget=budget, jobs=2, events=silent
    )
    return {(one.unit.path, one.unit.arch): one for one in done}


def test_the_digest_is_of_contents_flags_arch_and_torch_and_of_no_place(tmp_path: Path) -> None:
    here = wanted(tmp_path / "here")
    assert [(one.path, one.arch) for one in here] == [
        ("csrc/good.cu", "8.0"), ("csrc/good.cu", "9.0"), ("csrc/bad.cu", "9.0"),
    ]  # fmt: skip
    digests = [one.digest for one in here]
    assert len(set(digests)) == 3
    assert digests == [one.digest for one in wanted(tmp_path / "there")]
    header = [one.digest for one in wanted(tmp_path / "here", "#define N 2\n")]
    assert header[0] != digests[0]
    assert header[2] == digests[2]  # it includes no header
    assert not set(digests) & {one.digest for one in wanted(tmp_path / "here", torch="2.10.0")}


@needs_nvcc
@pytest.mark.usefixtures("_own_cache")
def test_what_compiles_is_recorded_and_not_compiled_again(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    done = run(asked)
    assert done["csrc/good.cu", "9.0"].how == "compiled"
    assert not done["csrc/good.cu", "9.0"].error
    assert "uint128" in done["csrc/bad.cu", "9.0"].error
    known = [compileonly._as_unit(one) for one in done.values()]
    again = run(asked, known)
    assert again["csrc/good.cu", "8.0"].how == again["csrc/good.cu", "9.0"].how == "recorded"
    assert "g++" in again["csrc/good.cu", "9.0"].compiler
    # What failed is no result to rely on.
    assert again["csrc/bad.cu", "9.0"].how == "compiled"
    assert "uint128" in again["csrc/bad.cu", "9.0"].error


@needs_nvcc
@pytest.mark.usefixtures("_own_cache")
def test_a_budget_spares_what_nobody_recorded_and_not_what_changed(tmp_path: Path) -> None:
    known = [
        CompiledUnit(kernel="good", unit="csrc/good.cu", arch="8.0", digest="old", compiler="nvcc")
    ]
    asked = wanted(tmp_path)
    done = run(asked, known, budget=-1.0)
    assert done["csrc/good.cu", "8.0"].how == "compiled"
    assert {how: done[how].how for how in done if how[1] == "9.0"} == {
        ("csrc/good.cu", "9.0"): "left", ("csrc/bad.cu", "9.0"): "left",
    }  # fmt: skip
    assert summary(list(done.values()), ("8.0", "9.0")) == (
        "3 units for 8.0, 9.0: 0 recorded, 1 compiled here (0 of them cached), 2 not compiled; "
        "0 fail"
    )


@needs_nvcc
def test_the_command_prints_what_a_result_file_holds(tmp_path: Path) -> None:
    arguments = ("--archs", "9.0", "--kernels", "next_pow_2", "--recorded", "--json")
    command = [sys.executable, "-m", "kernel_tests", "--compile-only", *arguments]
    printed = subprocess.check_output(command, cwd=ROOT)
    file = tmp_path / results.FOLDER / "compile-linux-13.0-9.0.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(printed)
    (found,) = results.read_all(tmp_path)
    assert [(one.unit, one.error) for one in found.units] == [("next_pow_2.cu", "")]
    assert json.loads(printed)["left"] == []


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))


def result(*made: CompiledUnit, tag: str = "v1", toolkit: str = "13.0") -> CompileResult:
    return CompileResult(
        system="linux", toolkit=toolkit, tag=tag, archs=("8.0", "9.0"), units=made,
        sources={one.kernel: f"{tag} of {one.kernel}" for one in made},
    )  # fmt: skip


def unit(
    kernel: str = "good", digest: str = "d", arch: str = "9.0", error: str = ""
) -> CompiledUnit:
    return CompiledUnit(
        kernel=kernel, unit=f"csrc/{kernel}.cu", arch=arch, digest=digest, compiler="nvcc 13.0.88",
        error=error,
    )  # fmt: skip


def test_a_file_for_each_arch_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = result(unit(), unit("bad", error="error: no"), unit(arch="8.0"))
    files = results.record(tmp_path, made, set())
    assert [file.name for file in files] == [
        "compile-linux-13.0-8.0.json", "compile-linux-13.0-9.0.json",
    ]  # fmt: skip
    eight, nine = results.read_all(tmp_path)
    assert eight.units == (unit(arch="8.0"),)
    assert nine.units == (unit("bad", error="error: no"), unit())
    assert (nine.tag, nine.archs, nine.sources) == ("v1", ("9.0",), made.sources)


def test_a_record_keeps_what_still_holds_and_nothing_else(tmp_path: Path) -> None:
    results.record(tmp_path, result(unit(), unit("bad"), unit("other", "fits")), set())
    results.record(tmp_path, result(unit(digest="new")), set())
    (found,) = results.read_all(tmp_path)
    assert {one.kernel: one.digest for one in found.units} == {
        "good": "new", "bad": "d", "other": "fits",
    }  # fmt: skip
    # At another release only contents count.
    results.record(tmp_path, result(unit(digest="newer"), tag="v2"), {"fits"})
    (found,) = results.read_all(tmp_path)
    assert {one.kernel: one.digest for one in found.units} == {"good": "newer", "other": "fits"}


def test_a_record_of_another_minor_toolkit_holds_of_another_major_does_not() -> None:
    found = [result(unit(digest="a"), toolkit="12.8"), result(unit(digest="b"), toolkit="13.1")]
    assert [one.digest for one in results.known(found, "linux", "13.0")] == ["b"]
    assert results.known(found, "windows", "13.0") == []


@needs_nvcc
def test_archs_are_those_that_upstream_builds_for_and_the_toolkit_knows() -> None:
    assert TOOLKIT is not None
    listed = b'set(CUDA_SUPPORTED_ARCHS "3.5;8.0;9.0")\n'
    assert toolkit_archs(TOOLKIT, listed) == ("8.0", "9.0")
