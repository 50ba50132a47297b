"""Host code that chooses a kernel, compared by what it launches.

Where a patch rewrites the choice itself, no compiler gives the same host code for both.  So the
launchers of both versions are compiled with the host compiler, around them stand-ins that print
each launch with its kernel, grid and shared memory, and asked for every kind of input, as CUDA and
as ROCm build them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.audit.doubt import Doubt
from portkit.cuda.includes import Read
from portkit.errors import Unavailable

SELECTIVE_SCAN = "csrc/mamba/mamba_ssm/selective_scan_fwd.cu"
KNOWN = frozenset({SELECTIVE_SCAN})
_SWITCH = "csrc/mamba/mamba_ssm/static_switch.h"
_SYSTEMS = {"CUDA": (), "ROCm": ("-DUSE_ROCM",)}


@dataclass(frozen=True)
class Launches:
    """What the launchers of one version do: a line per input, and the kernels instantiated."""

    lines: tuple[str, ...]
    kernels: tuple[str, ...]


def compare(path: str, upstream: Read, patched: Read) -> int:
    """How many launches were compared; raises `Doubt` where one differs, and `Unavailable`."""
    assert path in KNOWN
    compared = 0
    for system, flags in _SYSTEMS.items():
        before, after = launches(upstream, flags), launches(patched, flags)
        if before.kernels != after.kernels:
            odd = set(before.kernels) ^ set(after.kernels)
            raise Doubt(f"for {system} other kernels are instantiated: {min(odd)}")
        for one, other in zip(before.lines, after.lines, strict=False):
            if one != other:
                raise Doubt(f"for {system} another kernel is launched: `{one}` became `{other}`")
        if len(before.lines) != len(after.lines):
            raise Doubt(f"for {system} {len(after.lines)} launches instead of {len(before.lines)}")
        compared += len(before.lines)
    return compared


def digest(read: Read) -> str:
    """A hash of what `launches` reads of a tree."""
    parts = (hashlib.sha256(read(path) or b"").hexdigest() for path in (SELECTIVE_SCAN, _SWITCH))
    return hashlib.sha256(" ".join((*parts, _HARNESS)).encode()).hexdigest()


def launches(read: Read, flags: Sequence[str]) -> Launches:
    """Run the selective scan's launchers of one tree with stand-ins, for some thousand inputs."""
    compiler, nm = shutil.which("g++"), shutil.which("nm")
    if compiler is None or nm is None:
        raise Unavailable("there is no g++ to run the launchers with")
    with tempfile.TemporaryDirectory(prefix="portkit-dispatch-") as temp:
        code, program = Path(temp, "scan.cpp"), Path(temp, "scan")
        code.write_text(harness(read, read(_SWITCH) or b""), encoding="utf-8")
        command = [compiler, "-std=c++17", "-O0", *flags, "-o", str(program), str(code)]
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode:
            errors = [line for line in built.stderr.splitlines() if "error" in line]
            raise Doubt(f"the launchers do not compile: {errors[0] if errors else ''}")
        ran = subprocess.run([str(program)], capture_output=True, text=True, check=True)
        said = subprocess.run([nm, "-C", str(program)], capture_output=True, text=True, check=True)
    kernels = re.findall(r"void (selective_scan_fwd_kernel<.*>)\(", said.stdout)
    return Launches(tuple(ran.stdout.splitlines()), tuple(sorted(kernels)))


def harness(read: Read, switch: bytes) -> str:
    """The program around the launchers of a tree, with the text of `static_switch.h`."""
    text = (read(SELECTIVE_SCAN) or b"").decode("utf-8")
    first = text.find("template<int kNThreads, int kNItems, typename input_t")
    after = text.find("#define CHECK_SHAPE")
    code, count = re.subn(
        r"kernel<<<(.*?)>>>\((.*?)\);", r"launch(kernel, \1, \2);", text[max(first, 0) : after]
    )
    if first < 0 or after < first or count != 1:
        raise Doubt("the launchers are not found")
    return _HARNESS % {"switch": switch.decode("utf-8"), "launchers": code}


_HARNESS = r"""
#include <cstdio>
#include <cstdint>
#include <initializer_list>
%(switch)s
#define MAX_DSTATE 256
struct float2 { float x, y; };
struct SSMParamsBase {
  int batch, dim, seqlen, block_size;
  bool cache_enabled;
  void *z_ptr, *query_start_loc_ptr;
};
using cudaStream_t = int;
struct dim3 {
  unsigned x, y;
  dim3(unsigned x, unsigned y) : x(x), y(y) {}
};
namespace at {
struct BFloat16 {};
struct Half { double d; };
}  // namespace at

// The shared memory of every third variant is too large to be had without asking for it.
template <int kNThreads_, int kNItems_, int kNRows_, bool kIsEvenLen_, bool kIsVariableB_,
          bool kIsVariableC_, bool kHasZ_, bool kVarlen_, typename I, typename W, typename S>
struct Selective_Scan_fwd_kernel_traits {
  using scan_t = float2;
  static constexpr int kNThreads = kNThreads_, kNItems = kNItems_, kNRows = kNRows_;
  static constexpr int kCode = kIsEvenLen_ + 2 * kIsVariableB_ + 4 * kIsVariableC_ + 8 * kHasZ_ +
                               16 * kVarlen_ + 32 * sizeof(I) + 1024 * sizeof(S);
  static constexpr int kSmemSize = kCode %% 3 ? 1000 + kCode : 60000 + kCode;
};

template <typename K>
void selective_scan_fwd_kernel(SSMParamsBase p) {
  std::printf("run %%d %%d %%d %%d", K::kNThreads, K::kNItems, K::kNRows, K::kCode);
}
void launch(void (*kernel)(SSMParamsBase), dim3 grid, int threads, int smem, int stream,
            SSMParamsBase p) {
  std::printf("grid %%u %%u threads %%d smem %%d stream %%d: ", grid.x, grid.y, threads, smem,
              stream);
  kernel(p);
}
#define C10_CUDA_KERNEL_LAUNCH_CHECK() std::printf(" checked")
#define C10_CUDA_CHECK(call) (call)
#define C10_HIP_CHECK(call) (call)
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, hipFuncAttributeMaxDynamicSharedMemorySize };
using Kernel = void (*)(SSMParamsBase);
void cudaFuncSetAttribute(Kernel, int, int size) { std::printf("cuda %%d ", size); }
void hipFuncSetAttribute(const void*, int, int size) { std::printf("hip %%d ", size); }

%(launchers)s

template <typename I, typename S>
void sweep(const char* name) {
  int block = 0;
  for (int seqlen = 0; seqlen <= 4100; seqlen += seqlen < 1100 ? 1 : 500)
    for (int flags = 0; flags < 8; flags++)
      for (int block_size : {1024, 2048}) {
        SSMParamsBase p{3, 5, seqlen, block_size, bool(flags & 4), flags & 1 ? &block : nullptr,
                        flags & 2 ? &block : nullptr};
        std::printf("%%s %%d %%d %%d: ", name, seqlen, flags, block_size);
        selective_scan_fwd_cuda<I, float, S>(p, 7);
        std::printf("\n");
      }
}
int main() {
  sweep<at::BFloat16, at::BFloat16>("bb");
  sweep<at::BFloat16, float>("bf");
  sweep<at::Half, at::Half>("hh");
  sweep<at::Half, float>("hf");
  sweep<float, float>("ff");
}
"""
