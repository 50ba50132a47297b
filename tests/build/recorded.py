"""Other machines, as what their programs said: a Windows desktop and its toolkits in folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portkit.build.machine import Machine, Memory, Ran

DATA = Path(__file__).with_name("data")
GIB = 1 << 30

TARGET: dict[str, Any] = {
    "version": "3.10.11",
    "implementation": "cpython",
    "bits": 64,
    "free-threaded": False,
    "executable": r"C:\vllm\env\Scripts\python.exe",
    "virtual": True,
    "platform": "win-amd64",
    "include": r"C:\Python310\Include",
    "headers": True,
    "libraries": True,
    "packages": {},
    "torch": {"version": "2.9.1+cu126", "cuda": "12.6", "hip": None, "gpu": True},
    "vllm": None,
    "modules": {},
}


def read(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


class Variables(dict[str, str]):
    """As `os.environ` on Windows: names in upper case, found in any."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__({name.upper(): value for name, value in given.items()})

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.upper(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.upper())


def parsed_set(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in read(name).splitlines())


def toolkit(root: Path, version: str, archs: str = "75 80 86 89 90") -> Path:
    """A folder that looks like a CUDA toolkit, with an nvcc that says what it compiles for."""
    (root / "bin").mkdir(parents=True)
    (root / "include/crt").mkdir(parents=True)
    (root / "version.json").write_text(json.dumps({"cuda_nvcc": {"version": version}}))
    (root / "include/crt/host_config.h").write_text(read("host_config.h"))
    nvcc = root / "bin/nvcc"
    listed = "\n".join(f"sm_{arch}" for arch in archs.split())
    nvcc.write_text(f"#!/bin/sh\necho '{listed}'\n")
    nvcc.chmod(0o755)
    return root


@dataclass
class WindowsDesktop(Machine):
    """An RTX 3090 with Visual Studio 2022 and 2026, as far as it is asked."""

    variables: Mapping[str, str] = field(
        default_factory=lambda: Variables(parsed_set("set-before.txt"))
    )
    target: Mapping[str, Any] = field(default_factory=lambda: dict(TARGET))
    toolsets: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {
            "2022": ("14.43.34808", "14.38.33130"),
            "18": ("14.50.35717",),
        }
    )
    long_paths: int = 1
    smi: str = read("nvidia-smi.csv")
    git: str = "git version 2.47.1.windows.1\n"
    said: list[str] = field(default_factory=list)
    ram: Memory = field(default_factory=lambda: Memory(64 * GIB, 40 * GIB, 96 * GIB, 60 * GIB))

    windows = True

    @property
    def environ(self) -> Mapping[str, str]:
        return self.variables

    @property
    def system(self) -> str:
        return "Windows 10.0.22631, AMD64"

    @property
    def cores(self) -> int:
        return 16

    def memory(self) -> Memory:
        return self.ram

    def disk_free(self, folder: Path) -> int:
        return 200 * GIB

    def which(self, program: str) -> Path | None:
        return None

    def registry(self, key: str, value: str) -> str | int | None:
        return self.long_paths if value == "LongPathsEnabled" else None

    def folders(self, path: str) -> list[str]:
        found = (names for part, names in self.toolsets.items() if f"\\{part}\\" in path)
        return list(next(found, ()))

    def run(
        self,
        command: Sequence[str | Path] | str,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        encoding: str = "utf-8",
    ) -> Ran | None:
        line = command if isinstance(command, str) else " ".join(map(str, command))
        self.said.append(line)
        if "vswhere" in line:
            return Ran(0, read("vswhere.json"))
        if line.startswith("cmd.exe"):
            name = "set-after.txt" if "vcvarsall" in line else "set-before.txt"
            return Ran(0, read(name).replace("\n", "\r\n"))
        if "nvidia-smi" in line:
            return Ran(0, self.smi) if self.smi else None
        if "inspect_target" in line:
            return Ran(0, json.dumps(self.target))
        if line.startswith("git --version"):
            return Ran(0, self.git)
        if line.startswith("git config"):
            return Ran(0, "true\n")
        return None
