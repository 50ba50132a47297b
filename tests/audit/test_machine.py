"""Two builds of a unit: which differences are only names, and which are code."""

from __future__ import annotations

import shutil

import pytest

from portkit.audit import machine
from portkit.audit.doubt import Doubt
from portkit.cuda import nvcc, toolkits
from portkit.cuda.includes import Closure
from portkit.cuda.nvcc import Compiled, DoesNotCompile, Environment, compile_unit
from portkit.errors import BadInput, IntegrityError
from portkit.upstream.cache import Cache

TOOLKIT = toolkits.first()
needs_nvcc = pytest.mark.skipif(
    TOOLKIT is None or shutil.which("g++") is None, reason="nvcc or g++ is not installed"
)
UNIT = "csrc/small.cu"
SOURCE = b"""
namespace {
constexpr float kScale = 2.0f;
}
template <typename T>
static __device__ constexpr T limit_v = T(448);
template <typename T>
__global__ void scale(T* out, const T* in, int n) {
  __shared__ T tile[64];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  tile[threadIdx.x % 64] = in[i];
  __syncthreads();
  if (i < n) out[i] = tile[threadIdx.x % 64] - kScale * limit_v<T>;
}
void launch(float* out, const float* in, int n, bool twice) {
  if (twice) scale<float><<<n, 64>>>(out, in, 2 * n);
  else scale<float><<<n, 64>>>(out, in, n);
}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("nvcc cache"))


def built(cache: Cache, source: bytes, *, host: bool = False) -> Compiled:
    assert TOOLKIT is not None
    environment = Environment(TOOLKIT, (), ("test",))
    closure = Closure(UNIT, {UNIT: source})
    flags = ("-std=c++17", "-O2", "-w")
    return compile_unit(
        closure, "8.0", environment, folders=("csrc",), flags=flags, host=host, cache=cache
    )[0]


@needs_nvcc
def test_other_words_for_the_same_code_are_the_same(cache: Cache) -> None:
    changed = SOURCE.replace(b"limit_v = T(448);", b"limit_v() { return T(448); }")
    changed = changed.replace(b"limit_v<T>", b"limit_v<T>()") + b"\n// a comment\n"
    same = machine.compare(built(cache, SOURCE, host=True), built(cache, changed, host=True))
    assert (same.functions, same.kernels, same.host) == (1, 1, True)


@needs_nvcc
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"- kScale", b"+ kScale"),
        (b"in[i];", b"in[i + 1];"),
        (b"T(448)", b"T(240)"),
        (b"tile[64]", b"tile[128]"),
        (b"  __syncthreads();\n", b""),
        (b"scale<float><<<n, 64>>>(out, in, n)", b"scale<double><<<n, 64>>>(0, 0, n)"),
    ],
)
def test_another_kernel_is_found(cache: Cache, old: bytes, new: bytes) -> None:
    assert old in SOURCE
    with pytest.raises(Doubt):
        machine.compare(built(cache, SOURCE), built(cache, SOURCE.replace(old, new)))


@needs_nvcc
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"2 * n", b"3 * n"), (b"if (twice)", b"if (!twice)"), (b"<<<n, 64>>>", b"<<<n, 32>>>")],
)
def test_another_launch_is_found_in_the_host_code(cache: Cache, old: bytes, new: bytes) -> None:
    changed = SOURCE.replace(old, new)
    same = machine.compare(built(cache, SOURCE, host=True), built(cache, changed, host=True))
    assert not same.host
    assert "launch" in same.host_doubt


@needs_nvcc
def test_a_build_is_kept_by_its_contents(cache: Cache) -> None:
    assert TOOLKIT is not None
    built(cache, SOURCE)
    for source, expected in ((SOURCE, True), (SOURCE + b"// x\n", False)):
        environment = Environment(TOOLKIT, (), ("test",))
        closure = Closure(UNIT, {UNIT: source})
        flags = ("-std=c++17", "-O2", "-w")
        _, kept = compile_unit(
            closure, "8.0", environment, folders=("csrc",), flags=flags, cache=cache
        )
        assert kept is expected


@needs_nvcc
def test_what_does_not_compile_says_where(cache: Cache) -> None:
    with pytest.raises(DoesNotCompile, match=r"small\.cu does not compile for sm_80.*undefined"):
        built(cache, SOURCE.replace(b"kScale *", b"kOther *"))


@needs_nvcc
def test_a_file_that_the_closure_lacks_is_refused(cache: Cache) -> None:
    macro = b'#define H "small.h"\n#include H\n' + SOURCE
    assert TOOLKIT is not None
    closure = Closure(UNIT, {UNIT: macro, "csrc/small.h": b""})
    environment = Environment(TOOLKIT, (), ("test",))
    compile_unit(closure, "8.0", environment, folders=("csrc",), flags=("-w",), cache=cache)
    scanned = nvcc._check_read
    listing = cache.path / "unit.d"
    listing.write_text("unit : csrc/small.cu csrc/small.h /usr/include/x.h \\\n  csrc/a\\ b.h\n")
    with pytest.raises(IntegrityError, match="its scan did not find"):
        scanned(closure, listing)


def test_an_architecture_is_written_with_a_dot() -> None:
    with pytest.raises(BadInput, match="'90' is not an architecture"):
        nvcc._code("90")
    assert nvcc._code("12.0a") == "120a"
