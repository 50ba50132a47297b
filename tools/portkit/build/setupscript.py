"""The CMake commands of a build, as upstream's own setup.py makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portkit.build.machine import Machine
from portkit.errors import Unavailable

_SCRIPT = Path(__file__).with_name("capture_setup.py")
_MARK = "portkit-command: "


@dataclass(frozen=True)
class Step:
    """A command and the folder it runs in."""

    command: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class CMakeSteps:
    """Configure, build, and one install per module, in the order of setup.py."""

    configure: Step
    build: Step
    installs: tuple[Step, ...]

    @property
    def folder(self) -> Path:
        """CMake's build folder."""
        return self.configure.folder

    @property
    def targets(self) -> tuple[str, ...]:
        """The modules that are built, by CMake's names."""
        named = (word.partition("--target=") for word in self.build.command)
        return tuple(name for before, option, name in named if option and not before)

    @property
    def prefix(self) -> Path | None:
        """The folder that modules are installed to, for the wheel; None without a module."""
        for step in self.installs:
            return Path(step.command[step.command.index("--prefix") + 1])
        return None


def capture(machine: Machine, python: Path, source: Path, environ: Mapping[str, str]) -> CMakeSteps:
    """Ask the setup.py in `source`; raises `Unavailable` with its last words when it fails."""
    ran = machine.run([python, _SCRIPT], environ=environ, folder=source)
    said = [] if ran is None else ran.out.splitlines()
    steps = [_step(line.removeprefix(_MARK)) for line in said if line.startswith(_MARK)]
    if ran is None or ran.code != 0 or len(steps) < 2:
        last = next((line for line in reversed(said) if line.strip()), "it does not run")
        raise Unavailable(
            f"upstream's setup.py does not say how it builds: {last}",
            hint=f"run it to see all it says: {python} setup.py build_ext, in {source}",
        )
    return CMakeSteps(steps[0], steps[1], tuple(steps[2:]))


def _step(text: str) -> Step:
    read = json.loads(text)
    return Step(tuple(read["command"]), Path(read["folder"]))
