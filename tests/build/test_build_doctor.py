"""What the doctor says of machines: a recorded Windows desktop, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from recorded import GIB, TARGET, Variables, WindowsDesktop, parsed_set, toolkit

from portkit.build import environment, examine, health
from portkit.build.examine import Findings, Wanted
from portkit.build.machine import Memory
from portkit.build.pinned import Pinned
from portkit.build.words import Check, Status
from portkit.commands import doctor
from portkit.errors import BadInput
from portkit.face import console
from portkit.model import Pin

FILES = {
    "requirements/cuda.txt": b"torch==2.9.1\n",
    "pyproject.toml": b"[build-system]\nrequires = ['cmake>=3.26.1', 'ninja', 'torch == 2.9.1']\n"
    b"[project]\nrequires-python = '>=3.10,<3.14'\n",
    "CMakeLists.txt": b'set(CUDA_SUPPORTED_ARCHS "7.0;8.0;8.6;9.0")\n',
}
PIN = Pin("https://upstream.invalid/vllm", "v0.14.1", "0" * 40, None, "0" * 40, "0" * 40)
PACKAGES = {"cmake": "3.31.10", "ninja": "1.13.0"}


@pytest.fixture
def pinned() -> Pinned:
    return Pinned(PIN, tuple(FILES), lambda path: FILES[path])


def desktop(tmp_path: Path, **changes: Any) -> WindowsDesktop:
    """The desktop with its two toolkits; `torch` and other keys of the target may be changed."""
    made = changes.pop("toolkits", ("12.6", "13.0"))
    variables = parsed_set("set-before.txt")
    variables["CUDA_PATH"] = str(tmp_path / "v13.0")
    for version in made:
        root = toolkit(tmp_path / f"v{version}", f"{version}.85", "70 75 80 86 90")
        variables[f"CUDA_PATH_V{version.replace('.', '_')}"] = str(root)
    target = {**TARGET, "packages": PACKAGES, **changes.pop("target", {})}
    machine = WindowsDesktop(variables=Variables(variables), target=target)
    for name, value in changes.items():
        setattr(machine, name, value)
    return machine


def look(machine: WindowsDesktop, pinned: Pinned, **wanted: Any) -> dict[str, Check]:
    return {one.name: one for one in found(machine, pinned, **wanted).checks}


def found(machine: WindowsDesktop, pinned: Pinned, **wanted: Any) -> Findings:
    given = {"work": Path("C:/vllm/work"), "python": Path("python.exe"), **wanted}
    return examine.examine(machine, Wanted(**given), pinned)


def test_a_right_desktop_has_no_failure_and_each_choice_is_told(
    tmp_path: Path, pinned: Pinned
) -> None:
    checks = look(desktop(tmp_path), pinned)
    assert [one for one in checks.values() if one.status is Status.FAIL] == []
    assert checks["toolkit"].said.startswith(f"12.6.85 in {tmp_path / 'v12.6'}")
    assert "torch was built with CUDA 12.6" in checks["toolkit"].said
    assert "13.0.85" in checks["toolkits"].said
    assert checks["compiler"].said.startswith("MSVC 19.43 (toolset 14.43.34808) of Visual Studio")
    assert checks["architectures"].said == "8.6 (of this machine's GPU)"
    assert checks["jobs"].said.startswith("13 (40.0 GiB of RAM are free")
    assert "core.autocrlf true (these tools write exact bytes" in checks["git"].said


@pytest.mark.parametrize(
    ("torch", "status", "words"),
    [
        (None, Status.FAIL, "not installed"),
        ({"version": "2.9.1+cpu", "cuda": None, "hip": None}, Status.FAIL, "without CUDA"),
        ({"version": "2.9.1", "error": "OSError: [WinError 126]"}, Status.FAIL, "WinError 126"),
        ({"version": "2.9.1+rocm6.4", "cuda": None, "hip": "6.4"}, Status.FAIL, "ROCm"),
        ({"version": "2.10.0+cu126", "cuda": "12.6", "hip": None}, Status.WARN, "made for 2.9.1"),
    ],
)
def test_a_torch_that_will_not_do(
    tmp_path: Path, pinned: Pinned, torch: object, status: Status, words: str
) -> None:
    check = look(desktop(tmp_path, target={"torch": torch}), pinned)["torch"]
    assert check.status is status
    assert words in check.said
    assert "pytorch.org" in check.remedy


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"version": "3.9.13"}, "is for <3.14,>=3.10"),
        ({"bits": 32}, "32 bits"),
        ({"implementation": "pypy"}, "pypy"),
        ({"libraries": False}, "without python3.lib"),
        ({"headers": False}, "without Python.h"),
    ],
)
def test_a_python_that_will_not_do(
    tmp_path: Path, pinned: Pinned, target: dict[str, object], words: str
) -> None:
    check = look(desktop(tmp_path, target=target), pinned)["python"]
    assert check.status is Status.FAIL
    assert words in check.said


def test_a_developer_prompt_is_taken_if_nvcc_takes_it(tmp_path: Path, pinned: Pinned) -> None:
    for toolset, status in (("14.43.34808", Status.OK), ("14.50.35717", Status.FAIL)):
        machine = desktop(tmp_path / toolset)
        prompt = {"VSCMD_ARG_TGT_ARCH": "x64", "VCToolsVersion": toolset}
        machine.variables = Variables({**machine.variables, **prompt})
        check = look(machine, pinned)["compiler"]
        assert check.status is status and toolset in check.said
        assert not any("vswhere" in line for line in machine.said)


def test_no_toolkit_for_this_torch_is_a_failure(tmp_path: Path, pinned: Pinned) -> None:
    check = look(desktop(tmp_path, toolkits=("13.0",)), pinned)["toolkit"]
    assert check.status is Status.FAIL
    assert "built with CUDA 12.6" in check.said and "13.0.85" in check.said


def test_packages_that_upstreams_build_asks_for(tmp_path: Path, pinned: Pinned) -> None:
    machine = desktop(tmp_path, target={"packages": {"cmake": "4.0.1", "ninja": None}})
    check = look(machine, pinned)["build packages"]
    assert check.status is Status.FAIL
    assert "cmake>=3.26.1 (there is 4.0.1)" in check.said
    assert check.remedy == 'python -m pip install "cmake>=3.26.1" "ninja"'


def test_architectures_without_a_gpu_must_be_named(tmp_path: Path, pinned: Pinned) -> None:
    machine = desktop(tmp_path, smi="")
    assert look(machine, pinned)["architectures"].status is Status.FAIL
    checks = look(machine, pinned, archs="9.0 8.6")
    assert checks["architectures"].said == "8.6 9.0 (--archs)"
    assert checks["gpu"].status is Status.WARN


def test_folders_that_windows_programs_stumble_over(tmp_path: Path, pinned: Pinned) -> None:
    machine = desktop(tmp_path, long_paths=0)
    checks = found(machine, pinned, work=Path(r"C:\Users\Jürgen\OneDrive\v llm")).checks
    said = {(one.name, one.status): one for one in checks}
    assert "LongPathsEnabled" in said["paths", Status.WARN].remedy
    assert said["slow folder", Status.WARN]
    letters = [one.said for one in checks if one.name == "letters"]
    assert any("Jürgen" in one and "work folder" in one for one in letters)
    assert any("TEMP" in one for one in letters)
    deep = look(machine, pinned, work=Path("C:/" + "x" * 120))["paths"]
    assert deep.status is Status.FAIL and "--work" in deep.remedy


def test_a_small_paging_file_is_told(tmp_path: Path, pinned: Pinned) -> None:
    ram = Memory(32 * GIB, 20 * GIB, 34 * GIB, 18 * GIB)
    check = look(desktop(tmp_path, ram=ram), pinned)["memory"]
    assert check.status is Status.WARN and "1455" in check.remedy


def test_the_environment_of_a_build(tmp_path: Path, pinned: Pinned) -> None:
    machine = desktop(tmp_path)
    added = environment.environment(
        machine,
        found(machine, pinned),
        version="0.14.1+cu126.win",
        deps={"VLLM_CUTLASS_SRC_DIR": "C:/vllm/work/deps/cutlass"},
        fetched=Path("C:/vllm/work/fetched"),
    )
    home = str(tmp_path / "v12.6")
    assert (added["CUDA_HOME"], added["CUDA_PATH"]) == (home, home)
    assert added["TORCH_CUDA_ARCH_LIST"] == "8.6"
    assert added["MAX_JOBS"] == "13"
    assert added["VLLM_TARGET_DEVICE"] == "cuda"
    assert added["DISTUTILS_USE_SDK"] == "1"
    assert "14.43.34808" in added["INCLUDE"]
    assert added["PATH"].split(";")[0] == str(tmp_path / "v12.6/bin")
    assert r"MSVC\14.43.34808\bin\HostX64\x64" in added["PATH"]
    assert [name for name in added if name.upper() == "PATH"] == ["PATH"]


def test_no_environment_without_what_it_needs(tmp_path: Path, pinned: Pinned) -> None:
    machine = desktop(tmp_path, target={"torch": None})
    with pytest.raises(BadInput, match="lacks what a build needs"):
        environment.environment(
            machine, found(machine, pinned), version="1", deps={}, fetched=Path("x")
        )


def test_an_installed_vllm_and_its_modules(tmp_path: Path, pinned: Pinned) -> None:
    installed = {
        "vllm": "0.14.1+cu126.win",
        "modules": {"vllm._C": "ImportError: DLL load failed while importing _C: not found"},
    }
    machine = desktop(tmp_path, target=installed)
    checks = list(health.running(machine, found(machine, pinned), pinned))
    broken = next(one for one in checks if one.name == "vllm")
    assert broken.status is Status.FAIL and "redistributable" in broken.remedy
    fine = desktop(tmp_path / "2", target={**installed, "modules": {"vllm._C": ""}})
    checks = list(health.running(fine, found(fine, pinned), pinned))
    assert {one.name: one.status for one in checks}["vllm"] is Status.OK
    settings = next(one for one in checks if one.name == "settings")
    assert "VLLM_HOST_IP=127.0.0.1" in settings.said and settings.status is Status.WARN


def test_an_old_driver_and_a_torch_that_sees_no_gpu(tmp_path: Path, pinned: Pinned) -> None:
    torch = {"version": "2.9.1+cu126", "cuda": "12.6", "hip": None, "gpu": False}
    machine = desktop(tmp_path, target={"torch": torch}, smi="RTX 3090, 8.6, 24576, 472.12, 0\n")
    checks = {one.name: one for one in health.running(machine, found(machine, pinned), pinned)}
    assert checks["driver"].status is Status.FAIL and "525" in checks["driver"].said
    assert checks["torch's GPU"].status is Status.FAIL


def test_who_only_runs_vllm_is_not_told_that_a_compiler_fails() -> None:
    checks = [Check("compiler", Status.FAIL, "none"), Check("torch", Status.FAIL, "none")]
    shown = health.for_running(checks)
    assert [one.status for one in shown] == [Status.WARN, Status.FAIL]
    assert shown[0].said == "none (only to build)"


def test_requirements_of_the_pin(pinned: Pinned) -> None:
    assert pinned.build_requirements == (Requirement("cmake>=3.26.1"), Requirement("ninja"))
    assert pinned.python == SpecifierSet(">=3.10,<3.14")
    assert pinned.torch == "2.9.1"


@pytest.mark.upstream
def test_the_command_reads_a_powershell_log_and_prints_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], store: object
) -> None:
    log = tmp_path / "build log.txt"
    log.write_bytes(
        "nvcc fatal   : Unsupported gpu architecture 'compute_120'\r\n".encode("utf-16")
    )
    machine = desktop(tmp_path / "there")
    code = doctor.main(["--json", str(log), "--python", "python.exe"], console.ROOT, machine)
    printed = json.loads(capsys.readouterr().out)
    assert code == 1
    assert printed["log"][0]["name"] == "line 1"
    assert "12.8" in printed["log"][0]["remedy"]
    assert {one["status"] for one in printed["checks"]} <= {"ok", "info", "warn", "fail"}
