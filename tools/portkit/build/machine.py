"""What the build asks of the computer; tests put recorded answers of others in its place."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_TIMEOUT = 120  # seconds a program may take to answer a question


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it said on both streams."""

    code: int
    out: str


@dataclass(frozen=True)
class Memory:
    """In bytes: RAM, what of it is free to use, and on Windows the same of the commit limit.

    The commit limit is RAM and paging file together; an allocation beyond it fails (os error
    1455) even while RAM is free.  Elsewhere it is None.
    """

    total: int
    available: int
    commit_total: int | None = None
    commit_available: int | None = None


class Machine:
    """This computer."""

    windows = os.name == "nt"

    @property
    def environ(self) -> Mapping[str, str]:
        return os.environ

    @property
    def system(self) -> str:
        """The operating system in words."""
        if sys.platform.startswith("linux"):
            try:
                name = platform.freedesktop_os_release()["PRETTY_NAME"]
            except (OSError, KeyError):
                name = "Linux"
            return f"{name}, kernel {platform.release()}, {platform.machine()}"
        return f"{platform.system()} {platform.version()}, {platform.machine()}"

    @property
    def cores(self) -> int:
        return (
            len(psutil.Process().cpu_affinity())
            if hasattr(psutil.Process, "cpu_affinity")
            else (os.cpu_count() or 1)
        )

    def run(
        self,
        command: Sequence[str | Path] | str,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        encoding: str = "utf-8",
    ) -> Ran | None:
        """What a program says; None when it is not there or does not answer.

        A string is handed to Windows as it stands, for programs with quoting of their own.
        """
        line = command if isinstance(command, str) else [str(word) for word in command]
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=None if environ is None else dict(environ),
                cwd=folder,
                timeout=_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Ran(done.returncode, done.stdout.decode(encoding, errors="replace"))

    def which(self, program: str) -> Path | None:
        found = shutil.which(program, path=self.environ.get("PATH", ""))
        return Path(found) if found is not None else None

    def folders(self, path: str) -> list[str]:
        """The names of the folders below a folder; empty when it is not there."""
        try:
            return [entry.name for entry in Path(path).iterdir() if entry.is_dir()]
        except OSError:
            return []

    def registry(self, key: str, value: str) -> str | int | None:
        """A value below HKEY_LOCAL_MACHINE; None where there is none, or no registry."""
        if sys.platform != "win32":
            return None
        import winreg  # noqa: PLC0415  (Windows only)

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
                data = winreg.QueryValueEx(opened, value)[0]
        except OSError:
            return None
        return data if isinstance(data, (str, int)) else None

    def memory(self) -> Memory:
        ram = psutil.virtual_memory()
        if not self.windows:
            return Memory(ram.total, ram.available)
        paging = psutil.swap_memory()  # on Windows: the commit limit beyond RAM, and its use
        return Memory(
            ram.total, ram.available, ram.total + paging.total, ram.available + paging.free
        )

    def disk_free(self, folder: Path) -> int:
        """Bytes free where `folder` is or will be."""
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
