"""What a compile against torch needs besides the toolkit: headers, no libraries.

The CPU build of torch lacks headers that its CUDA build generates (`c10/cuda/impl/
cuda_cmake_macros.h` and more), so those of the CUDA build for Linux are taken, as the index has it.
"""

from __future__ import annotations

import re
from pathlib import Path

from portkit.cuda.wheelheaders import Headers, Wanted, obtain
from portkit.errors import BadInput
from portkit.model import Events, silent
from portkit.upstream.cache import Cache
from portkit.upstream.index import IndexFile, wheel_tags

REQUIREMENTS = "requirements/cuda.txt"  # of upstream: which torch the release is built with

_PINNED = re.compile(rb"^torch==([\w.]+)", re.MULTILINE)
_CUTLASS_PINNED = re.compile(rb'CUTLASS_REVISION "v(\d+(?:\.\d+)+)"')


def pinned_torch(requirements: bytes) -> str:
    """The torch version that upstream's requirements/cuda.txt pins; raises `BadInput`."""
    found = _PINNED.search(requirements)
    if found is None:
        raise BadInput(f"{REQUIREMENTS} of upstream pins no torch version (torch==…)")
    return found[1].decode()


def pinned_cutlass(cmake: bytes) -> str:
    """The CUTLASS release that upstream's CMakeLists.txt fetches; raises `BadInput`."""
    found = _CUTLASS_PINNED.search(cmake)
    if found is None:
        raise BadInput("CMakeLists.txt of upstream names no CUTLASS_REVISION")
    return found[1].decode()


def torch_headers(version: str, *, cache: Cache | None = None, events: Events = silent) -> Headers:
    """The headers of the CUDA build of torch `version`; see `wheelheaders.obtain` for errors."""
    wanted = Wanted("torch", version, ("torch/include/",), _is_cuda_build)
    return obtain(wanted, cache=cache, events=events)


def torch_cmake(version: str, *, cache: Cache | None = None, events: Events = silent) -> Headers:
    """The CMake files of the CUDA build of torch, and the flags that it gives nvcc."""
    files = ("torch/share/cmake/", "torch/utils/cpp_extension.py")
    wanted = Wanted("torch", version, files, _is_cuda_build, part="-cmake")
    return obtain(wanted, cache=cache, events=events)


def torch_includes(headers: Headers) -> tuple[Path, ...]:
    """The include folders of unpacked torch headers, in the order torch's own CMake names them."""
    include = headers.root / "torch/include"
    return (include, include / "torch/csrc/api/include")


def cutlass_headers(
    version: str, *, cache: Cache | None = None, events: Events = silent
) -> Headers:
    """The headers of the CUTLASS Python package of `version` (`4.2.0.0`)."""
    source = "cutlass_library/source"
    folders = (f"{source}/include/", f"{source}/tools/util/include/")
    wanted = Wanted("nvidia-cutlass", version, folders, lambda _: True)
    return obtain(wanted, cache=cache, events=events)


def cutlass_includes(headers: Headers) -> tuple[Path, ...]:
    """The include folders of unpacked CUTLASS headers."""
    source = headers.root / "cutlass_library/source"
    return (source / "include", source / "tools/util/include")


def _is_cuda_build(wheel: IndexFile) -> bool:
    """Wheels for x86-64 Linux are CUDA builds on the index; those of other systems are not."""
    return any(
        "manylinux" in tag.platform and tag.platform.endswith("x86_64")
        for tag in wheel_tags(wheel.name)
    )
