"""The Python of a CI cell: torch for the cell's CUDA toolkit, what vLLM builds with, the wheel.

uv knows where each build of torch is (`--torch-backend cu126`); pip would take the index's one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tomli
import uv

from portkit.build.wheels import Wheel, local
from portkit.ci.cells import Read, squeezed
from portkit.errors import BadInput, Unavailable
from portkit.model import Event, Events, silent


def create(
    folder: Path,
    python: str,
    toolkit: str,
    read: Read,
    *,
    also: Sequence[str] = (),
    events: Events = silent,
) -> Path:
    """Make a virtual environment in `folder` and give its Python.

    `python` and `toolkit` are versions (`3.10`, `12.6`); `read` gives upstream's files.
    `also` are requirements besides those vLLM builds with.  Raises `BadInput` where `folder` is in
    use, `Unavailable` where something cannot be had; nothing is left then.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty", hint="name a new folder")
    project = tomli.loads((read("pyproject.toml") or b"").decode("utf-8"))
    needed = [str(line) for line in project["build-system"]["requires"]]
    try:
        events(Event(f"making an environment for Python {python}", 0, 2, "steps"))
        _uv("venv", "--seed", "--python", python, str(folder))
        events(Event(f"installing torch for CUDA {toolkit}", 1, 2, "steps"))
        options = ("--python", str(folder), "--torch-backend", _backend(toolkit))
        _uv("pip", "install", *options, *needed, *also)
    except Unavailable:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(python: Path, wheel: Wheel) -> None:
    """Install `wheel` into the environment of `python`, with what it requires.

    Raises `BadInput` where the wheel does not say its toolkit, `Unavailable` where uv fails.
    """
    built = local(wheel.version)
    if built is None:
        raise BadInput(
            f"{wheel.path.name} does not say its CUDA toolkit", hint="build it with tools/build.py"
        )
    backend = _backend(built.cuda)
    _uv("pip", "install", "--python", str(python), "--torch-backend", backend, str(wheel.path))


def _backend(toolkit: str) -> str:
    return f"cu{squeezed(toolkit)}"


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [uv.find_uv_bin(), "--quiet", "--no-config", *arguments], capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = next((line for line in said if line.startswith("error")), said[0] if said else "")
        raise Unavailable(f"uv {arguments[0]} failed: {reason.removeprefix('error: ')}")
