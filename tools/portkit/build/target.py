"""The Python that vLLM is built for and installed into: its version, headers, torch, packages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from portkit.build.machine import Machine
from portkit.errors import BadInput, Unavailable

_SCRIPT = Path(__file__).with_name("inspect_target.py")


@dataclass(frozen=True)
class Torch:
    """The torch of a target: `cuda` and `hip` are what it was built with, None when without.

    `error` says how its import fails; everything but the version is empty then.
    """

    version: str
    cuda: str | None = None
    hip: str | None = None
    error: str = ""
    gpu: bool = False

    @property
    def cuda_release(self) -> tuple[int, int] | None:
        """Major and minor version of the toolkit that torch was built with."""
        if self.cuda is None:
            return None
        try:
            parsed = Version(self.cuda)
        except InvalidVersion:
            return None
        return parsed.major, parsed.minor


@dataclass(frozen=True)
class Target:
    """A Python, as `inspect_target.py` describes it; `platform` is sysconfig's (`win-amd64`)."""

    executable: Path
    version: str
    platform: str
    implementation: str = "cpython"
    bits: int = 64
    free_threaded: bool = False
    virtual: bool = True
    include: str = ""
    headers: bool = True
    libraries: bool = True
    torch: Torch | None = None
    vllm: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def release(self) -> tuple[int, int]:
        parsed = Version(self.version)
        return parsed.major, parsed.minor


def inspect(
    machine: Machine, python: Path, packages: Sequence[str] = (), *, load: bool = False
) -> Target:
    """Ask `python` what it is; raises `BadInput` when it is none, `Unavailable` when it fails."""
    options = ["--load"] if load else []
    ran = machine.run([python, _SCRIPT, *packages, *options])
    if ran is None:
        raise BadInput(f"{python} does not run", hint="name the Python to build for with --python")
    text = next((line for line in ran.out.splitlines()[::-1] if line.startswith("{")), None)
    if ran.code != 0 or text is None:
        said = ran.out.strip().splitlines()
        raise Unavailable(f"{python} cannot say what it is: {said[-1] if said else 'no output'}")
    return parse(json.loads(text))


def parse(facts: dict[str, Any]) -> Target:
    """A target from what the script printed."""
    torch = facts["torch"]
    return Target(
        executable=Path(facts["executable"]),
        version=facts["version"],
        platform=facts["platform"],
        implementation=facts["implementation"],
        bits=facts["bits"],
        free_threaded=facts["free-threaded"],
        virtual=facts["virtual"],
        include=facts["include"],
        headers=facts["headers"],
        libraries=facts["libraries"],
        torch=None
        if torch is None
        else Torch(
            torch["version"],
            torch.get("cuda"),
            torch.get("hip"),
            torch.get("error", ""),
            torch.get("gpu", False),
        ),
        vllm=facts["vllm"],
        packages=facts["packages"],
        modules=facts["modules"],
    )
