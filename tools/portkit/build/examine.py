"""What a build finds on a machine: each thing looked at is one check, each choice says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from portkit.build import msvc, surroundings, toolchain
from portkit.build import target as targets
from portkit.build.machine import Machine
from portkit.build.msvc import Compiler
from portkit.build.pinned import Pinned, needed
from portkit.build.target import Target
from portkit.build.toolchain import GIB, Chosen, Gpu, Jobs
from portkit.build.words import Check, fail, info, ok, warn
from portkit.cuda import toolkits
from portkit.cuda.toolkits import Toolkit
from portkit.errors import PortError
from portkit.text import archlists


@dataclass(frozen=True)
class Wanted:
    """What a person asked for; what is None or empty is found."""

    work: Path
    python: Path | None = None
    cuda_home: Path | None = None
    archs: str = ""
    jobs: int | None = None


@dataclass
class Findings:
    """What was found; a build needs all of it, and has it where no check failed."""

    checks: list[Check] = field(default_factory=list)
    target: Target | None = None
    toolkit: Chosen | None = None
    compiler: Compiler | None = None
    gpus: tuple[Gpu, ...] = ()
    archs: tuple[str, ...] = ()
    jobs: Jobs | None = None


def examine(machine: Machine, wanted: Wanted, pinned: Pinned, *, load: bool = False) -> Findings:
    """Look at everything a build depends on; never raises for what a machine lacks.

    `load` also imports the compiled modules of an installed vllm.
    """
    found = Findings()
    found.checks += _system(machine)
    found.checks += _python(machine, wanted, pinned, found, load)
    found.checks += _torch(pinned, found)
    found.checks += _packages(pinned, found)
    found.checks += _toolkit(machine, wanted, found)
    found.checks += _compiler(machine, found)
    found.checks += _gpu(machine, found)
    found.checks += _archs(wanted, pinned, found)
    found.checks += _memory(machine, wanted, found)
    found.checks += surroundings.disk(machine, wanted.work)
    found.checks += surroundings.paths(machine, wanted.work)
    found.checks += surroundings.programs(machine)
    return found


def _system(machine: Machine) -> Iterator[Check]:
    yield info("system", machine.system)


def _python(
    machine: Machine, wanted: Wanted, pinned: Pinned, found: Findings, load: bool
) -> Iterator[Check]:
    python, why = (wanted.python, "--python") if wanted.python is not None else find_python(machine)
    if python is None:
        yield fail(
            "python",
            "no Python to build for was found",
            "activate its environment, or --python PATH",
        )
        return
    try:
        names = needed(pinned.build_requirements)
        target = found.target = targets.inspect(machine, python, names, load=load)
    except PortError as error:
        yield fail("python", f"{error.message} ({why})", error.hint)
        return
    said = f"{target.version}, {target.platform}, {target.executable} ({why})"
    if target.implementation != "cpython" or target.bits != 64:
        yield fail(
            "python", f"{said}, {target.implementation}, {target.bits} bits", "use 64-bit CPython"
        )
    elif Version(target.version) not in pinned.python:
        yield fail(
            "python", f"{said}; vLLM {pinned.version} is for {pinned.python}",
            "make an environment with a Python of that range, and name it with --python",
        )  # fmt: skip
    elif not target.headers or not target.libraries:
        missing = "Python.h" if not target.headers else "python3.lib"
        yield fail(
            "python", f"{said}, without {missing} in {target.include}",
            "use Python from python.org (not the Store's), or install python3-dev",
        )  # fmt: skip
    elif not target.virtual:
        remedy = "make one, which leaves other programs alone: python -m venv FOLDER"
        yield warn("python", f"{said}, not a virtual environment", remedy)
    else:
        yield ok("python", said)


def find_python(machine: Machine) -> tuple[Path | None, str]:
    """The Python a person works with, and how it was found: their environment, else the PATH."""
    ours = Path(os.path.realpath(Path(__file__).parents[3] / ".venv"))
    inside = "Scripts/python.exe" if machine.windows else "bin/python"
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        folder = machine.environ.get(name)
        if folder and Path(os.path.realpath(folder)) != ours:
            conda = "python.exe" if machine.windows and name == "CONDA_PREFIX" else inside
            return Path(folder, conda), name
    for program in ("python", "python3"):
        path = machine.which(program)
        if path is not None and ours not in Path(os.path.realpath(path.parent)).parents:
            return path, "first on PATH"
    return None, ""


def how_to_install_torch(version: str) -> str:
    """What to do for a torch with CUDA, which on Windows is not on pip's usual index."""
    return (
        f"install torch {version} from PyTorch's own index for your CUDA (cu126, or cu128 for an "
        "RTX 50): pytorch.org/get-started/previous-versions has the command"
    )


def _torch(pinned: Pinned, found: Findings) -> Iterator[Check]:
    if found.target is None:
        return
    torch = found.target.torch
    install = how_to_install_torch(pinned.torch)
    if torch is None:
        yield fail("torch", "not installed", install)
    elif torch.error:
        yield fail(
            "torch",
            f"{torch.version} does not import: {torch.error}",
            f"pip uninstall torch, then {install}",
        )
    elif torch.hip is not None:
        yield fail("torch", f"{torch.version} is for ROCm", install)
    elif torch.cuda is None:
        yield fail(
            "torch", f"{torch.version} is built without CUDA, so it cannot use the GPU",
            f"pip uninstall torch, then {install}",
        )  # fmt: skip
    elif Version(torch.version).public != pinned.torch:
        yield warn(
            "torch", f"{torch.version}; vLLM {pinned.version} is made for {pinned.torch}",
            f"{install}; upstream warns too, and compiles at your risk",
        )  # fmt: skip
    else:
        yield ok("torch", f"{torch.version}, built with CUDA {torch.cuda}")


def _packages(pinned: Pinned, found: Findings) -> Iterator[Check]:
    if found.target is None:
        return
    wrong = []
    for one in pinned.build_requirements:
        has = found.target.packages.get(one.name)
        if has is None:
            wrong.append(str(one))
        elif not _satisfies(has, str(one.specifier), one.name):
            wrong.append(f"{one} (there is {has})")
    if wrong:
        quoted = " ".join(f'"{one.partition(" (")[0]}"' for one in wrong)
        yield fail(
            "build packages", f"missing: {', '.join(wrong)}", f"python -m pip install {quoted}"
        )
    else:
        yield ok(
            "build packages", f"{len(pinned.build_requirements)} as upstream's pyproject.toml asks"
        )


def _satisfies(version: str, specifier: str, name: str) -> bool:
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415

    # CMake 4 refuses the minimum that torch's files and some dependencies still name.
    limit = SpecifierSet(specifier + (",<4" if name == "cmake" else ""))
    return limit.contains(version, prereleases=True)


def _toolkit(machine: Machine, wanted: Wanted, found: Findings) -> Iterator[Check]:
    all_found = toolkits.found(machine.environ)
    yield info(
        "toolkits",
        "; ".join(f"{_version(one)} in {one.root} ({one.source})" for one in all_found)
        or "none found",
    )
    torch = found.target.torch if found.target is not None else None
    asked = (
        Toolkit(wanted.cuda_home.absolute(), "--cuda-home")
        if wanted.cuda_home is not None
        else None
    )
    if asked is not None and not asked.nvcc.is_file():
        yield fail("toolkit", f"{asked.root} has no {asked.nvcc.name}", "name the folder above bin")
        return
    if torch is None or torch.cuda is None:
        return
    try:
        chosen = found.toolkit = toolchain.choose_toolkit(all_found, torch.cuda, asked=asked)
    except PortError as error:
        yield fail("toolkit", error.message, error.hint)
        return
    said = f"{chosen.toolkit.version} in {chosen.toolkit.root}, {chosen.why}"
    if chosen.mismatch:
        yield warn(
            "toolkit",
            said,
            f"the CUDA {torch.cuda} toolkit is the one that was tried with this torch",
        )
    else:
        yield ok("toolkit", said)


def _version(toolkit: Toolkit) -> str:
    try:
        return str(toolkit.version)
    except PortError:
        return "unknown version"


def _compiler(machine: Machine, found: Findings) -> Iterator[Check]:
    if not machine.windows:
        ran = machine.run([machine.environ.get("CXX", "c++"), "--version"])
        if ran is None or ran.code != 0:
            yield fail("compiler", "no C++ compiler", "install g++")
        else:
            yield ok("compiler", ran.out.splitlines()[0])
        return
    limits = msvc.accepted(found.toolkit.toolkit.include) if found.toolkit is not None else None
    if msvc.in_developer_prompt(machine.environ):
        toolset = machine.environ["VCToolsVersion"]
        said = f"MSVC toolset {toolset}, of this developer prompt"
        if limits is not None and toolset not in limits:
            remedy = "run in a plain prompt, where the newest toolset that it takes is chosen"
            yield fail("compiler", f"{said}, and nvcc takes {limits}", remedy)
        else:
            yield ok("compiler", said)
        return
    try:
        compiler = found.compiler = msvc.choose(msvc.installations(machine), limits)
    except PortError as error:
        yield fail("compiler", error.message, error.hint)
        return
    pinned = ", pinned because nvcc takes no newer one" if compiler.pinned else ""
    yield ok(
        "compiler",
        f"MSVC {compiler.version} (toolset {compiler.toolset}{pinned}) of "
        f"{compiler.installation.name}",
    )


def _gpu(machine: Machine, found: Findings) -> Iterator[Check]:
    found.gpus = toolchain.gpus(machine)
    if not found.gpus:
        yield warn(
            "gpu", "none that nvidia-smi lists",
            "building works without one (name --archs); to run, install NVIDIA's driver",
        )  # fmt: skip
    for one in found.gpus:
        yield ok(
            "gpu",
            f"{one.name}, compute capability {one.capability}, {one.memory / GIB:.1f} GiB, "
            f"driver {one.driver}",
        )


def _archs(wanted: Wanted, pinned: Pinned, found: Findings) -> Iterator[Check]:
    text, why = wanted.archs, "--archs"
    if not text:
        text, why = " ".join({one.capability for one in found.gpus}), "of this machine's GPU"
    if not text:
        yield fail("architectures", "no GPU here, and none named", "name them: --archs 8.6")
        return
    try:
        found.archs = toolchain.parse_archs(text)
        if found.toolkit is not None:
            toolkit = found.toolkit.toolkit
            supported = archlists.supported(pinned.archs, toolkit.version.release)
            toolchain.check_archs(found.archs, toolkit, supported)
    except PortError as error:
        yield fail("architectures", error.message, error.hint)
        return
    yield ok("architectures", f"{' '.join(found.archs)} ({why})")


def _memory(machine: Machine, wanted: Wanted, found: Findings) -> Iterator[Check]:
    memory = machine.memory()
    found.jobs = toolchain.compute_jobs(machine.cores, memory, found.archs)
    if wanted.jobs is not None:
        found.jobs = Jobs(wanted.jobs, "--jobs")
    elif machine.environ.get("MAX_JOBS", "").isdigit():
        found.jobs = Jobs(int(machine.environ["MAX_JOBS"]), "MAX_JOBS")
    said = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.commit_total is not None and memory.commit_available is not None:
        free, limit = memory.commit_available / GIB, memory.commit_total / GIB
        said += f", commit {free:.1f} of {limit:.1f} GiB free"
    if memory.available < toolchain.USUAL_NEED:
        yield warn("memory", said, "close other programs: one compile takes up to 2.9 GiB")
    elif memory.commit_total is not None and memory.commit_total < 1.5 * memory.total:
        yield warn(
            "memory", said,
            "enlarge the paging file: programs reserve more than they use (os error 1455)",
        )  # fmt: skip
    else:
        yield ok("memory", said)
    yield info("jobs", f"{found.jobs.count} ({found.jobs.why})")
