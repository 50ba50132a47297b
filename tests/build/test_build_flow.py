"""A whole build with real CMake, Ninja, pip and a compiler, of a small upstream."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from smallbuild import PATCHED, SmallBuild, said

from portkit.build.plan import STAGES
from portkit.commands import building
from portkit.upstream.cache import CACHE_VARIABLE

pytestmark = pytest.mark.skipif(
    os.name == "nt" or shutil.which("c++") is None, reason="needs a C++ compiler on PATH"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallBuild]:
    """One for all tests here; each first brings it to the stage it is about."""
    saved = {name: os.environ.get(name) for name in (CACHE_VARIABLE, "CUDA_HOME", "MAX_JOBS")}
    os.environ.pop("MAX_JOBS", None)
    yield SmallBuild.make(tmp_path_factory.mktemp("a small build"))
    for name, value in saved.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def test_the_plan_names_every_command_and_writes_nothing(small: SmallBuild) -> None:
    before = sorted(small.work.rglob("*"))
    out = small.does("--dry-run", "--from", "source")
    assert sorted(small.work.rglob("*")) == before
    assert "export TORCH_CUDA_ARCH_LIST=8.6" in out
    assert f"TINY_SRC_DIR='{small.deps / 'tiny'}'" in out.replace('"', "'")
    assert "cmake --build . -j=" in out and "--target=_C" in out
    assert [line.split(":")[0] for line in out.splitlines() if line.endswith("(to do)")] == [
        one.value for one in STAGES
    ]
    plan = json.loads(small.does("--dry-run", "--json"))
    assert plan["environment"]["VLLM_VERSION_OVERRIDE"] == "1.0.0+cu126.sm86"
    assert plan["stages"][3]["commands"][0]["command"][0] == "cmake"


def test_units_are_what_cmake_compiles(small: SmallBuild) -> None:
    given = ("--python", str(small.python), "--work", str(small.work), "--archs", "8.6")
    ended = said("units", *given, "--deps", str(small.deps), root=small.desk.root)
    assert ended.code == 0, ended
    assert ended.out.splitlines() == [
        "csrc/bindings.cpp", "csrc/other.cpp", "2 units for 8.6: _C 2",
    ]  # fmt: skip
    ended = said("units", "--affected", *given, "--deps", str(small.deps), root=small.desk.root)
    assert ended.out.splitlines()[0] == "csrc/bindings.cpp  (csrc/value.h)"
    assert len(ended.out.splitlines()) == 2


def test_only_the_units_a_patch_touches_are_compiled(small: SmallBuild) -> None:
    small.does("--clean", "--to", "configure")
    out = small.does("--only", "compile", "--affected")
    assert "1 units" in out
    objects = [path.name for path in small.work.rglob("*.o") if "csrc" in path.parts]
    assert objects == ["bindings.cpp.o"]


def test_a_wheel_is_built_verified_and_imported(small: SmallBuild) -> None:
    out = small.does()
    assert "verify" in out
    assert small.wheel.name.startswith("vllm-1.0.0+cu126.sm86-cp38-abi3-linux")
    with zipfile.ZipFile(small.wheel) as archive:
        names = archive.namelist()
    assert {"vllm/_C.abi3.so", "vllm/third_party/helper.py", "vllm/chat/template.jinja"} <= set(
        names
    )
    logs = {path.name: path.read_text() for path in (small.work / "logs").iterdir()}
    assert "copied vllm/third_party/helper.py" in logs["6-post-build.log"]
    assert "ok    import: vllm, vllm._C" in logs["8-verify.log"]


def test_a_second_run_does_nothing_again(small: SmallBuild) -> None:
    small.does()
    before = small.wheel.stat().st_mtime_ns
    lines = small.does().splitlines()
    assert [line.split()[0] for line in lines if line.endswith("up to date")] == [
        one.value for one in STAGES[1:]
    ]
    assert small.wheel.stat().st_mtime_ns == before


def test_a_stage_asked_for_is_done_again(small: SmallBuild) -> None:
    small.does("--to", "compile")
    report = json.loads(small.does("--from", "post-build", "--json"))
    done = {one["stage"]: one["up-to-date"] for one in report["stages"]}
    assert done == {"doctor": False, "post-build": False, "wheel": False, "verify": False}


def test_a_failed_compile_names_source_error_and_log_and_goes_on_after_it(
    small: SmallBuild,
) -> None:
    small.does("--to", "compile")
    broken = small.work / "source/csrc/other.cpp"
    good = broken.read_bytes()
    broken.write_bytes(b"long other() { return undeclared; }\n")
    ended = small.run("--from", "compile")
    assert ended.code == 6
    assert ended.err.startswith(f"error: compile: {broken}:1")
    assert "undeclared" in ended.err and "was not declared in this scope" in ended.err
    assert "logs/5-compile.log:" in ended.err
    assert len(ended.err.splitlines()) <= 3
    ended = small.run("--from", "compile", "--json")
    (step,) = json.loads(ended.out)["failed"]["steps"]
    assert step["source"] == str(broken) and "undeclared" in step["error"]
    broken.write_bytes(good)
    out = small.does("--from", "compile", "--to", "compile")
    assert "all modules" in out


def test_a_hand_edited_source_is_put_right_by_its_stage(small: SmallBuild) -> None:
    small.does("--to", "source")
    file = small.work / "source/csrc/value.h"
    file.write_bytes(b"edited\n")
    out = small.does("--only", "source")
    assert "1 files written" in out
    assert file.read_bytes() == PATCHED["csrc/value.h"]


def test_a_dependency_that_is_missing_is_one_sentence(small: SmallBuild, tmp_path: Path) -> None:
    words = ("--python", str(small.python), "--work", str(tmp_path), "--archs", "8.6")
    ended = said(*words, "--deps", str(tmp_path / "none"), "--to", "deps", root=small.desk.root)
    assert ended.code == 2
    assert "has no folder tiny" in ended.err and "v1.2" in ended.err


def test_stages_that_contradict_are_one_sentence(small: SmallBuild) -> None:
    assert "comes after --to source" in small.run("--from", "wheel", "--to", "source").err
    assert small.run("--only", "wheel", "--to", "source").code == 2
    small.does("--to", "configure")
    assert "no unit matches nosuch" in small.run("--only", "compile", "--units", "nosuch").err


def test_a_build_goes_on_without_the_options_it_was_started_with(small: SmallBuild) -> None:
    small.does("--to", "configure")
    ended = said("--work", str(small.work), "--to", "configure", root=small.desk.root)
    assert ended.code == 0, ended
    assert ended.out.startswith("as in the last build here: --python ")
    assert "configure   up to date" in ended.out


def test_one_build_at_a_time_in_a_work_folder(small: SmallBuild) -> None:
    with building.held(small.work):
        ended = small.run("--to", "source")
    assert ended.code == 4
    assert "another build is at work" in ended.err


def test_a_clean_build_starts_anew(small: SmallBuild) -> None:
    small.does("--to", "configure")
    out = small.does("--clean", "--to", "source")
    assert "up to date" not in out
    assert not (small.work / "source/build").exists()
