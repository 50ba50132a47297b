"""Careless edits of the real series: each is caught at the level that its file is proved at."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.audit import dispatch, generators, machine, records
from portkit.audit.audit import Audit
from portkit.audit.doubt import Doubt
from portkit.audit.level2 import SameCode
from portkit.audit.sources import Sources
from portkit.audit.verdict import Level, Verdict
from portkit.cuda import toolkits
from portkit.cuda.includes import Includes
from portkit.cuda.nvcc import Compiled, DoesNotCompile, Environment, compile_unit
from portkit.model import Patch
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.upstream.cache import Cache
from portkit.upstream.git import Store
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
needs_nvcc = pytest.mark.skipif(
    toolkits.first() is None or shutil.which("g++") is None, reason="nvcc or g++ is not installed"
)

SCAN = "csrc/mamba/mamba_ssm/selective_scan_fwd.cu"
GPTQ = "csrc/quantization/gptq_marlin/generate_kernels.py"
UTILS = "csrc/quantization/utils.cuh"
CONVERSIONS = "csrc/quantization/fused_kernels/quant_conversions.cuh"
BASE = "csrc/quantization/marlin/sparse/common/base.h"


class Faulty(Sources):
    """The real trees, the patched one with one more edit."""

    def __init__(self, store: Store, tree: str, patches: tuple[Patch, ...]) -> None:
        self.fault: dict[str, bytes] = {}
        super().__init__(store, tree, patches)

    def patched(self, path: str) -> bytes | None:
        return self.fault.get(path, super().patched(path))

    def seed(self, path: str, old: str, new: str) -> None:
        text = super().patched(path)
        assert text is not None and old.encode() in text, f"{path} has no {old!r}"
        self.fault = {path: text.replace(old.encode(), new.encode(), 1)}


@dataclasses.dataclass
class World:
    sources: Faulty
    patches: dict[str, Patch]

    def verdict(self, path: str, *, recorded: bool = False) -> Verdict:
        """The verdict for a patch; with `recorded`, as where nothing can be compiled."""
        same_code = None
        if recorded:
            sources = self.sources
            known = records.read(ROOT)
            same_code = SameCode(sources.upstream, sources.patched, known, None, "no compiler")
        (verdict,) = Audit(self.sources, same_code).run([self.patches[path]])
        return verdict


@pytest.fixture(scope="module")
def clean(store: Store, obtain_tag: Callable[[str], Source]) -> World:
    pin = pinfile.read(ROOT / pinfile.PIN_FILE)
    tree = obtain_tag(pin.tag).tree
    patches = series.load(ROOT).upstream
    return World(Faulty(store, tree, patches), {patch.path: patch for patch in patches})


@pytest.fixture
def world(clean: World) -> World:
    clean.sources.fault = {}
    return clean


IDENTICAL = (
    "requirements/cuda.txt", "setup.py", "csrc/core/math.hpp", "csrc/cumem_allocator.cpp",
    "csrc/fused_qknorm_rope_kernel.cu", "csrc/quantization/awq/gemm_kernels.cu",
    "vllm/distributed/parallel_state.py", "vllm/entrypoints/openai/api_server.py",
    "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py",
    "vllm/utils/network_utils.py", "vllm/utils/system_utils.py", "vllm/v1/engine/core_client.py",
)  # fmt: skip


@pytest.mark.parametrize("path", IDENTICAL)
def test_the_clean_series_is_identical_here(world: World, path: str) -> None:
    assert world.verdict(path).level is Level.IDENTICAL


PARALLEL = "vllm/distributed/parallel_state.py"
SERVER = "vllm/entrypoints/openai/api_server.py"
CAPTURER = "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py"
CLIENT = "vllm/v1/engine/core_client.py"
REUSE = "        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
ON_WINDOWS = 'if sys.platform == "win32":'

AT_LEVEL_1 = {
    "a dropped #else": ("csrc/core/math.hpp", "#else\n", ""),
    "an #ifdef inverted": ("csrc/core/math.hpp", "#ifdef _MSC_VER", "#ifndef _MSC_VER"),
    "swapped operands": (
        "csrc/core/math.hpp",
        "CHAR_BIT * sizeof(num) - __builtin_clz(num - 1)",
        "__builtin_clz(num - 1) - CHAR_BIT * sizeof(num)",
    ),
    "a guard lost around a typedef": (
        "csrc/cumem_allocator.cpp",
        "#ifdef _MSC_VER\n  #include <BaseTsd.h>\n",
        "#if 1\n  #include <BaseTsd.h>\n",
    ),
    "a guard on another macro": (
        "csrc/fused_qknorm_rope_kernel.cu",
        "#ifdef _MSC_VER\nusing",
        "#ifndef __linux__\nusing",
    ),
    "volatile lost": ("csrc/quantization/awq/gemm_kernels.cu", "asm volatile(", "asm("),
    "another instruction": ("csrc/quantization/awq/gemm_kernels.cu", "m16n8k16.row", "m16n8k8.row"),
    "and turned to or": ("setup.py", '"win32" and os.getenv', '"win32" or os.getenv'),
    "the separator of Windows": ("setup.py", "os.pathsep.join", '";".join'),
    "a replacement for everyone": (
        "setup.py",
        ON_WINDOWS + "\n            # To CMake",
        "if True:\n            # To CMake",
    ),
    "a default changed outside the guard": (
        "setup.py",
        '"nvcc.exe" if sys.platform == "win32" else "nvcc"',
        '"nvcc.exe"',
    ),
    "a requirement turned into a comment": (
        "requirements/cuda.txt",
        "flashinfer-python==",
        "# flashinfer-python==",
    ),
    "a marker turned into a comment": (
        "requirements/cuda.txt",
        '; sys_platform != "win32"',
        ' # sys_platform != "win32"',
    ),
    "a marker inverted": ("requirements/cuda.txt", '!= "win32"', '== "win32"'),
    "another version": (
        "requirements/cuda.txt",
        "flashinfer-python==0.5.3",
        "flashinfer-python==0.5.2",
    ),
    "the arms of a choice swapped": (
        PARALLEL,
        '"fake" if sys.platform == "win32" else "gloo"',
        '"gloo" if sys.platform == "win32" else "fake"',
    ),
    "a backend for everyone": (
        PARALLEL,
        "    " + ON_WINDOWS + "\n        # torch",
        "    if True:\n        # torch",
    ),
    "the import of the guard lost": (PARALLEL, "import sys\n", ""),
    "an else branch lost": (SERVER, "else:\n    import uvloop\n", ""),
    "a socket option lost": (SERVER, REUSE, ""),
    "a module of Windows for everyone": (
        CAPTURER,
        "    import msvcrt\n    import time\n",
        "    import time\nimport msvcrt\n",
    ),
    "another module in the else": (CAPTURER, "    import fcntl\n", "    import fcntl as f\n"),
    "a guard inverted": ("vllm/utils/network_utils.py", '== "win32"', '!= "win32"'),
    "a guard for Linux": (
        "vllm/utils/system_utils.py",
        ON_WINDOWS + "\n        return multi",
        'if sys.platform == "linux":\n        return multi',
    ),
    "one engine for everyone": (
        CLIENT,
        ON_WINDOWS + "\n            return InprocClient",
        "if not sys.platform == 'win32':\n            return InprocClient",
    ),
    "a line moved out of its guard": (
        CLIENT,
        "            return InprocClient(vllm_config, executor_class, log_stats)\n",
        "            pass\n        return InprocClient(vllm_config, executor_class, log_stats)\n",
    ),
}


@pytest.mark.parametrize("fault", AT_LEVEL_1)
def test_a_fault_in_an_identical_file_is_caught(world: World, fault: str) -> None:
    path, old, new = AT_LEVEL_1[fault]
    world.sources.seed(path, old, new)
    verdict = world.verdict(path, recorded=True)
    assert verdict.level > Level.TESTED, verdict
    assert verdict.doubt


LIBRARIES = 'if(WIN32 AND VLLM_GPU_LANG STREQUAL "CUDA")\n  target_link'
CMAKE = {
    "MSVC's flags for everyone": (
        "CMakeLists.txt",
        'STREQUAL "CUDA" AND MSVC)',
        'STREQUAL "CUDA")',
    ),
    "the CUDA 13 include lost on Linux": (
        "CMakeLists.txt",
        " -I${CUDA_TOOLKIT_ROOT_DIR}/include/cccl",
        " -I${CUDA_TOOLKIT_ROOT_DIR}/include",
    ),
    "a library for everyone": (
        "CMakeLists.txt",
        LIBRARIES,
        'if(VLLM_GPU_LANG STREQUAL "CUDA")\n  target_link',
    ),
    "the separator of Windows": ("CMakeLists.txt", 'set(_PATHSEP ":")', 'set(_PATHSEP ";")'),
    "a guard that CMake does not know": (
        "CMakeLists.txt",
        "if(WIN32 AND DEFINED",
        "if(WINDOWS AND DEFINED",
    ),
    "another variable": (
        "cmake/utils.cmake",
        '(Python_EXECUTABLE "${EXECUTABLE}")',
        '(Python_EXECUTABLE "${EXECUTABLES}")',
    ),
}


@pytest.mark.parametrize("fault", CMAKE)
def test_a_fault_in_cmake_is_caught(world: World, fault: str) -> None:
    path, old, new = CMAKE[fault]
    assert world.verdict(path, recorded=True).level is Level.SAME_CODE
    world.sources.seed(path, old, new)
    assert world.verdict(path, recorded=True).level is Level.UNPROVED


def test_a_rocm_branch_lost_is_caught(world: World) -> None:
    old = "#ifdef USE_ROCM\n                    C10_HIP_CHECK(hipFuncSetAttribute("
    world.sources.seed(SCAN, old, old.replace("USE_ROCM", "USE_HIP"))
    verdict = world.verdict(SCAN, recorded=True)
    assert verdict.level is Level.UNPROVED
    assert "only ROCm compiles" in verdict.doubt


EVEN = "} else if (is_even_len && has_z && !varlen) {"
LAUNCH = "selective_scan_fwd_launch_kernel<kNThreads, kNItems, input_t, weight_t, state_t, "
SCAN_FAULTS = {
    "template arguments swapped": (LAUNCH + "true, true, false>", LAUNCH + "true, false, true>"),
    "else if made flat, conditions overlap": (EVEN, "}\n    if (is_even_len && has_z) {"),
    "a condition inverted": (EVEN, EVEN.replace("!varlen", "varlen")),
    "the wrong flag": ("params.z_ptr != nullptr", "params.query_start_loc_ptr != nullptr"),
}


@needs_gxx
@pytest.mark.parametrize("fault", SCAN_FAULTS)
def test_a_fault_of_the_dispatch_is_caught(world: World, fault: str) -> None:
    """The same kernels are built, and others launched: only the host code can show it."""
    world.sources.seed(SCAN, *SCAN_FAULTS[fault])
    upstream = dispatch.launches(world.sources.upstream, ())
    patched = dispatch.launches(world.sources.patched, ())
    assert patched != upstream
    assert world.verdict(SCAN, recorded=True).level is Level.OPEN  # no record of this content


GENERATOR_FAULTS = {
    "the conditions joined by or": ('" && ".join(conditions)', '" || ".join(conditions)'),
    "the refusal of fp8 lost": ("TORCH_CHECK(false, ", "TORCH_CHECK(true, "),
    "a condition lost": ("f\"group_blocks == {config['group_blocks']}\",", ""),
    "a kernel for another arch": ("SUPPORT_FP8 = False", "SUPPORT_FP8 = True"),
}


@needs_gxx
@pytest.mark.parametrize("fault", GENERATOR_FAULTS)
def test_a_fault_of_a_generator_is_caught(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "ARCH_LISTS", ("7.5",))
    world.sources.seed(GPTQ, *GENERATOR_FAULTS[fault])
    with pytest.raises(Doubt):
        generators.compare(GPTQ, world.sources.upstream, world.sources.patched)


STAND_INS = {
    "torch/types.h": "#include <c10/util/Float8_e4m3fn.h>\n",
    "c10/util/Float8_e4m3fnuz.h": "#include <c10/util/Float8_e4m3fn.h>\n",
    "c10/util/Float8_e4m3fn.h": """
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>
#define C10_HOST_DEVICE __host__ __device__
#define C10_DEVICE __device__
#define C10_ALWAYS_INLINE __forceinline__
namespace c10 {
template <int kBias>
struct Float8 {
  uint8_t x;
  struct from_bits_t {};
  static constexpr C10_HOST_DEVICE from_bits_t from_bits() { return {}; }
  Float8() = default;
  constexpr C10_HOST_DEVICE Float8(uint8_t bits, from_bits_t) : x(bits) {}
  C10_HOST_DEVICE operator float() const { return x * float(kBias); }
};
using Float8_e4m3fn = Float8<7>;
using Float8_e4m3fnuz = Float8<8>;
}  // namespace c10
template <>
struct std::numeric_limits<c10::Float8_e4m3fn> {
  static constexpr c10::Float8_e4m3fn max() { return {0x7E, c10::Float8_e4m3fn::from_bits()}; }
};
""",
}
UNIT = b"""
#include <cuda_fp16.h>
#include "quantization/utils.cuh"
#include "quantization/marlin/sparse/common/base.h"
template <typename T>
__global__ void scales(float* out, const marlin_24::FragM* in) {
  float r = fmaxf(-quant_type_max_v<T>CALL, fminf(out[1], quant_type_max_v<T>CALL));
  out[0] = r * min_scaling_factor<T>::val() + in->elems[0];
}
template __global__ void scales<c10::Float8_e4m3fn>(float*, const marlin_24::FragM*);
template __global__ void scales<int8_t>(float*, const marlin_24::FragM*);
"""
DEVICE_FAULTS = {
    "nothing": (UTILS, "", ""),
    "a factor lost": (UTILS, "(quant_type_max_v<T>() * 512.0f)", "quant_type_max_v<T>()"),
    "the lowest value for the highest": (
        UTILS,
        "return std::numeric_limits<T>::max();",
        "return std::numeric_limits<T>::lowest();",
    ),
    "a value per type lost": (
        UTILS,
        "  return quant_type_max<T>::val();\n",
        "  return T(quant_type_max<int8_t>::val());\n",
    ),
    "a signed type": (BASE, "Vec<unsigned int, 1>", "Vec<int, 1>"),
    "a shorter type": (BASE, "Vec<unsigned int, 1>", "Vec<unsigned short, 1>"),
}


@needs_nvcc
@pytest.mark.parametrize("fault", DEVICE_FAULTS)
def test_a_fault_in_device_code_is_caught(
    world: World, fault: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The real headers in a small unit, with stand-ins for torch's, compiled by the real nvcc."""
    stand_ins = tmp_path_factory.getbasetemp() / "stand-ins"
    for name, text in STAND_INS.items():
        (stand_ins / name).parent.mkdir(parents=True, exist_ok=True)
        (stand_ins / name).write_text(text)
    toolkit = toolkits.first()
    assert toolkit is not None
    environment = Environment(toolkit, (stand_ins,), ("stand-ins",))
    cache = Cache(tmp_path_factory.getbasetemp() / "nvcc-cache")
    path, old, new = DEVICE_FAULTS[fault]
    world.sources.seed(path, old, new)

    def built(call: bytes, read: Callable[[str], bytes | None]) -> Compiled:
        unit = UNIT.replace(b"CALL", call)
        includes = Includes(lambda name: unit if name == "csrc/x.cu" else read(name), ("csrc",))
        closure = includes.closure("csrc/x.cu")
        return compile_unit(closure, "8.0", environment, folders=("csrc",), cache=cache)[0]

    upstream = built(b"", world.sources.upstream)
    if fault == "nothing":
        same = machine.compare(upstream, built(b"()", world.sources.patched))
        assert same.kernels == 2
        return
    with pytest.raises((Doubt, DoesNotCompile)):
        machine.compare(upstream, built(b"()", world.sources.patched))


CHANGED = {
    "a constant mistyped": ("csrc/quantization/activation_kernels.cu", "raw{17376}", "raw{17367}"),
    "swapped operands": (CONVERSIONS, "fmin(x, quant_type_max_v", "fmax(x, quant_type_max_v"),
    "a shorter integer": (
        "csrc/quantization/gptq_allspark/allspark_qgemm_w8a16.cu",
        "{int64_t(ws_size)}",
        "{int(ws_size)}",
    ),
    "a test turned round": ("csrc/attention/merge_attn_states.cu", "if (isinf(", "if (!isinf("),
}


@pytest.mark.parametrize("fault", CHANGED)
def test_recorded_evidence_is_void_for_other_contents(world: World, fault: str) -> None:
    """What was proved of the clean file says nothing of a changed one: it is compiled again."""
    path, old, new = CHANGED[fault]
    world.sources.seed(path, old, new)
    verdict = world.verdict(path, recorded=True)
    assert verdict.level is Level.OPEN
    assert "no compiler" in verdict.doubt
