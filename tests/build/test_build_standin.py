"""The real project of the pin, configured by CMake with a real nvcc and stand-ins for the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from portkit.commands import build
from portkit.cuda import toolkits
from portkit.face import console
from portkit.patches import series
from portkit.upstream.git import Store

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or toolkits.first() is None,
    reason="needs nvcc, on Linux",
)


@pytest.mark.upstream
def test_units_of_the_pin_and_those_a_patch_touches(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["units", "--archs", "8.6", "--stand-ins", "--json", "--work", str(tmp_path / "a b")]
    assert build.main(words, console.ROOT) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["counts"] == {"_C": 55, "_moe_C": 22, "cumem_allocator": 1}
    assert all(
        unit["archs"] in (["sm_86"], ["sm_80"], ["sm_80", "compute_80"])
        for unit in read["units"]
        if unit["source"].endswith(".cu")
    )
    touched = {name for unit in read["units"] for name in unit["touched-by"]}
    kernels = {one.path for one in series.load(console.ROOT).upstream if one.group == "kernels"}
    assert touched <= kernels
    common = {"csrc/core/math.hpp", "csrc/quantization/utils.cuh", "csrc/cumem_allocator.cpp"}
    assert common <= touched
    own = [unit["source"] for unit in read["units"] if unit["source"] in unit["touched-by"]]
    assert "csrc/cumem_allocator.cpp" in own
    generated = [unit for unit in read["units"] if "sm80_kernel_" in unit["source"]]
    assert generated and all("generate_kernels.py" in str(u["touched-by"]) for u in generated)
