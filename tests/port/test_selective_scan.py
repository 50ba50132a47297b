"""The selective scan launches, for each input, the kernel that upstream launches."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

SCAN = "csrc/mamba/mamba_ssm/selective_scan_fwd.cu"
SWITCH = "csrc/mamba/mamba_ssm/static_switch.h"

HARNESS = r"""
#include <cstdio>
#include <cstdint>
#include <initializer_list>
#include "%(switch)s"

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
  std::printf("run %%d %%d %%d %%d\n", K::kNThreads, K::kNItems, K::kNRows, K::kCode);
}
void launch(void (*kernel)(SSMParamsBase), dim3 grid, int threads, int smem, int stream,
            SSMParamsBase p) {
  std::printf("grid %%u %%u threads %%d smem %%d stream %%d: ", grid.x, grid.y, threads, smem,
              stream);
  kernel(p);
}
#define C10_CUDA_KERNEL_LAUNCH_CHECK() std::printf("checked\n")
#define C10_CUDA_CHECK(call) (call)
#define C10_HIP_CHECK(call) (call)
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, hipFuncAttributeMaxDynamicSharedMemorySize };
using Kernel = void (*)(SSMParamsBase);
void cudaFuncSetAttribute(Kernel, int, int size) { std::printf("cuda %%d\n", size); }
void hipFuncSetAttribute(const void*, int, int size) { std::printf("hip %%d\n", size); }

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


def launchers(tree: pathlib.Path) -> str:
    """From the launch function to the explicit instantiations, as the file has them.

    Only the ``<<<...>>>`` of the launch is spelled as a call, for a compiler without CUDA."""
    text = (tree / SCAN).read_text(encoding="utf-8")
    first = text.index("template<int kNThreads, int kNItems, typename input_t")
    after = text.index("#define CHECK_SHAPE")
    code, launches = re.subn(
        r"kernel<<<(.*?)>>>\((.*?)\);", r"launch(kernel, \1, \2);", text[first:after]
    )
    assert launches == 1
    return code


def build(tree: pathlib.Path, folder: pathlib.Path, *flags: str) -> tuple[str, list[str]]:
    """What the launchers of a tree do for every input, and the kernels that they instantiate."""
    compiler, nm = shutil.which("g++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("no g++ or nm")
    folder.mkdir()
    code, program = folder / "scan.cpp", folder / "scan"
    switch = (tree / SWITCH).as_posix()
    code.write_text(HARNESS % {"switch": switch, "launchers": launchers(tree)})
    command = [compiler, "-std=c++17", "-O0", *flags, "-o", str(program), str(code)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    symbols = subprocess.run([nm, "-C", str(program)], capture_output=True, text=True, check=True)
    lines = symbols.stdout.splitlines()
    kernels = sorted(line[19:] for line in lines if "void selective_scan_fwd_kernel<" in line)
    return ran.stdout, kernels


@pytest.mark.parametrize("flags", [(), ("-DUSE_ROCM",)], ids=["cuda", "rocm"])
def test_every_input_launches_upstreams_kernel(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    tmp_path: pathlib.Path,
    flags: tuple[str, ...],
) -> None:
    upstream, kernels = build(pristine_tree, tmp_path / "upstream", *flags)
    patched, patched_kernels = build(patched_tree, tmp_path / "patched", *flags)
    assert ("hip " if flags else "cuda ") in upstream
    assert patched.splitlines() == upstream.splitlines()
    assert len(kernels) == len(set(kernels)) >= 160
    assert patched_kernels == kernels


def test_no_lambda_stands_between_a_flag_and_its_use(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A compiler that never sees constants inside lambdas, as MSVC here, builds the launchers.

    Such a compiler is had by a ``BOOL_SWITCH`` whose flags are no constants."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    switch = tmp_path / "static_switch.h"
    switch.write_text(
        "#define BOOL_SWITCH(COND, NAME, ...) [&] { const bool NAME = COND; "
        "return __VA_ARGS__(); }()\n"
    )
    results = {}
    for tree in (pristine_tree, patched_tree):
        code = tmp_path / "scan.cpp"
        code.write_text(HARNESS % {"switch": switch.as_posix(), "launchers": launchers(tree)})
        command = [compiler, "-std=c++17", "-fsyntax-only", str(code)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        results[tree] = done.returncode
    assert results[pristine_tree] != 0
    assert results[patched_tree] == 0
