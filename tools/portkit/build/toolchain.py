"""What a build takes of the things installed: toolkit, compiler, architectures, number of jobs.

Each choice is a function of what was found, and says why it fell as it did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

from portkit.build.machine import Machine, Memory
from portkit.cuda.toolkits import Toolkit
from portkit.errors import BadInput

GIB = 1 << 30

# Peak memory of one compile, measured (docs/building.md): nvcc's own processes and the host
# compiler together.  Units that instantiate CUTLASS 3 exist for these families alone.
USUAL_NEED = 2.9 * GIB
HEAVY_NEED = 9.6 * GIB
_HEAVY = ("9.0", "10.0", "10.1", "10.3", "11.0", "12.0", "12.1")
# How many heavy units a build has at once: they are a few among hundreds, in one stretch.
_RESERVE = 1.5 * GIB  # for the system, the editor, a browser

_ARCH = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")


@dataclass(frozen=True)
class Chosen:
    """A toolkit, and why it was taken; `mismatch` when torch was built with another minor."""

    toolkit: Toolkit
    why: str
    mismatch: bool = False


def release(version: Version) -> tuple[int, int]:
    return version.major, version.minor


def choose_toolkit(found: Sequence[Toolkit], cuda: str, *, asked: Toolkit | None = None) -> Chosen:
    """The toolkit of the version torch was built with (`12.6`).

    One a person `asked` for may differ in its minor version, not in its major one.  Raises
    `BadInput` when none serves, and names those there are.
    """
    wanted = release(Version(cuda))
    if asked is not None:
        has = release(asked.version)
        if has == wanted:
            return Chosen(asked, "asked for; torch was built with the same")
        if has[0] == wanted[0]:
            return Chosen(asked, f"asked for, though torch was built with CUDA {cuda}", True)
        raise BadInput(
            f"{asked.root} is CUDA {asked.version}, and torch was built with CUDA {cuda}: modules "
            "of the one do not load beside the other",
            hint=f"name a CUDA {cuda} toolkit, or install a torch built with CUDA {has[0]}",
        )
    for toolkit in found:
        if release(toolkit.version) == wanted:
            return Chosen(toolkit, f"from {toolkit.source}; torch was built with CUDA {cuda}")
    have = ", ".join(f"{one.version} ({one.root})" for one in found) or "none"
    raise BadInput(
        f"torch was built with CUDA {cuda}, and the toolkits here are: {have}",
        hint=f"install the CUDA {cuda} toolkit, or a torch built with one you have; a toolkit of "
        "the same major version is taken when named with --cuda-home",
    )


def parse_archs(text: str) -> tuple[str, ...]:
    """A list of architectures (`8.6 9.0`, with `;`, `,` or spaces) in ascending order, each once.

    `12.0a` becomes `12.0`: upstream's CMake adds the letter where a kernel needs it, and an
    architecture with one matches none of its lists.  Raises `BadInput`.
    """
    found: dict[tuple[int, int], str] = {}
    for word in filter(None, re.split(r"[;,\s]+", text.strip())):
        match = _ARCH.fullmatch(word)
        if match is None:
            raise BadInput(
                f"{word!a} is not a CUDA architecture",
                hint="write compute capabilities as 8.6 or 12.0, several of them with spaces",
            )
        found[int(match[1]), int(match[2])] = f"{match[1]}.{match[2]}"
    if not found:
        raise BadInput("the list of CUDA architectures is empty", hint="for example --archs 8.6")
    return tuple(found[key] for key in sorted(found))


def check_archs(archs: Sequence[str], toolkit: Toolkit, supported: Sequence[str]) -> None:
    """Raise `BadInput` for an architecture that nvcc or upstream's build has not.

    A build falls back on an older member of the same family (8.8 on 8.7), as upstream does.
    """
    for arch in archs:
        major = arch.split(".")[0]
        # nvcc compiles for `supported`, which upstream takes from; a newer family needs a newer one
        if arch not in toolkit.archs:
            raise BadInput(
                f"nvcc {toolkit.version} does not compile for {arch}, only for "
                f"{', '.join(toolkit.archs)}",
                hint=_NEEDS.get(major, "drop it from --archs, or use another CUDA toolkit"),
            )
        family = [one for one in supported if one.split(".")[0] == major]
        if supported and not any(float(one) <= float(arch) for one in family):
            raise BadInput(
                f"this release of vLLM builds for {', '.join(supported)} with CUDA "
                f"{toolkit.version.major}.{toolkit.version.minor}, not for {arch}",
                hint="7.0 (Volta) is the oldest there is, and CUDA 13 raises that to 7.5"
                if int(major) <= 7
                else "take a release of vLLM that knows it, or another CUDA toolkit",
            )


_NEEDS = {
    "12": "an RTX 50 (12.0) needs CUDA 12.8 or newer, with a torch built for it (cu128 or newer)",
    "10": "10.0 needs CUDA 12.8 or newer, with a torch built for it (cu128 or newer)",
    "7": "CUDA 13 compiles for 7.5 and newer; a 7.0 card needs CUDA 12",
}


@dataclass(frozen=True)
class Gpu:
    """A card as nvidia-smi lists it; `memory` in bytes."""

    name: str
    capability: str
    memory: int
    driver: str
    used: int = 0


_QUERY = "name,compute_cap,memory.total,driver_version,memory.used"


def gpus(machine: Machine) -> tuple[Gpu, ...]:
    """The cards of the machine, none where nvidia-smi is not there or lists none."""
    ran = machine.run(["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"])
    return parse_gpus(ran.out) if ran is not None and ran.code == 0 else ()


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Those nvidia-smi prints as CSV, in MiB; lines of other shape are skipped."""
    found = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 5 and words[2].isdigit():
            used = int(words[4]) if words[4].isdigit() else 0
            found.append(Gpu(words[0], words[1], int(words[2]) << 20, words[3], used << 20))
    return tuple(found)


@dataclass(frozen=True)
class Jobs:
    """How many compiles run at once, and why not more."""

    count: int
    why: str


def compute_jobs(cores: int, memory: Memory, archs: Sequence[str]) -> Jobs:
    """As many jobs as there are cores, as far as free memory (and commit) holds their peaks."""
    need = HEAVY_NEED if any(arch in _HEAVY for arch in archs) else USUAL_NEED
    free, of = memory.available, "RAM"
    if memory.commit_available is not None and memory.commit_available < free:
        free, of = memory.commit_available, "commit limit"
    fit = max(1, int((free - _RESERVE) // need))
    each = f"{need / GIB:.1f} GiB each"
    if fit >= cores:
        return Jobs(cores, f"one for each of {cores} cores; memory has room ({each})")
    return Jobs(fit, f"{free / GIB:.1f} GiB of {of} are free, and a compile takes up to {each}")
