"""Visual Studio: the installations, their toolsets, and the environment a compile needs.

`vswhere` lists the installations, `vcvarsall.bat` sets the environment; what is done here is to
choose, and to take over what the script set.  The libraries that know of Visual Studio (the
private `_msvccompiler` of setuptools, scikit-build-core's) take the newest toolset and cannot pin
one, and nvcc refuses the newest regularly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from packaging.version import InvalidVersion, Version

from portkit.build.machine import Machine
from portkit.errors import BadInput, Unavailable

COMPONENT = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
WORKLOAD = "Desktop development with C++"
GET_IT = f"install Visual Studio 2022 or its Build Tools with the workload “{WORKLOAD}”"

_VSWHERE = ("Microsoft Visual Studio", "Installer", "vswhere.exe")
_RANGE = re.compile(r"_MSC_VER\s*<\s*(\d{4})\s*\|\|\s*_MSC_VER\s*>=\s*(\d{4})")


@dataclass(frozen=True)
class Installation:
    """One Visual Studio: its folder, its version, and the toolsets (`14.43.34808`) it holds."""

    name: str
    version: str
    path: str
    toolsets: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        return str(PureWindowsPath(self.path, "VC", "Auxiliary", "Build", "vcvarsall.bat"))


@dataclass(frozen=True)
class Accepted:
    """The values of `_MSC_VER` that a CUDA toolkit's nvcc takes: from `low`, below `high`."""

    low: int
    high: int

    def __contains__(self, toolset: str) -> bool:
        return self.low <= msc_version(toolset) < self.high

    def __str__(self) -> str:
        return f"_MSC_VER {self.low} to {self.high - 1}"


@dataclass(frozen=True)
class Compiler:
    """The toolset a build takes; `pinned` when it is not the one the installation would take."""

    installation: Installation
    toolset: str
    pinned: bool

    @property
    def version(self) -> str:
        """As cl and nvcc say it: toolset 14.43 is the compiler 19.43."""
        return f"19.{Version(self.toolset).minor}"


def msc_version(toolset: str) -> int:
    """`_MSC_VER` of a toolset: 1943 for 14.43.34808."""
    return 1900 + Version(toolset).minor


def accepted(include: Path) -> Accepted | None:
    """What the toolkit with this include folder says of cl in its own header; None if nothing."""
    try:
        text = (include / "crt" / "host_config.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _RANGE.search(text)
    return Accepted(int(found[1]), int(found[2])) if found is not None else None


def installations(machine: Machine) -> tuple[Installation, ...]:
    """Those with a C++ compiler for x64, newest first; empty when vswhere is not there."""
    programs = machine.environ.get("ProgramFiles(x86)", r"C:\Program Files (x86)")
    vswhere = PureWindowsPath(programs, *_VSWHERE)
    asked = ("-products", "*", "-requires", COMPONENT, "-format", "json", "-utf8", "-prerelease")
    ran = machine.run([str(vswhere), *asked])
    if ran is None or ran.code != 0:
        return ()
    found = parse_vswhere(ran.out)
    return tuple(
        Installation(one.name, one.version, one.path, tuple(_toolsets(machine, one.path)))
        for one in found
    )


def parse_vswhere(text: str) -> tuple[Installation, ...]:
    """What vswhere lists as JSON, newest first; raises `Unavailable` for other text."""
    try:
        listed = json.loads(text)
        found = [
            Installation(one["displayName"], one["installationVersion"], one["installationPath"])
            for one in listed
            if one.get("isComplete", True)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"vswhere said what is not its JSON: {error}", hint=GET_IT) from None
    return tuple(sorted(found, key=lambda one: Version(one.version), reverse=True))


def _toolsets(machine: Machine, path: str) -> Iterator[str]:
    """Newest first."""
    names = machine.folders(str(PureWindowsPath(path, "VC", "Tools", "MSVC")))
    versions = []
    for name in names:
        try:
            versions.append(Version(name))
        except InvalidVersion:
            continue
    yield from map(str, sorted(versions, reverse=True))


def choose(found: Sequence[Installation], nvcc: Accepted | None) -> Compiler:
    """The newest toolset that nvcc takes, of the newest installation that has one.

    Raises `BadInput` when there is no compiler, or none that nvcc takes.
    """
    for one in found:
        for toolset in one.toolsets:
            if nvcc is None or toolset in nvcc:
                return Compiler(one, toolset, pinned=toolset != one.toolsets[0])
    if not any(one.toolsets for one in found):
        raise BadInput("no Visual Studio with a C++ compiler for x64 is installed", hint=GET_IT)
    have = ", ".join(toolset for one in found for toolset in one.toolsets)
    raise BadInput(
        f"nvcc takes cl with {nvcc}, and the toolsets here are {have}",
        hint="in the Visual Studio Installer, under “Individual components”, add an MSVC v143 "
        "toolset that nvcc takes, or install a newer CUDA toolkit",
    )


def environment(machine: Machine, compiler: Compiler) -> dict[str, str]:
    """What `vcvarsall.bat x64` sets or changes; raises `Unavailable` when it fails."""
    arguments = f"x64 -vcvars_ver={_short(compiler.toolset)}" if compiler.pinned else "x64"
    before = _set(machine, "set")
    script = compiler.installation.script
    after = _set(machine, f'call "{script}" {arguments} >nul 2>nul && set')
    changed = difference(before, after)
    if not any(name.upper() == "INCLUDE" for name in changed):
        raise Unavailable(
            f"{script} {arguments} set no environment for the compiler",
            hint="run it in a cmd window to see what it says; repair Visual Studio if it fails",
        )
    return changed


def in_developer_prompt(environ: Mapping[str, str]) -> bool:
    """True where the environment is set already, for x64."""
    return environ.get("VSCMD_ARG_TGT_ARCH") == "x64" and bool(environ.get("VCToolsVersion"))


def parse_set(text: str) -> dict[str, str]:
    """The variables that cmd's `set` prints, one on a line; other lines are none."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if equals and name}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """What `after` has that `before` had not, or otherwise; names differ in case on Windows."""
    had = {name.upper(): value for name, value in before.items()}
    return {name: value for name, value in after.items() if had.get(name.upper()) != value}


def _set(machine: Machine, line: str) -> dict[str, str]:
    # /u: cmd writes UTF-16, so that a user's name in any script survives; /d: no AutoRun.
    ran = machine.run(f'cmd.exe /d /u /s /c "{line}"', encoding="utf-16-le")
    if ran is None or ran.code != 0:
        raise Unavailable(f"cmd could not run: {line}")
    return parse_set(ran.out)


def _short(toolset: str) -> str:
    version = Version(toolset)
    return f"{version.major}.{version.minor}"
