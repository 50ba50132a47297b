"""The patched kernel sources: unchanged for gcc, clang and ROCm, and acceptable to MSVC.

No MSVC runs here, so each test takes from the Linux compiler what MSVC lacks: ``_MSC_VER`` is
defined and every name or spelling that MSVC does not know is made unusable, once all headers are
read. Upstream's file must then fail to compile, and the patched one must compile to what upstream's
file gives on Linux.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sysconfig
import textwrap

import pytest

UTILS = "csrc/quantization/utils.cuh"
LAYERNORM = "csrc/quantization/fused_kernels/layernorm_utils.cuh"
CONVERSIONS = "csrc/quantization/fused_kernels/quant_conversions.cuh"
FP8_CU = "csrc/quantization/w8a8/fp8/common.cu"
FP8_CUH = "csrc/quantization/w8a8/fp8/common.cuh"
ACTIVATION = "csrc/quantization/activation_kernels.cu"
MATH = "csrc/core/math.hpp"
AWQ = "csrc/quantization/awq/gemm_kernels.cu"
ALLSPARK = "csrc/quantization/gptq_allspark/allspark_qgemm_w8a16.cu"
MARLIN_BASE = "csrc/quantization/marlin/sparse/common/base.h"
QKNORM = "csrc/fused_qknorm_rope_kernel.cu"
MERGE = "csrc/attention/merge_attn_states.cu"
CUMEM = "csrc/cumem_allocator.cpp"

# What the patches may change in upstream's preprocessed tokens, where they do not guard.
CALL = (r"(quant_type_max_v < \w+ >)", r"\1 ( )")
EQUIVALENT: dict[str, list[tuple[str, str]]] = {
    UTILS: [
        (r"(quant_type_max_v) = (quant_type_max < T > :: val \( \) ;)", r"\1 ( ) { return \2 }"),
        CALL,
    ],
    LAYERNORM: [CALL],
    CONVERSIONS: [CALL],
    FP8_CU: [CALL],
    FP8_CUH: [CALL],
    ACTIVATION: [(r"__nv_bfloat16_raw { \. x = (\d+) }", r"__nv_bfloat16_raw { \1 }")],
    MATH: [],
    AWQ: [(r"__asm__ __volatile__", "asm volatile")],
    ALLSPARK: [
        (r"(WARP_NTILE == 32) or (WARP_NTILE == 64)", r"\1 || \2"),
        (r"{ long (\( ws_size \)) }", r"{ int64_t \1 }"),
    ],
    MARLIN_BASE: [(r"Vec < uint ,", "Vec < unsigned int ,")],
    QKNORM: [],
    MERGE: [(r"std :: isinf", "isinf")],
    CUMEM: [],
}
CONFIGURATIONS = {
    "cuda-host": [],
    "cuda-sm75": ["-D__CUDACC_VER_MAJOR__=13", "-D__CUDA_ARCH__=750"],
    "cuda-sm90": ["-D__CUDACC_VER_MAJOR__=13", "-D__CUDA_ARCH__=900"],
    "rocm": ["-DUSE_ROCM"],
}
TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\w+|::|==|\|\||\S')

# Stand-ins for the few torch names that the headers of the kernels use.
C10_STUB = """
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>
#ifdef __CUDACC__
  #define C10_HOST_DEVICE __host__ __device__
  #define C10_DEVICE __device__
  #define C10_ALWAYS_INLINE __forceinline__
#else
  // Like MSVC, accept the annotation on functions alone.
  #define C10_HOST_DEVICE __attribute__((noinline))
  #define C10_DEVICE
  #define C10_ALWAYS_INLINE inline
#endif
#ifdef __CUDACC__
  #define STUB_HD __host__ __device__
#else
  #define STUB_HD
#endif
namespace c10 {
template <int kBias>
struct Float8Stub {
  uint8_t x;
  struct from_bits_t {};
  static constexpr STUB_HD from_bits_t from_bits() { return {}; }
  Float8Stub() = default;
  constexpr STUB_HD Float8Stub(uint8_t bits, from_bits_t) : x(bits) {}
  explicit STUB_HD Float8Stub(float value) : x(static_cast<uint8_t>(value)) {}
  STUB_HD operator float() const {
    float value = (8 + (x & 7)) / 8.0f;
    for (int e = (x >> 3 & 15) - kBias; e > 0; --e) value *= 2;
    return x & 128 ? -value : value;
  }
};
using Float8_e4m3fn = Float8Stub<7>;
using Float8_e4m3fnuz = Float8Stub<8>;
}  // namespace c10
template <>
struct std::numeric_limits<c10::Float8_e4m3fn> {
  static constexpr c10::Float8_e4m3fn max() { return {0x7E, c10::Float8_e4m3fn::from_bits()}; }
};
"""


def run(*command: str | pathlib.Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a tool; with ``check``, its error text is the test's failure."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    return done


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def body(tree: pathlib.Path, name: str, end: str | None = None) -> str:
    """A source file without its includes, up to and with the last ``end``."""
    text = (tree / name).read_text(encoding="utf-8")
    if end is not None:
        text = text[: text.rindex(end) + len(end)]
    return re.sub(r"(?m)^[ \t]*#[ \t]*(?:include|pragma once)\b.*$", "", text)


def between(text: str, start: str, end: str) -> str:
    first = text.index(start)
    return text[first : text.index(end, first) + len(end)]


def compiles(tmp_path: pathlib.Path, source: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Ask g++ for nothing but a verdict."""
    unit = tmp_path / "unit.cpp"
    unit.write_text(textwrap.dedent(source), encoding="utf-8")
    return run(
        tool("g++"), "-std=c++17", "-fsyntax-only", f"-I{tmp_path}", *flags, unit, check=False
    )


def stubs(tmp_path: pathlib.Path) -> pathlib.Path:
    """An include folder with the torch names above, and with cub cut down to its interface."""
    root = tmp_path / "stubs"
    (root / "c10/util").mkdir(parents=True)
    (root / "torch").mkdir()
    (root / "cub").mkdir()
    (root / "c10/util/Float8_e4m3fn.h").write_text(C10_STUB)
    (root / "c10/util/Float8_e4m3fnuz.h").write_text("#include <c10/util/Float8_e4m3fn.h>\n")
    (root / "torch/types.h").write_text("#include <c10/util/Float8_e4m3fn.h>\n")
    (root / "cub/cub.cuh").write_text(
        """
        #pragma once
        #define CUB_VERSION 1
        namespace cub {
        struct Sum {};
        struct Max {};
        template <typename T, int N>
        struct BlockReduce {
          struct TempStorage {};
          __device__ BlockReduce(TempStorage&) {}
          template <typename Op>
          __device__ T Reduce(T value, Op, int) { return value; }
        };
        }
        """
    )
    return root


def nvcc(
    tmp_path: pathlib.Path, tree: pathlib.Path, source: str, arch: int
) -> subprocess.CompletedProcess[str]:
    """Compile ``source`` to PTX with the headers of ``tree``."""
    root = tmp_path / "stubs"
    if not root.exists():
        stubs(tmp_path)
    unit = tmp_path / "unit.cu"
    unit.write_text(source, encoding="utf-8")
    return run(
        *(tool("nvcc"), "-std=c++17", "-O3", "--expt-relaxed-constexpr"),
        *("--expt-extended-lambda", "-w", "-DENABLE_FP8", f"-arch=compute_{arch}", "-ptx"),
        *(f"-I{root}", f"-I{tree / 'csrc'}", unit, "-o", tmp_path / "unit.ptx"),
        check=False,
    )


def ptx(tmp_path: pathlib.Path, tree: pathlib.Path, source: str, arch: int) -> list[str]:
    """The PTX of ``source``, less comments and unused constants."""
    done = nvcc(tmp_path, tree, source, arch)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    text = re.sub(r"_[0-9a-f]{8}_", "_H_", (tmp_path / "unit.ptx").read_text())
    return [line for line in text.splitlines() if line and not line.startswith(("//", ".global"))]


def as_msvc(poison: str, text: str) -> str:
    """``text`` as MSVC sees it, after ``poison`` has made unusable what MSVC lacks."""
    return f"#define _MSC_VER 1943\n{textwrap.dedent(poison)}\n{text}"


def tokens(source: str, flags: list[str]) -> str:
    done = subprocess.run(
        # CUDA_CHECK in cumem_allocator.cpp prints its line, which any added line moves.
        [tool("g++"), "-E", "-P", "-w", "-D__LINE__=0", "-x", "c++", "-std=c++17", *flags, "-"],
        input=source,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return " ".join(TOKEN.findall(done.stdout))


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", EQUIVALENT)
def test_upstream_tokens_without_msvc(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, name: str, configuration: str
) -> None:
    """Without ``_MSC_VER`` only the listed equivalent spellings differ from upstream."""
    flags = CONFIGURATIONS[configuration]
    expected = tokens(body(pristine_tree, name), flags)
    for pattern, replacement in EQUIVALENT[name]:
        assert re.search(pattern, expected) or configuration != "cuda-host"
        expected = re.sub(pattern, replacement, expected)
    assert tokens(body(patched_tree, name), flags) == expected


def test_next_pow_2(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """The branch for MSVC: constexpr, no builtin, upstream's value wherever upstream has one."""
    lacking = "#define __builtin_clz msvc_has_no_builtin_clz"
    unit = """
        #include <climits>
        #include <cstdint>
        #include <cstdio>
        #include <iostream>
        namespace upstream {{ {upstream} }}
        {msvc}
        static_assert(msvc::next_pow_2(5) == 8 && msvc::next_pow_2(1u << 31) == 1u << 31);
        int main() {{
          for (uint64_t n = 0; n <= 1u << 31; n += n < 70000 ? 1 : 65521)
            if (msvc::next_pow_2(n) != upstream::next_pow_2(n)) return std::printf("%lu", n);
          for (int bit = 1; bit < 32; ++bit)
            for (int64_t n = (1ll << bit) - 1; n <= (1ll << bit) + (bit < 31); ++n)
              if (msvc::next_pow_2(n) != upstream::next_pow_2(n)) return std::printf("%ld", n);
        }}
    """

    def source(tree: pathlib.Path) -> str:
        msvc = as_msvc(lacking, "namespace msvc {" + body(tree, MATH) + "}")
        return textwrap.dedent(unit).format(upstream=body(pristine_tree, MATH), msvc=msvc)

    assert "msvc_has_no_builtin_clz" in compiles(tmp_path, source(pristine_tree)).stderr
    program = tmp_path / "next_pow_2"
    (tmp_path / "unit.cpp").write_text(source(patched_tree))
    run(tool("g++"), "-std=c++17", "-O1", tmp_path / "unit.cpp", "-o", program)
    run(program)


def test_quant_type_max_on_a_function(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """The annotation sits on a function, and the constants are what upstream's were."""
    root = stubs(tmp_path)
    unit = """
        #include <cuda_stub.h>
        #include "{header}"
        using c10::Float8_e4m3fn;
        using c10::Float8_e4m3fnuz;
        constexpr Float8_e4m3fn fn{{quant_type_max_v<Float8_e4m3fn>()}};
        static_assert(fn.x == 0x7E);
        static_assert(quant_type_max_v<Float8_e4m3fnuz>().x == 0x7E);
        static_assert(quant_type_max_v<int8_t>() == 127);
        int main() {{
          if (quant_type_max_v<Float8_e4m3fn>() != 448.0f) return 1;
          if (quant_type_max_v<Float8_e4m3fnuz>() != 224.0f) return 2;
          if (min_scaling_factor<Float8_e4m3fn>::val() != 1.0f / (448.0f * 512.0f)) return 3;
          if (min_scaling_factor<Float8_e4m3fnuz>::val() != 1.0f / (224.0f * 512.0f)) return 4;
          if (min_scaling_factor<int8_t>::val() != std::numeric_limits<float>::epsilon()) return 5;
        }}
    """
    (root / "cuda_stub.h").write_text("")
    (root / "ATen/hip").mkdir(parents=True)
    (root / "ATen/hip/HIPContext.h").write_text("#include <c10/util/Float8_e4m3fn.h>\n")
    program = tmp_path / "maxima"
    for flags in ([], ["-DUSE_ROCM"]):
        (tmp_path / "unit.cpp").write_text(unit.format(header=patched_tree / UTILS))
        run(
            *(tool("g++"), "-std=c++17", "-Werror=attributes", f"-I{root}", *flags),
            *(tmp_path / "unit.cpp", "-o", program),
        )
        run(program)
    upstream = compiles(
        tmp_path, f'#include "{pristine_tree / UTILS}"', f"-I{root}", "-Werror=attributes"
    )
    assert "Werror=attributes" in upstream.stderr


def test_quant_kernels_device_code(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """All call sites of ``quant_type_max_v`` compile, and to upstream's device code."""
    unit = """
        #include "quantization/fused_kernels/layernorm_utils.cuh"
        #include "quantization/vectorization_utils.cuh"
        {fp8}
        using F8 = c10::Float8_e4m3fn;
        template <typename T>
        __global__ void scales(float* s, const float* in, T* out) {{
          vllm::compute_dynamic_per_token_scales<float, T>(s, s, in, in, 1.f, s, 64);
          vllm::vectorized::compute_dynamic_per_token_scales<float, T>(s, s, in, in, 1.f, s, 64);
          vllm::norm_and_quant<float, T, true>(out, in, in, 1.f, s, 64);
        }}
        template __global__ void scales<F8>(float*, const float*, F8*);
        template __global__ void scales<int8_t>(float*, const float*, int8_t*);
        template __global__ void vllm::segmented_max_reduction_strided<float, F8>(
            float*, const float*, int, int64_t, int64_t);
        template __global__ void
        vllm::dynamic_per_token_scaled_fp8_quant_kernel_strided<float, F8>(
            F8*, float*, const float*, const float*, int, int64_t, int64_t);
    """

    def device_code(tree: pathlib.Path) -> list[str]:
        fp8 = body(tree, FP8_CU, "}  // namespace vllm")
        return ptx(tmp_path, tree, textwrap.dedent(unit).format(fp8=fp8), 80)

    patched = device_code(patched_tree)
    assert sum(".entry" in line for line in patched) == 4
    assert patched == device_code(pristine_tree)


@pytest.mark.parametrize("arch", [75, 80])
def test_activation_kernel_as_msvc(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path, arch: int
) -> None:
    """With the 16-byte vector type the kernel is upstream's, and its shared memory is aligned."""
    headers = """
        #include <array>
        #include <cmath>
        #include "core/math.hpp"
        #include "cuda_compat.h"
        #include "quantization/w8a8/fp8/common.cuh"
        #include <cuda_bf16.h>
        #include <cuda_fp16.h>
        #include <cuda_fp8.h>
    """
    lacking = """
        #define __int128_t msvc_has_no_int128_t
        #define __int64_t msvc_has_no_int64_t
    """
    instance = """
        template __global__ void vllm::silu_mul_fp8_quant_deep_gemm_kernel<
            4224, 4096, c10::Float8_e4m3fn, float, 32, int64_t, false, 128, 2>(
            const __nv_bfloat16*, c10::Float8_e4m3fn*, float*, const int32_t*, int64_t, int64_t,
            int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
            int64_t, int64_t, int64_t);
    """

    def unit(tree: pathlib.Path, *, msvc: bool) -> str:
        text = body(tree, ACTIVATION, "}  // namespace vllm") + instance
        return textwrap.dedent(headers) + (as_msvc(lacking, text) if msvc else text)

    patched = ptx(tmp_path, patched_tree, unit(patched_tree, msvc=True), arch)
    pristine = ptx(tmp_path, pristine_tree, unit(pristine_tree, msvc=False), arch)
    assert ".extern .shared .align 16 .b8" in "\n".join(patched)
    if arch >= 80:
        assert any("cp.async.cg.shared.global" in line for line in patched)
        assert patched == pristine
    else:  # no cp.async: the same 16-byte copies through registers, as four words instead of two
        for access in ("ld.global.nc", "st.shared"):
            wide = sum(f"{access}.v4.u32" in line for line in patched)
            assert wide == sum(f"{access}.v2.u64" in line for line in pristine) > 0
    upstream = nvcc(tmp_path, pristine_tree, unit(pristine_tree, msvc=True), arch)
    assert "msvc_has_no_int128_t" in upstream.stderr
    assert "msvc_has_no_int64_t" in upstream.stderr


def test_activation_no_designated_initialisers(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """C++17 has no designated initialisers; the values stay those of upstream."""

    def source(tree: pathlib.Path) -> str:
        text = body(tree, ACTIVATION)
        maxima = between(text, "template <class T>\nconstexpr", "template <typename Idx_t>")
        eps = between(text, "static constexpr __nv_bfloat16 EPS", ";")
        return f"""
            #include <type_traits>
            namespace c10 {{ struct Float8_e4m3fn; struct Float8_e4m3fnuz; }}
            struct __nv_bfloat16_raw {{ unsigned short x; }};
            struct __nv_bfloat16 {{
              unsigned short x;
              constexpr __nv_bfloat16(const __nv_bfloat16_raw& raw) : x(raw.x) {{}}
            }};
            {maxima.removesuffix("template <typename Idx_t>")}
            struct Kernel {{ {eps} }};
            static_assert(Kernel::EPS.x == 11996);
            static_assert(get_fp8_max<c10::Float8_e4m3fn>().x == 17376);
            static_assert(get_fp8_max<c10::Float8_e4m3fnuz>().x == 17264);
            static_assert(get_fp8_min<c10::Float8_e4m3fn>().x == 50144);
            static_assert(get_fp8_min<c10::Float8_e4m3fnuz>().x == 50032);
        """

    assert compiles(tmp_path, source(patched_tree), "-pedantic-errors").stderr == ""
    upstream = compiles(tmp_path, source(pristine_tree), "-pedantic-errors")
    assert "designated initializers" in upstream.stderr


@pytest.mark.parametrize("arch", [75, 80])
def test_awq_gemm_as_msvc(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path, arch: int
) -> None:
    """Every inline assembly statement of both architecture branches in the standard spelling."""
    headers = """
        #include <cassert>
        #include <cstdint>
        #include <cuda_fp16.h>
        #include "quantization/awq/dequantize.cuh"
    """
    lacking = "#define __asm__ msvc_has_no_asm"
    instance = """
        template __global__ void vllm::awq::gemm_forward_4bit_cuda_m16nXk32<64>(
            int, int, half*, int*, half*, int*, int, int, int, half*);
    """

    def unit(tree: pathlib.Path, *, msvc: bool) -> str:
        text = body(tree, AWQ, "}  // namespace vllm") + instance
        return textwrap.dedent(headers) + (as_msvc(lacking, text) if msvc else text)

    patched = ptx(tmp_path, patched_tree, unit(patched_tree, msvc=True), arch)
    assert any("mma.sync" in line for line in patched)
    assert patched == ptx(tmp_path, pristine_tree, unit(pristine_tree, msvc=False), arch)
    upstream = nvcc(tmp_path, pristine_tree, unit(pristine_tree, msvc=True), arch)
    assert '"msvc_has_no_asm" is undefined' in upstream.stderr


@pytest.mark.parametrize(
    ("lacking", "error"),
    [
        ("#define uint msvc_has_no_uint", '"msvc_has_no_uint" is undefined'),
        ("#define std msvc_std", "calling a __host__ function"),
    ],
)
def test_merge_attn_states_as_msvc(
    tmp_path: pathlib.Path,
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    lacking: str,
    error: str,
) -> None:
    """``uint`` is unknown, and ``std::isinf`` exists as host code alone."""
    headers = """
        #include <algorithm>
        #include <limits>
        #include <cmath>
        #include "attention/attention_dtypes.h"
        #include "attention/attention_utils.cuh"
        namespace msvc_std {
        using std::numeric_limits;
        __host__ bool isinf(float);
        }
    """
    instance = """
        template __global__ void vllm::merge_attn_states_kernel<float, 128>(
            float*, float*, const float*, const float*, const float*, const float*,
            const unsigned, const unsigned, const unsigned, const unsigned, const unsigned);
    """

    def unit(tree: pathlib.Path, *, msvc: bool) -> str:
        text = body(tree, MERGE, "}  // namespace vllm") + instance
        return textwrap.dedent(headers) + (as_msvc(lacking, text) if msvc else text)

    patched = ptx(tmp_path, patched_tree, unit(patched_tree, msvc=True), 80)
    assert patched == ptx(tmp_path, pristine_tree, unit(pristine_tree, msvc=False), 80)
    upstream = nvcc(tmp_path, pristine_tree, unit(pristine_tree, msvc=True), 80)
    assert error in upstream.stderr


def test_qknorm_packed_types_as_msvc(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    def source(tree: pathlib.Path) -> str:
        text = body(tree, QKNORM, "}  // namespace tensorrt_llm::common")
        use = """
            using namespace tensorrt_llm::common;
            static_assert(sizeof(packed_as<uint, 1>::type) == 4);
            static_assert(sizeof(packed_as<uint, 2>::type) == 8);
            static_assert(sizeof(packed_as<uint, 4>::type) == 16);
        """
        types = """
            #include <cmath>
            struct uint2 { unsigned x, y; };
            struct uint4 { unsigned x, y, z, w; };
            #define __device__
            #define __host__
        """
        return types + as_msvc("#define uint msvc_has_no_uint", text) + use

    def relevant(tree: pathlib.Path) -> str:
        # The shuffle in warpReduceSum is device code; g++ needs only its name.
        return "template <typename T> T __shfl_xor_sync(unsigned, T, int, int);" + source(tree)

    assert compiles(tmp_path, relevant(patched_tree)).stderr == ""
    assert "msvc_has_no_uint" in compiles(tmp_path, relevant(pristine_tree)).stderr


def test_marlin_sparse_fragments_as_msvc(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    def source(tree: pathlib.Path) -> str:
        types = "#include <type_traits>\n#define __device__\nstruct half2 { short x, y; };\n"
        use = "static_assert(std::is_same_v<decltype(marlin_24::FragM::elems), unsigned[1]>);"
        return types + as_msvc("#define uint msvc_has_no_uint", body(tree, MARLIN_BASE)) + use

    assert compiles(tmp_path, source(patched_tree)).stderr == ""
    assert "msvc_has_no_uint" in compiles(tmp_path, source(pristine_tree)).stderr


def test_allspark_operator_token(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """MSVC reads ``or`` as a name; so does g++ when asked to."""

    def source(tree: pathlib.Path) -> str:
        text = body(tree, ALLSPARK)
        struct = text.index("struct ComputeTile_W8A16_PerC_MtilexNtilex32_multistage_SM8x_SplitK")
        start = text.rindex("template <", 0, struct)
        return between(text[start:], "template <", '64!");') + "};"

    assert compiles(tmp_path, source(patched_tree), "-fno-operator-names").stderr == ""
    upstream = compiles(tmp_path, source(pristine_tree), "-fno-operator-names")
    assert re.search(r"before \Wor\W", upstream.stderr)


def test_allspark_workspace_over_2_gib(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """The size of the workspace keeps its 64 bits where ``long`` has 32."""

    def source(tree: pathlib.Path) -> str:
        call = between(body(tree, ALLSPARK), "as_g_workspace = torch::empty", ";")
        return f"""
            #include <cstdint>
            struct Sizes {{ int64_t value; }};
            namespace torch {{
            constexpr int64_t empty(Sizes sizes, int) {{ return sizes.value; }}
            }}
            #define long int
            constexpr int64_t bytes(uint64_t ws_size) {{
              int ws_options = 0;
              int64_t as_g_workspace = 0;
              {call}
              return as_g_workspace;
            }}
            static_assert(bytes(3ull << 30) == 3221225472);
        """

    assert compiles(tmp_path, source(patched_tree)).stderr == ""
    assert "static assertion failed" in compiles(tmp_path, source(pristine_tree)).stderr


def test_cumem_allocator_as_msvc(
    tmp_path: pathlib.Path, pristine_tree: pathlib.Path, patched_tree: pathlib.Path
) -> None:
    """``ssize_t`` comes from the Windows SDK, with the width of a pointer and a sign."""
    python = pathlib.Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        pytest.skip("no Python headers")
    (tmp_path / "BaseTsd.h").write_text("typedef long long SSIZE_T;\n")
    (tmp_path / "cumem_allocator_compat.h").write_text(
        """
        #include <cstddef>
        typedef int CUresult;
        typedef int CUdevice;
        typedef unsigned long long CUdeviceptr, CUmemGenericAllocationHandle;
        typedef struct CUctx_st* CUcontext;
        typedef struct CUstream_st* CUstream;
        struct CUmemLocation { int type, id; };
        struct CUmemAllocationProp {
          int type;
          CUmemLocation location;
          struct { unsigned char compressionType, gpuDirectRDMACapable; } allocFlags;
        };
        struct CUmemAccessDesc { CUmemLocation location; int flags; };
        enum {
          CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ALLOCATION_COMP_NONE,
          CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
          CU_MEM_ACCESS_FLAGS_PROT_READWRITE, CU_MEM_ALLOC_GRANULARITY_MINIMUM
        };
        extern "C" {
        CUresult cuGetErrorString(CUresult, const char**);
        CUresult cuCtxGetCurrent(CUcontext*);
        CUresult cuCtxSetCurrent(CUcontext);
        CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
        CUresult cuDeviceGetAttribute(int*, int, CUdevice);
        CUresult cuMemAddressFree(CUdeviceptr, size_t);
        CUresult cuMemAddressReserve(CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long);
        CUresult cuMemCreate(
            CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*, unsigned long long);
        CUresult cuMemGetAllocationGranularity(size_t*, const CUmemAllocationProp*, int);
        CUresult cuMemMap(
            CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
        CUresult cuMemRelease(CUmemGenericAllocationHandle);
        CUresult cuMemSetAccess(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t);
        CUresult cuMemUnmap(CUdeviceptr, size_t);
        }
        """
    )

    def source(tree: pathlib.Path) -> str:
        text = (tree / CUMEM).read_text(encoding="utf-8")
        use = "\nstatic_assert(sizeof(ssize_t) == sizeof(void*) && ssize_t(-1) < 0);\n"
        headers = "#include <iostream>\n#include <Python.h>\n"
        return headers + as_msvc("#define ssize_t msvc_has_no_ssize_t", text) + use

    assert compiles(tmp_path, source(patched_tree), f"-I{python}").stderr == ""
    upstream = compiles(tmp_path, source(pristine_tree), f"-I{python}")
    assert "msvc_has_no_ssize_t" in upstream.stderr
