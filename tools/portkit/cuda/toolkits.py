"""The CUDA toolkits of this machine: where they are, which version, what they compile for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.version import InvalidVersion, Version

from portkit.errors import Unavailable

_TIMEOUT = 60  # seconds for nvcc to say what it is
_RELEASE = re.compile(r"release [\d.]+, V(\d+(?:\.\d+)*)")
_ARCH = re.compile(r"^(?:compute|sm)_(\d+)([af]?)$", re.MULTILINE)
_VARIABLE = re.compile(r"CUDA_PATH_V\d+_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Toolkit:
    """A toolkit with a compiler: its `root` folder and where it was found, in words."""

    root: Path
    source: str

    @property
    def nvcc(self) -> Path:
        return self.program("nvcc")

    def program(self, name: str) -> Path:
        """A program of the toolkit, such as `cuobjdump`; it may not be there."""
        return self.root / "bin" / (f"{name}.exe" if os.name == "nt" else name)

    @property
    def include(self) -> Path:
        return self.root / "include"

    @cached_property
    def version(self) -> Version:
        """The version of the compiler, such as 13.0.88.

        From the toolkit's `version.json`, else from nvcc; raises `Unavailable` when neither says.
        """
        return _written_version(self.root) or _asked_version(self)

    @cached_property
    def archs(self) -> tuple[str, ...]:
        """The architectures that nvcc compiles for, as CMake and torch write them: `7.5`, `9.0a`.

        Raises `Unavailable` when nvcc does not say.
        """
        listed = _ask(self.nvcc, "--list-gpu-code")
        return tuple(f"{code[:-1]}.{code[-1]}{kind}" for code, kind in _ARCH.findall(listed))


def found(environ: Mapping[str, str] = os.environ) -> tuple[Toolkit, ...]:
    """Every toolkit with an nvcc, each once, the one that a build takes first.

    `CUDA_HOME` and `CUDA_PATH` come first, as for torch, then the nvcc of the PATH, then the
    folders that the installers use, newest first.
    """
    toolkits: dict[Path, Toolkit] = {}
    for root, source in _places(environ):
        toolkit = Toolkit(root, source)
        if toolkit.nvcc.is_file():
            toolkits.setdefault(root.resolve(), toolkit)
    return tuple(toolkits.values())


def first(environ: Mapping[str, str] = os.environ) -> Toolkit | None:
    """The toolkit that a build takes, None where there is none."""
    return next(iter(found(environ)), None)


def _places(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            yield Path(environ[name]), name
    on_path = shutil.which("nvcc", path=environ.get("PATH", ""))
    if on_path is not None:
        yield _root_of(Path(on_path)), "PATH"
    for name in sorted(filter(_VARIABLE.fullmatch, environ), key=_numbers, reverse=True):
        yield Path(environ[name]), name
    for folder in _folders(environ):
        yield from ((path, str(folder)) for path in _versioned(folder))


def _root_of(nvcc: Path) -> Path:
    """The toolkit of an nvcc on the PATH, which may be a link or a script that calls another."""
    resolved = nvcc.resolve()
    if (resolved.parent.parent / "include/cuda.h").is_file():
        return resolved.parent.parent
    try:
        said = _ask(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull)
    except Unavailable:
        return resolved.parent.parent
    top = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return Path(top[1]).resolve() if top is not None else resolved.parent.parent


def _folders(environ: Mapping[str, str]) -> tuple[Path, ...]:
    if sys.platform == "win32":
        programs = environ.get("ProgramFiles", r"C:\Program Files")
        return (Path(programs, "NVIDIA GPU Computing Toolkit", "CUDA"),)
    return (Path("/usr/local"), Path("/opt"))


def _versioned(folder: Path) -> list[Path]:
    """`cuda-13.0` or `v12.6` below a folder, newest first, and plain `cuda` last."""
    found = [
        path for path in folder.glob("*") if re.fullmatch(r"(cuda(-[\d.]+)?|v[\d.]+)", path.name)
    ]
    return sorted(found, key=lambda path: _numbers(path.name), reverse=True)


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _written_version(root: Path) -> Version | None:
    try:
        written = json.loads((root / "version.json").read_text(encoding="utf-8"))
        return Version(written["cuda_nvcc"]["version"])
    except (OSError, ValueError, KeyError, TypeError, InvalidVersion):
        return None


def _asked_version(toolkit: Toolkit) -> Version:
    said = _RELEASE.search(_ask(toolkit.nvcc, "--version"))
    if said is None:
        raise Unavailable(f"{toolkit.nvcc} --version names no release")
    return Version(said[1])


def _ask(nvcc: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [str(nvcc), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{nvcc} does not run: {error}") from error
    return done.stdout + done.stderr
