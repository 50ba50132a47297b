"""What the log of a failed build or run says, and what is known of it."""

from __future__ import annotations

import re

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import read

from portkit.build import health
from portkit.build.catalogue import catalogue, recognise, render
from portkit.build.failure import failures
from portkit.build.words import Status
from portkit.face import console

COMMAND = (
    r"C:\PROGRA~1\NVIDIA~2\CUDA\v12.6\bin\nvcc.exe -forward-unknown-to-host-compiler -x cu "
    r"-c C:\vllm\work\source\csrc\core\x.cu -o CMakeFiles\_C.dir\csrc\core\x.cu.obj"
)
MSVC = f"""\
[12/78] Building CUDA object CMakeFiles/_C.dir/csrc/ok.cu.obj
[13/78] Building CUDA object CMakeFiles/_C.dir/csrc/core/x.cu.obj
FAILED: [code=2] CMakeFiles/_C.dir/csrc/core/x.cu.obj
{COMMAND}
x.cu
C:/vllm/work/source/csrc/core/x.cu(88): warning #177-D: variable "error" was declared but never used
C:/vllm/work/source/csrc/core/x.cu(120): fatal error C1061: compiler limit: blocks nested too deeply
[14/78] Building CUDA object CMakeFiles/_C.dir/csrc/other.cu.obj
FAILED: CMakeFiles/_moe_C.dir/csrc/moe/y.cu.obj
nvcc.exe -x cu -c C:\\vllm\\work\\source\\csrc\\moe\\y.cu -o y.cu.obj
C:\\vllm\\work\\source\\csrc\\moe\\y.cu(7): error: identifier "uint" is undefined

1 error detected in the compilation of "C:/vllm/work/source/csrc/moe/y.cu".
ninja: build stopped: subcommand failed.
"""

# What each message of the field is called; every name must be in the catalogue.
MESSAGES = tomli.loads(read("messages.toml"))


def test_each_failed_step_has_its_source_and_its_first_error() -> None:
    first, second = failures(MSVC)
    assert first.source == r"C:\vllm\work\source\csrc\core\x.cu"
    assert "C1061" in first.error and first.line == 7
    assert first.known is not None and first.known.name == "c1061"
    assert second.source.endswith("y.cu")
    assert second.error.endswith('error: identifier "uint" is undefined')
    assert second.known is None


def test_an_error_of_cmake_is_told_with_its_sentence() -> None:
    log = (
        "-- Target device: cuda\n"
        "CMake Error at Caffe2Config.cmake:90 (message):\n"
        "  Your installed Caffe2 version uses CUDA but I cannot find the CUDA\n"
        "  libraries.\n\nCall Stack (most recent call first):\n  x.cmake:1\n"
    )
    (failure,) = failures(log)
    assert "uses CUDA but I cannot find the CUDA libraries." in failure.error
    assert failure.known is not None and failure.known.name == "cuda-not-found"


def test_a_compiler_that_was_killed_has_a_remedy() -> None:
    log = (
        "FAILED: a.o\nnvcc -c a.cu -o a.o\n"
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)\nninja: build stopped\n"
    )
    (failure,) = failures(log)
    assert failure.source == "a.cu"
    assert failure.known is not None and "--jobs" in failure.known.remedy


def test_a_source_below_a_folder_with_a_space_is_named_whole() -> None:
    log = (
        'FAILED: [code=1] a.o\nc++ -c "/the work/csrc/a.cpp" -o a.o\n'
        "/the work/csrc/a.cpp:1:9: error: no such thing\n"
    )
    (failure,) = failures(log)
    assert failure.source == "/the work/csrc/a.cpp"
    assert failure.error.endswith("no such thing")


def test_a_log_without_an_error_has_no_failure() -> None:
    assert failures("-- Configuring done\n[78/78] Linking CXX shared module _C.abi3.so\n") == ()
    assert [one.status for one in health.log_checks("all is well\n")] == [Status.OK]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_of_the_field_are_recognised(name: str) -> None:
    text = f"some line\n{MESSAGES[name]}\nanother line\n"
    found = recognise(text.splitlines())
    assert found is not None and found.known.name == name


def test_the_catalogue_is_whole() -> None:
    names = [one.name for one in catalogue()]
    assert set(MESSAGES) <= set(names)
    for one in catalogue():
        assert one.title and one.cause.endswith(".") and len(one.remedy) > 10, one.name
        assert re.fullmatch(r"[a-z0-9-]+", one.name)


def test_the_page_of_known_failures_is_current() -> None:
    assert (console.ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8") == render()


def test_a_log_names_lines_and_remedies() -> None:
    text = (
        "x\nRuntimeError: unsupported gloo device\ny\nValueError: low is out of bounds for int32\n"
    )
    checks = health.log_checks(text)
    assert [one.name for one in checks] == ["line 2", "line 4"]
    assert all(one.status is Status.FAIL and one.remedy for one in checks)
    unknown = health.log_checks("Traceback\nValueError: something quite new\n")
    assert [one.status for one in unknown] == [Status.WARN]


@settings(max_examples=30)
@given(st.text(max_size=120))
def test_any_text_is_read_without_an_error(text: str) -> None:
    lines = text.splitlines()
    for failure in failures(text):
        assert 1 <= failure.line <= len(lines)
