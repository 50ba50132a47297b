"""The compiler, flags and libraries that build kernels against an installed CUDA build of torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.cuda import toolkits
from portkit.errors import Unavailable

# As upstream's cmake/utils.cmake: torch's flags without those that take operators away.
_TAKEN_AWAY = re.compile(r"-D__CUDA_NO_(HALF|BFLOAT16|HALF2)_(OPERATORS|CONVERSIONS)__")
FLAGS = ("-std=c++17", "-O2", "-DNDEBUG", "-DENABLE_FP8", "-w")
# Without -fno-gnu-unique the loader would share the statics of both builds in one process.
HOST_FLAGS = ("-Xcompiler", "-fPIC,-fno-gnu-unique")
_TORCH_LIBRARIES = ("c10", "c10_cuda", "torch", "torch_cpu", "torch_cuda")


@dataclass(frozen=True)
class Toolchain:
    """How a unit is compiled; `fingerprint` names all that is not in its sources."""

    nvcc: Path
    flags: tuple[str, ...]
    includes: tuple[Path, ...]
    library_folders: tuple[Path, ...]
    fingerprint: str

    def link_arguments(self, libraries: Sequence[str]) -> list[str]:
        """What to link: torch, the CUDA runtime and `libraries`, by path; raises `Unavailable`."""
        return [str(self._library(name)) for name in (*_TORCH_LIBRARIES, "cudart", *libraries)]

    def _library(self, name: str) -> Path:
        for folder in self.library_folders:
            for file in sorted(folder.glob(f"lib{name}.so*")):
                return file
        places = ", ".join(str(folder) for folder in self.library_folders)
        raise Unavailable(f"lib{name}.so is in none of {places}")


def with_torch() -> Toolchain:
    """The toolchain of the torch that this Python imports; raises `Unavailable`."""
    if os.name == "nt":
        raise Unavailable(
            "kernels are built for a test on Linux only",
            hint="build the wheel, install it, and test that: --against installed",
        )
    toolkit = toolkits.first()
    if toolkit is None:
        raise Unavailable("no CUDA toolkit with nvcc was found", hint="set CUDA_HOME")
    try:
        import torch  # noqa: PLC0415
        from torch.utils import cpp_extension  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(f"torch cannot be imported: {error}") from None
    if torch.version.cuda is None:
        raise Unavailable(
            f"torch {torch.__version__} is not a CUDA build", hint="install one that is"
        )
    torch_flags = [
        flag for flag in cpp_extension.COMMON_NVCC_FLAGS if not _TAKEN_AWAY.fullmatch(flag)
    ]
    return Toolchain(
        nvcc=toolkit.nvcc,
        flags=(*FLAGS, *torch_flags, *HOST_FLAGS),
        includes=(
            *(Path(path) for path in cpp_extension.include_paths()),
            toolkit.include,
            # A small toolkit leaves out the headers of cuSPARSE and others; torch's packages don't.
            *sorted(Path(torch.__file__).parent.parent.glob("nvidia/*/include")),
            Path(sysconfig.get_paths()["include"]),
        ),
        library_folders=tuple(_library_folders(Path(torch.__file__).parent, toolkit.root)),
        fingerprint=f"nvcc {toolkit.version} {_host_compiler()} torch {torch.__version__} "
        f"python {sys.version_info.major}.{sys.version_info.minor}",
    )


def gencode(archs: Sequence[str]) -> list[str]:
    """nvcc's arguments for machine code of each arch (`9.0`, `12.0a`)."""
    names = [arch.replace(".", "") for arch in archs]
    return [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]


def ninja() -> str:
    """The ninja to run; raises `Unavailable`."""
    beside = Path(sys.executable).with_name("ninja")
    found = str(beside) if beside.is_file() else shutil.which("ninja")
    if found is None:
        raise Unavailable("ninja is not installed", hint="pip install ninja")
    return found


def _library_folders(torch: Path, toolkit: Path) -> Iterator[Path]:
    yield torch / "lib"
    yield from sorted(torch.parent.glob("nvidia/*/lib"))
    for folder in ("lib64", "lib64/stubs", "targets/x86_64-linux/lib/stubs"):
        yield toolkit / folder
    yield Path("/usr/lib/x86_64-linux-gnu")
    yield Path("/usr/local/nvidia/lib64")


def _host_compiler() -> str:
    try:
        done = subprocess.run(
            ["g++", "-dumpfullversion"], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise Unavailable("g++ does not run", hint="install the host compiler") from None
    return f"g++ {done.stdout.strip()}"
