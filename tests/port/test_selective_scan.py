"""The selective scan launches, for each input, the kernel that upstream launches.

The comparison is the audit's (`portkit.audit.dispatch`)."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from portkit.audit import dispatch
from portkit.cuda.includes import Read

needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def reader(tree: pathlib.Path) -> Read:
    return lambda path: (tree / path).read_bytes()


@needs_gxx
@pytest.mark.parametrize("flags", [(), ("-DUSE_ROCM",)], ids=["cuda", "rocm"])
def test_every_input_launches_upstreams_kernel(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, flags: tuple[str, ...]
) -> None:
    upstream = dispatch.launches(reader(pristine_tree), flags)
    patched = dispatch.launches(reader(patched_tree), flags)
    system = "hip " if flags else "cuda "
    assert any(system in line for line in upstream.lines)
    assert patched.lines == upstream.lines
    assert len(upstream.kernels) == len(set(upstream.kernels)) >= 160
    assert patched.kernels == upstream.kernels


@needs_gxx
def test_no_lambda_stands_between_a_flag_and_its_use(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A compiler that never sees constants inside lambdas, as MSVC here, builds the launchers.

    Such a compiler is had by a ``BOOL_SWITCH`` whose flags are no constants."""
    switch = (
        b"#define BOOL_SWITCH(COND, NAME, ...) [&] { const bool NAME = COND; "
        b"return __VA_ARGS__(); }()\n"
    )
    results = {}
    for tree in (pristine_tree, patched_tree):
        code = tmp_path / "scan.cpp"
        code.write_text(dispatch.harness(reader(tree), switch))
        command = ["g++", "-std=c++17", "-fsyntax-only", str(code)]
        results[tree] = subprocess.run(command, check=False, capture_output=True).returncode
    assert results[pristine_tree] != 0
    assert results[patched_tree] == 0
