"""Level 2 on two small trees: what is compiled and recorded, what the record is good for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from portkit.audit import records
from portkit.audit.doubt import Doubt
from portkit.audit.level2 import SameCode, Undecided
from portkit.audit.records import Records
from portkit.audit.units import Unit, Units
from portkit.cuda import toolkits
from portkit.cuda.nvcc import Environment
from portkit.upstream.cache import Cache

TOOLKIT = toolkits.first()
needs_nvcc = pytest.mark.skipif(
    TOOLKIT is None or shutil.which("g++") is None, reason="nvcc or g++ is not installed"
)
HEADER = "csrc/limit.cuh"
UPSTREAM = {
    "CMakeLists.txt": b"""
set(SRC "csrc/a.cu")
if(VLLM_GPU_LANG STREQUAL "CUDA")
  list(APPEND SRC "csrc/cuda_only.cu" "csrc/not there.cu")
endif()
if(VLLM_GPU_LANG STREQUAL "HIP")
  set(ROCM "csrc/rocm/b.cu")
endif()
""",
    HEADER: b"template <typename T>\n__device__ constexpr T limit = T(448);\n",
    "csrc/a.cu": b"""
#include "limit.cuh"
__global__ void clamp(float* x) { *x = fminf(*x, limit<float>CALL); }
void run(float* x) {
  if (!x) throw __LINE__;
  clamp<<<1, 1>>>(x);
}
""",
    "csrc/cuda_only.cu": b"__global__ void other(float* x) { *x = 1; }\n",
    "csrc/rocm/b.cu": b'#include "../limit.cuh"\n',
}
UPSTREAM["csrc/a.cu"] = UPSTREAM["csrc/a.cu"].replace(b"CALL", b"")
PATCHED = {
    **UPSTREAM,
    HEADER: b"template <typename T>\n__device__ constexpr T limit() { return T(448); }\n",
    # A line more at the top: __LINE__ below it must not count as another program.
    "csrc/a.cu": b"// more\n" + UPSTREAM["csrc/a.cu"].replace(b"limit<float>", b"limit<float>()"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def same_code(
    patched: dict[str, bytes],
    cache: Cache,
    known: Records | None = None,
    *,
    compiles: bool = True,
    upstream: dict[str, bytes] = UPSTREAM,
) -> SameCode:
    environment = None
    if compiles:
        assert TOOLKIT is not None
        environment = Environment(TOOLKIT, (), ("test compilers",))
    read = upstream.get
    missing = "" if compiles else "there is no nvcc here"
    return SameCode(read, patched.get, known or Records(), environment, missing, 2, cache=cache)


def test_units_are_what_cmake_lists_for_each_language() -> None:
    units = Units(UPSTREAM.get)
    assert units.all == (
        Unit("csrc/a.cu", cuda=True, rocm=True),
        Unit("csrc/cuda_only.cu", cuda=True, rocm=False),
        Unit("csrc/rocm/b.cu", cuda=False, rocm=True),
    )
    assert [unit.path for unit in units.including([HEADER])] == ["csrc/a.cu", "csrc/rocm/b.cu"]


@needs_nvcc
def test_what_was_compiled_serves_where_nothing_can_be(cache: Cache, tmp_path: Path) -> None:
    made = same_code(PATCHED, cache)
    said = made.compare(HEADER, ("8.0", "9.0"))
    assert said == "1 unit for 2 architectures: PTX and SASS of 2 kernels; the host code"
    (tmp_path / "patch_series").mkdir()
    records.write(tmp_path, Records(units=records.merged(made.made_units)))
    known = records.read(tmp_path)
    assert known.units[0].compilers == ("test compilers",)
    assert sum(found.host for found in known.units[0].archs.values()) == 1

    further = same_code(PATCHED, cache, known)
    assert further.compare(HEADER, ("12.0",)).endswith("PTX and SASS of 1 kernel; the host code")
    assert not further.made_units[0].archs["12.0"].host  # it was compared, for 8.0

    elsewhere = same_code(PATCHED, cache, known, compiles=False)
    assert elsewhere.compare(HEADER, ("8.0", "9.0")) == said
    with pytest.raises(Undecided, match="there is no nvcc here"):
        elsewhere.compare(HEADER, ("8.0", "12.0"))
    changed = {**PATCHED, HEADER: PATCHED[HEADER].replace(b"448", b"240")}
    with pytest.raises(Undecided, match="there is no nvcc here"):
        same_code(changed, cache, known, compiles=False).compare(HEADER, ("8.0",))
    with pytest.raises(Doubt, match=r"csrc/a\.cu for 8\.0: .*clamp"):
        same_code(changed, cache, known).compare(HEADER, ("8.0",))


@needs_nvcc
def test_what_ours_breaks_is_a_doubt_and_what_upstream_breaks_is_not(cache: Cache) -> None:
    broken = {**PATCHED, "csrc/a.cu": PATCHED["csrc/a.cu"].replace(b"limit<float>()", b"limitt")}
    with pytest.raises(Doubt, match="does not compile"):
        same_code(broken, cache).compare("csrc/a.cu", ("8.0",))
    theirs = {**UPSTREAM, "csrc/a.cu": b"#error not for this architecture\n"}
    with pytest.raises(Undecided, match=r"upstream's .* does not compile"):
        same_code(PATCHED, cache, upstream=theirs).compare("csrc/a.cu", ("8.0",))


def test_rocm_is_asked_of_files_that_it_compiles(cache: Cache) -> None:
    made = same_code(PATCHED, cache, compiles=False)
    assert made.rocm("csrc/cuda_only.cu") == "not compiled for ROCm"
    assert made.rocm(HEADER) == "nothing for ROCm alone; what differs is compiled for CUDA too"
    branch = b"#ifdef USE_ROCM\nint warp = 64;\n#endif\n"
    upstream = {**UPSTREAM, HEADER: UPSTREAM[HEADER] + branch}
    lost = {**PATCHED, HEADER: PATCHED[HEADER] + branch.replace(b"64", b"32")}
    with pytest.raises(Doubt, match="only ROCm compiles"):
        same_code(lost, cache, compiles=False, upstream=upstream).rocm(HEADER)
