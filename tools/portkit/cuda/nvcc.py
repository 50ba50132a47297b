"""One translation unit, one architecture: nvcc's PTX, machine code and host object, cached.

A result is kept under the hash of all that went into it: the unit and what it includes from its
tree, flags, architecture, compilers and the digests of the headers.  The same question is answered
from the cache, on any machine with the same compilers.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path

from portkit.change import durable
from portkit.cuda.includes import Closure
from portkit.cuda.mathheaders import math_headers, math_includes
from portkit.cuda.toolkits import Toolkit
from portkit.cuda.torchheaders import torch_headers, torch_includes
from portkit.errors import BadInput, IntegrityError, PortError, Unavailable
from portkit.model import Events, silent
from portkit.upstream.cache import Cache

# What vLLM's and torch's CMake give nvcc for every unit with CUDA 12 or newer, architecture aside
# (cmake/utils.cmake; COMMON_NVCC_FLAGS and the CUDA part of torch's CMake package).
COMMON_FLAGS = (
    "-std=c++17", "-O2", "-DNDEBUG", "--expt-relaxed-constexpr", "--expt-extended-lambda",
    "-DENABLE_FP8", "-DPy_LIMITED_API=3", "-DTORCH_EXTENSION_NAME=_C", "-D_C_EXPORTS",
    "-DCUTLASS_ENABLE_DIRECT_CUDA_DRIVER_CALL=1", "-Xcompiler=-fPIC", "-w",
)  # fmt: skip
# For host objects that compare: nothing moves its neighbours, and no function is inlined or not
# because of the size of others.  (-O0 would be overridden by nvcc's own -O2, which comes last.)
_HOST_FLAGS = ("-Xcompiler=-fno-inline,-ffunction-sections,-fdata-sections",)
_FORMAT = b"nvcc-4"  # changes when the same key would stand for something else
_SAID = 2000  # characters of a compiler's complaint that are worth repeating
_ARCH = re.compile(r"(\d+)\.(\d)([af]?)")


class DoesNotCompile(PortError):
    """The compiler refused a unit; `said` is the end of its complaint."""

    def __init__(self, unit: str, arch: str, said: str) -> None:
        first = next((line for line in said.splitlines() if "error" in line), said[-200:].strip())
        super().__init__(f"{unit} does not compile for {arch}: {first.strip()}")
        self.said = said[-_SAID:]


@dataclass(frozen=True)
class Environment:
    """Compilers and headers: the same `identity` means the same results.

    `includes` are the folders of headers outside the tree, in order of search.
    """

    toolkit: Toolkit
    includes: tuple[Path, ...]
    identity: tuple[str, ...]


@dataclass(frozen=True)
class Compiled:
    """What nvcc made of a unit: PTX text, cubin (ELF) and, if asked for, the host object (ELF)."""

    ptx: bytes
    cubin: bytes
    host: bytes | None


def environment(
    toolkit: Toolkit, torch: str, *, cache: Cache | None = None, events: Events = silent
) -> Environment:
    """Everything that a unit of vLLM needs besides its tree, fetched where it is not there yet.

    `torch` is a version such as `2.9.1`.  Raises `Unavailable` when something cannot be had.
    """
    headers = torch_headers(torch, cache=cache, events=events)
    libraries = math_headers(toolkit, cache=cache, events=events)
    python = python_include()
    folders = (
        *torch_includes(headers),
        *(folder for library in libraries for folder in math_includes(library)),
        python,
    )
    identity = (
        f"nvcc {toolkit.version}",
        host_compiler(),
        f"torch {torch} headers {headers.digest}",
        *(f"{library.project} headers {library.digest}" for library in libraries),
        f"Python {_python_version(python)}",
    )
    return Environment(toolkit, folders, identity)


def python_include() -> Path:
    """The folder of `Python.h` of this interpreter or of the system; raises `Unavailable`."""
    own = Path(sysconfig.get_paths()["include"])
    for folder in (own, *sorted(Path("/usr/include").glob("python3.*"), reverse=True)):
        if (folder / "Python.h").is_file():
            return folder
    raise Unavailable(
        "Python.h is not found",
        hint="install the development files of Python (python3-dev), or use a Python that has them",
    )


def _python_version(include: Path) -> str:
    text = (include / "patchlevel.h").read_text(encoding="utf-8", errors="replace")
    found = re.search(r'#define PY_VERSION\s+"([^"]+)"', text)
    return found[1] if found is not None else "unknown"


@remember
def host_compiler() -> str:
    """The host compiler nvcc takes, with its version; raises `Unavailable` where there is none."""
    compiler = shutil.which("g++")
    if os.name == "nt" or compiler is None:
        raise Unavailable(
            "there is no g++ to compile as Linux does", hint="run this on Linux, or in WSL"
        )
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip()


def compile_unit(
    closure: Closure,
    arch: str,
    environment: Environment,
    *,
    folders: Sequence[str],
    flags: Sequence[str] = COMMON_FLAGS,
    host: bool = False,
    cache: Cache | None = None,
) -> tuple[Compiled, bool]:
    """Compile a unit for one architecture (`9.0`), and whether it came from the cache.

    Only the files of `closure` are there, below a folder of their own, so that two trees give the
    same names to the compiler; `folders` are its include folders (`csrc`).  `host` asks for the
    host object too, with a section for each function and variable.  Raises `DoesNotCompile`,
    `BadInput` for an unknown architecture, and `IntegrityError` when the compiler read a file that
    the closure lacks.
    """
    code = _code(arch)
    words = (*environment.identity, *asked(closure, arch, folders=folders, flags=flags))
    key = hashlib.sha256(_FORMAT + "\n".join(words).encode()).hexdigest()
    home = Cache.at(cache).path / "nvcc" / key[:2] / key[2:]
    kept = _kept(home, host)
    if kept is not None:
        return kept, True
    with tempfile.TemporaryDirectory(prefix="portkit-nvcc-") as temp:
        options = [*flags, *(f"-I{folder}" for folder in folders)]
        for folder in environment.includes:
            options += ["-isystem", str(folder)]
        made = _run(closure, code, environment.toolkit, options, Path(temp), host=host)
    _keep(home, made)
    return made, False


def asked(
    closure: Closure, arch: str, *, folders: Sequence[str], flags: Sequence[str] = COMMON_FLAGS
) -> tuple[str, ...]:
    """What a compilation is asked, whatever the machine: the same words, the same question."""
    return (*flags, *folders, arch, closure.digest)


def _code(arch: str) -> str:
    found = _ARCH.fullmatch(arch)
    if found is None:
        raise BadInput(f"{arch!r} is not an architecture", hint="write it as 9.0 or 12.0a")
    return f"{found[1]}{found[2]}{found[3]}"


def _write(closure: Closure, tree: Path) -> None:
    for path, data in closure.files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)


def _run(
    closure: Closure, code: str, toolkit: Toolkit, options: Sequence[str], temp: Path, *, host: bool
) -> Compiled:
    """Compile the closure below `temp`, which is empty."""
    tree, out = temp / "tree", temp / "out"
    _write(closure, tree)
    out.mkdir()
    result = out / ("unit.o" if host else f"{Path(closure.unit).stem}.ptx")
    command = [
        str(toolkit.nvcc), *options, f"-gencode=arch=compute_{code},code=sm_{code}",
        *(("-c", *_HOST_FLAGS) if host else ("-ptx",)), "--keep", f"--keep-dir={out}",
        "-MD", "-MF", str(out / "unit.d"), "-MT", "unit", closure.unit, "-o", str(result),
    ]  # fmt: skip
    _call(command, tree, closure.unit, code)
    _check_read(closure, out / "unit.d")
    ptx, cubin = next(out.glob("*.ptx")), out / "unit.cubin"
    assemble = [str(toolkit.program("ptxas")), f"-arch=sm_{code}", str(ptx), "-o", str(cubin)]
    _call(assemble, tree, closure.unit, code)
    return Compiled(ptx.read_bytes(), cubin.read_bytes(), result.read_bytes() if host else None)


def _call(command: list[str], folder: Path, unit: str, code: str) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise DoesNotCompile(unit, f"sm_{code}", done.stderr + done.stdout)


def _check_read(closure: Closure, dependencies: Path) -> None:
    """Refuse a unit of which the compiler read more files of the tree than the closure has."""
    rule = dependencies.read_text(encoding="utf-8").replace("\\\n", " ")
    words = re.findall(r"(?:\\.|\S)+", rule.partition(":")[2])
    read = {os.path.normpath(word) for word in words if not Path(word).is_absolute()}
    beyond = read - {os.path.normpath(path) for path in closure.files}
    if beyond:
        raise IntegrityError(f"{closure.unit} includes {min(beyond)}, which its scan did not find")


def _kept(home: Path, host: bool) -> Compiled | None:
    try:
        ptx, cubin = (home / "unit.ptx").read_bytes(), (home / "unit.cubin").read_bytes()
        return Compiled(ptx, cubin, (home / "unit.o").read_bytes() if host else None)
    except OSError:
        return None


def _keep(home: Path, made: Compiled) -> None:
    """Put the result in the cache, each part whole or not at all; the PTX, read first, last."""
    home.mkdir(parents=True, exist_ok=True)
    parts = {"unit.o": made.host, "unit.cubin": made.cubin, "unit.ptx": made.ptx}
    for name, data in parts.items():
        if data is not None:
            with tempfile.NamedTemporaryFile(dir=home, delete=False) as part:
                part.write(data)
            durable.replace(Path(part.name), home / name)
