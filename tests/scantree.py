"""A small source tree for tests of the scan, with what Windows compiles of it and what not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from portkit.scan import rules, scanning
from portkit.scan.cover import Cover
from portkit.scan.scanning import Options, Scan
from portkit.scan.silence import Silence
from portkit.scan.tree import SourceTree

ROOT = Path(__file__).resolve().parents[1]
RULES = rules.load(ROOT)
QUICK = Options(slow=False, offline=True)

CMAKE = b"""\
cmake_minimum_required(VERSION 3.26)
set(CMAKE_CXX_STANDARD 17)
add_compile_options(/Zc:preprocessor /utf-8)
set(SRCS "csrc/a.cu" "csrc/b.cu")
cuda_archs_loose_intersection(MLA_ARCHS "10.0a;10.1a" "${CUDA_ARCHS}")
if(MLA_ARCHS)
  set(MLA_SRCS "csrc/mla.cu")
endif()
cuda_archs_loose_intersection(FP4_ARCHS "10.0a;12.0a" "${CUDA_ARCHS}")
if(FP4_ARCHS)
  list(APPEND SRCS "csrc/fp4.cu")
endif()
if(VLLM_GPU_LANG STREQUAL "HIP")
  list(APPEND SRCS "csrc/hip.cu")
endif()
"""
UINT = b"uint f();\n"
FILES = {
    "CMakeLists.txt": CMAKE,
    "csrc/a.cu": b'#include "deep/a.cuh"\nint a;\nuint f();\n',
    "csrc/deep/a.cuh": b"#ifdef USE_ROCM\nuint rocm();\n#else\nint cuda();\n#endif\nuint g();\n",
    "csrc/b.cu": b"int b = __builtin_clz(1);\n",
    "csrc/mla.cu": UINT,
    "csrc/fp4.cu": UINT,
    "csrc/hip.cu": UINT,
    "csrc/unused.cuh": UINT,
    "tests/a.cu": UINT,
}


def scanned(
    files: dict[str, bytes], *, cover: Cover | None = None, silences: Sequence[Silence] = ()
) -> Scan:
    """The quick scan of `files`."""
    tree = SourceTree.of_files(files, "tree")
    return scanning.scan(tree, RULES, cover=cover, silences=silences, options=QUICK)
