"""The real ``CMakeLists.txt``, configured by a real CMake, on Linux and on a pretended Windows.

Torch, CUDA and the fetched projects are stand-ins that a hook after ``project()`` puts in; on the
pretended Windows the hook sets ``WIN32`` and ``MSVC``. Every path has a space and parentheses, as
``C:/Program Files (x86)`` has. The interpreter is a script that notes what it is asked to run."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pretends Windows on Linux")

HOOK = r"""
macro(find_package NAME)
  if("${NAME}" STREQUAL "Python")
    set(Python_FOUND TRUE)
    set(Python_VERSION_MAJOR 3)
    set(Python_VERSION_MINOR 10)
  else()
    # What torch does: the toolkit it was told, or the one of CUDA_PATH.
    if(NOT CUDA_TOOLKIT_ROOT_DIR)
      set(CUDA_TOOLKIT_ROOT_DIR "$ENV{CUDA_PATH}")
    endif()
    set(CUDA_FOUND TRUE)
    set(CUDA_VERSION ${FAKE_CUDA})
    set(CMAKE_CUDA_COMPILER_VERSION ${FAKE_CUDA})
    set(CMAKE_CUDA_FLAGS "-gencode arch=compute_90,code=sm_90 -gencode arch=compute_86,code=sm_86")
    set(Torch_VERSION 2.9.1)
    set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
    foreach(target torch CUDA::cudart CUDA::cuda_driver CUDA::cublas)
      add_library(${target} INTERFACE IMPORTED GLOBAL)
    endforeach()
  endif()
endmacro()

macro(Python_add_library NAME)
  set(_sources "${ARGN}")
  list(FILTER _sources INCLUDE REGEX "csrc/.*\\.(cpp|cu)$")
  add_library(${NAME} MODULE ${_sources})
endmacro()

macro(FetchContent_Declare)
endmacro()
macro(FetchContent_Populate NAME)
  set(${NAME}_SOURCE_DIR "${CMAKE_BINARY_DIR}")
endmacro()
macro(FetchContent_MakeAvailable)
endmacro()
macro(include FILE)
  if(NOT "${FILE}" MATCHES "FetchContent|external_projects")
    _include("${FILE}" ${ARGN})
  endif()
endmacro()

set(CUTLASS_DIR "/cutlass")
if(FAKE_WINDOWS)
  set(WIN32 TRUE)
  set(MSVC TRUE)
endif()

function(report)
  get_directory_property(options COMPILE_OPTIONS)
  get_directory_property(definitions COMPILE_DEFINITIONS)
  get_target_property(libraries _C LINK_LIBRARIES)
  get_target_property(moe_libraries _moe_C LINK_LIBRARIES)
  foreach(name options definitions libraries moe_libraries CUDA_TOOLKIT_ROOT_DIR CMAKE_CXX_FLAGS)
    file(APPEND "${CMAKE_BINARY_DIR}/report.txt" "${name}=${${name}}\n")
  endforeach()
endfunction()
cmake_language(DEFER CALL report)
"""

PYTHON = """#!{python}
import json, os, sys
if sys.argv[1] == "-c":
    answers = {{"prefix": "/fake torch", "NVCC": "--expt-relaxed-constexpr", "GIL": "0"}}
    print(next(answer for word, answer in answers.items() if word in sys.argv[2]))
else:
    with open({log!r}, "a") as log:
        log.write(json.dumps([sys.argv[1:], os.environ["PYTHONPATH"]]) + "\\n")
"""


@dataclasses.dataclass
class Configured:
    """One configure run: its output and what the stand-ins noted."""

    status: int
    output: str
    build: pathlib.Path
    generators: list[tuple[list[str], str]]
    """What the interpreter was asked to run, and its ``PYTHONPATH``."""

    @property
    def report(self) -> dict[str, str]:
        lines = (self.build / "report.txt").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def commands(self) -> dict[str, list[str]]:
        """The compile command of each source, as the compiler gets it."""
        entries = json.loads((self.build / "compile_commands.json").read_text())
        return {pathlib.Path(e["file"]).name: shlex.split(e["command"]) for e in entries}


def cmake_program() -> tuple[str, str]:
    program = shutil.which(
        "cmake", path=os.pathsep.join([str(pathlib.Path(sys.executable).parent)])
    )
    program = program or shutil.which("cmake")
    if program is None or not (shutil.which("ninja") or shutil.which("make")):
        pytest.skip("no cmake, or nothing to generate for")
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"\d+\.\d+", shown.stdout)
    assert version is not None
    if tuple(map(int, version[0].split("."))) < (3, 19):
        pytest.skip("cmake is too old")
    return program, version[0]


def configure(
    tree: pathlib.Path,
    tmp: pathlib.Path,
    *,
    windows: bool = False,
    cuda: str = "12.6",
    python: str | None = None,
    environment: dict[str, str] | None = None,
    sources: pathlib.Path | None = None,
    trace: bool = False,
) -> Configured:
    """Configure a copy of a tree's CMake files; sources are only named and hashed, so linked."""
    program, version = cmake_program()
    project, build = tmp / "my project (x86)", tmp / "my build (x86)"
    shutil.rmtree(tmp, ignore_errors=True)
    shutil.copytree(tree / "cmake", project / "cmake")
    lists = (tree / "CMakeLists.txt").read_text(encoding="utf-8")
    # What the file needs of CMake 3.26 is not what is tested here.
    lists = lists.replace("VERSION 3.26)", f"VERSION {min(version, '3.26', key=len_then_text)})", 1)
    (project / "CMakeLists.txt").write_text(lists, encoding="utf-8")
    (project / "csrc").symlink_to((sources or tree) / "csrc")
    (tmp / "hook.cmake").write_text(HOOK)
    log, interpreter = tmp / "generators.jsonl", tmp / "bin dir" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text(PYTHON.format(python=sys.executable, log=str(log)))
    interpreter.chmod(0o755)
    definitions = {
        "CMAKE_PROJECT_vllm_extensions_INCLUDE": str(tmp / "hook.cmake"),
        "FAKE_WINDOWS": "ON" if windows else "OFF",
        "FAKE_CUDA": cuda,
        "VLLM_PYTHON_EXECUTABLE": python or str(interpreter),
        "VLLM_PYTHON_PATH": "C:/one;C:/two dir" if windows else "/one:/two dir",
        "FETCHCONTENT_BASE_DIR": str(tmp / "deps dir"),
        "CUTLASS_INCLUDE_DIR": "/cutlass/include",
    }
    command = [program, "-S", str(project), "-B", str(build), "-Wno-dev"]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    if trace:
        command += ["--trace-expand", "--trace-format=json-v1", f"--trace-redirect={tmp / 'trace'}"]
    command += [f"-D{name}={value}" for name, value in definitions.items()]
    names = ("CUDA_HOME", "PYTHONPATH", "CXXFLAGS", "VLLM_CUTLASS_SRC_DIR")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    clean |= {"CUDA_PATH": "/usr/local/cuda", "PYTHONPATH": "/a:/b", **(environment or {})}
    done = subprocess.run(command, check=False, env=clean, capture_output=True, text=True)
    lines = log.read_text().splitlines() if log.exists() else []
    runs = [(argv, path) for argv, path in map(json.loads, lines)]
    return Configured(done.returncode, done.stdout + done.stderr, build, runs)


def len_then_text(version: str) -> tuple[int, str]:
    return (len(version), version)


def executed(tmp: pathlib.Path) -> list[tuple[str, list[str]]]:
    """The commands that ran in vLLM's own CMake files, in order, with their arguments expanded."""
    commands = []
    for line in (tmp / "trace").read_text().splitlines():
        entry = json.loads(line)
        if "my project" not in entry.get("file", ""):
            continue
        commands.append((entry["cmd"].lower(), entry["args"]))
    return commands


def effects(tmp: pathlib.Path) -> list[tuple[str, list[str]]]:
    """``executed`` without the conditions, whose results the rest shows."""
    helper = ("set", ["_PATHSEP", ":"])
    return [c for c in executed(tmp) if c[0] not in ("if", "elseif", "else") and c != helper]


@pytest.mark.parametrize("cuda", ["12.6", "12.8", "13.0"])
def test_linux_runs_upstreams_commands(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path, cuda: str
) -> None:
    """Command for command the same, and so the build files are, for each CUDA."""
    tmp = tmp_path / "same place"
    environment = {"CUDA_HOME": "/opt/another cuda"}
    results = []
    for tree in (pristine_tree, patched_tree):
        done = configure(
            tree, tmp, cuda=cuda, environment=environment, sources=pristine_tree, trace=True
        )
        assert done.status == 0, done.output
        results.append((done.report, done.commands, done.generators, effects(tmp)))
    upstream, patched = results
    assert upstream[0]["CUDA_TOOLKIT_ROOT_DIR"] == "/usr/local/cuda"
    cccl = "-I/usr/local/cuda/include/cccl" in upstream[0]["CMAKE_CXX_FLAGS"]
    assert cccl == (cuda == "13.0")
    assert len(upstream[2]) == 3
    for before, now in zip(upstream, patched, strict=True):
        assert now == before


def test_windows_compiles_with_what_msvc_needs(
    patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    toolkit = "/opt/Program Files (x86)/CUDA/v13.0"
    done = configure(
        patched_tree, tmp_path / "w", windows=True, cuda="13.0", environment={"CUDA_HOME": toolkit}
    )
    assert done.status == 0, done.output
    command = done.commands["torch_bindings.cpp"]
    for wanted in (
        f"-I{toolkit}/include",
        f"-I{toolkit}/include/cccl",
        "/Zc:preprocessor",
        "-D_CRT_DECLARE_NONSTDC_NAMES=1",
        "-DUSE_CUDA",
    ):
        assert wanted in command
    cuda_option = "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=/Zc:preprocessor>"
    assert cuda_option in done.report["options"].split(";")


def test_windows_paths_with_spaces_split_upstreams_command(
    pristine_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    environment = {"CUDA_PATH": "/opt/Program Files (x86)/CUDA/v12.6"}
    done = configure(pristine_tree, tmp_path / "w", environment=environment)
    assert done.status == 0, done.output
    flags = done.report["CMAKE_CXX_FLAGS"]
    with pytest.raises(ValueError, match="not in list"):
        shlex.split(flags, posix=True).index("-I/opt/Program Files (x86)/CUDA/v12.6/include")


def test_windows_toolkit_is_the_one_of_cuda_home(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Backslashes as Windows writes them; ``CUDA_PATH`` names the toolkit installed last."""
    environment = {"CUDA_HOME": "\\opt\\cuda v12.6\\", "CUDA_PATH": "/opt/cuda-13.0"}
    for tree, windows, toolkit in (
        (pristine_tree, False, "/opt/cuda-13.0"),
        (patched_tree, False, "/opt/cuda-13.0"),
        (patched_tree, True, "/opt/cuda v12.6"),
    ):
        done = configure(tree, tmp_path / "w", windows=windows, environment=environment)
        assert done.status == 0, done.output
        assert done.report["CUDA_TOOLKIT_ROOT_DIR"] == toolkit


def test_windows_links_cublas_into_c_alone(
    patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for windows in (True, False):
        done = configure(patched_tree, tmp_path / "w", windows=windows)
        assert done.status == 0, done.output
        assert ("CUDA::cublas" in done.report["libraries"].split(";")) == windows
        assert "CUDA::cublas" not in done.report["moe_libraries"].split(";")


def test_windows_interpreter_may_be_written_with_backslashes(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    tmp = tmp_path / "Program Files (x86)"
    python = str(tmp / "bin dir" / "python").replace("/", "\\")
    failed = configure(pristine_tree, tmp, windows=True, python=python)
    assert failed.status != 0
    assert "Invalid character escape" in failed.output
    done = configure(patched_tree, tmp, windows=True, python=python)
    assert done.status == 0, done.output


@pytest.mark.parametrize("path", ["C:/one;C:/two dir", ""])
def test_windows_generators_get_the_whole_python_path(
    patched_tree: pathlib.Path, tmp_path: pathlib.Path, path: str
) -> None:
    done = configure(patched_tree, tmp_path / "w", windows=True, environment={"PYTHONPATH": path})
    assert done.status == 0, done.output
    paths = {pathlib.Path(argv[0]).parent.name: search for argv, search in done.generators}
    assert paths["gptq_marlin"] == paths["marlin_moe_wna16"] == path
    extensions = tmp_path / "w" / "my project (x86)" / "csrc" / "cutlass_extensions"
    assert paths["machete"] == f"{extensions}/;/cutlass/python/;C:/one;C:/two dir;{path}"


def test_python_path_of_two_entries_breaks_upstream_on_windows(
    pristine_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    environment = {"PYTHONPATH": "C:/one;C:/two"}
    done = configure(pristine_tree, tmp_path / "w", windows=True, environment=environment)
    assert done.status != 0
    assert "Marlin generation failed" in done.output


def test_interpreter_below_a_folder_with_a_semicolon(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The macro itself: a path with a semicolon stays one argument."""
    program, _ = cmake_program()
    python = tmp_path / "a;b (x86)" / "python"
    python.parent.mkdir()
    python.touch()
    script = tmp_path / "call.cmake"

    def call(tree: pathlib.Path) -> subprocess.CompletedProcess[str]:
        script.write_text(
            "cmake_minimum_required(VERSION 3.19)\n"
            "macro(find_package)\n  set(Python_FOUND TRUE)\n"
            "  set(Python_VERSION_MAJOR 3)\n  set(Python_VERSION_MINOR 10)\nendmacro()\n"
            f'include("{(tree / "cmake" / "utils.cmake").as_posix()}")\n'
            f'find_python_from_executable("{python.as_posix()}" "3.10")\n'
            'message(STATUS "chosen=[${Python_EXECUTABLE}]")\n'
        )
        command = [program, "-P", str(script)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    assert call(pristine_tree).returncode != 0
    done = call(patched_tree)
    assert done.returncode == 0, done.stderr
    assert f"chosen=[{python.as_posix()}]" in done.stdout
