"""The environment of a build: what is set beside the caller's, and why each variable."""

from __future__ import annotations

import shlex
from pathlib import Path

from portkit.build import msvc
from portkit.build.examine import Findings
from portkit.build.machine import Machine
from portkit.errors import BadInput


def environment(
    machine: Machine, found: Findings, *, version: str, deps: dict[str, str], fetched: Path
) -> dict[str, str]:
    """The variables a build sets beside those of the caller.

    Raises `BadInput` when something that it needs was not found.
    """
    target, chosen, jobs = found.target, found.toolkit, found.jobs
    if target is None or chosen is None or jobs is None or target.torch is None or not found.archs:
        raise BadInput("the machine lacks what a build needs", hint="tools/doctor.py names it")
    root = chosen.toolkit.root
    scripts = target.executable.parent
    added: dict[str, str] = {}
    if machine.windows and found.compiler is not None:
        added |= msvc.environment(machine, found.compiler)
    inherited = {name.upper(): value for name, value in {**machine.environ, **added}.items()}
    path = inherited.get("PATH", "")
    separator = ";" if machine.windows else ":"
    first = [str(chosen.toolkit.nvcc.parent), str(scripts)]
    added = {name: value for name, value in added.items() if name.upper() != "PATH"}
    added |= {
        "PATH": separator.join([*first, path]),
        "CUDA_HOME": str(root),
        "CUDA_PATH": str(root),
        "VLLM_TARGET_DEVICE": "cuda",
        "TORCH_CUDA_ARCH_LIST": " ".join(found.archs),
        "MAX_JOBS": str(jobs.count),
        "VLLM_VERSION_OVERRIDE": version,
        "FETCHCONTENT_BASE_DIR": fetched.as_posix(),
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        **deps,
    }
    if machine.windows:
        # Let setuptools take the environment as it is, and Python write UTF-8 to our logs.
        added |= {"DISTUTILS_USE_SDK": "1", "PYTHONUTF8": "1"}
    return added


def shown_environment(added: dict[str, str], machine: Machine) -> list[str]:
    """The variables as a person would set them, those of Visual Studio counted only."""
    ours = {name: value for name, value in added.items() if machine.environ.get(name) != value}
    if machine.windows:
        return [f"set {name}={value}" for name, value in ours.items()]
    return [f"export {name}={shlex.quote(value)}" for name, value in ours.items()]
