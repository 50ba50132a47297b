"""What surrounds a build and spoils it when nobody looks: disk, folders, virus scanner, git."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

from portkit.build.machine import Machine
from portkit.build.toolchain import GIB
from portkit.build.words import Check, fail, info, ok, warn

_DISK = 20 * GIB  # sources, objects, temporary files of nvcc, the wheel
_LIMIT = 259  # letters of a path without the long-path form
_DEEPEST = 160  # letters the longest object file adds to the work folder
_LONG_PATHS = r"SYSTEM\CurrentControlSet\Control\FileSystem"
_DEFENDER = r"SOFTWARE\Microsoft\Windows Defender\Real-Time Protection"
_ENABLE = rf"as administrator: reg add HKLM\{_LONG_PATHS} /v LongPathsEnabled /t REG_DWORD /d 1 /f"


def disk(machine: Machine, work: Path) -> Iterator[Check]:
    free = machine.disk_free(work)
    said = f"{free / GIB:.0f} GiB free at {work}"
    if free < _DISK:
        yield warn(
            "disk",
            said,
            "a build for one architecture takes about 20 GB; name another disk with --work",
        )
    else:
        yield ok("disk", said)


def paths(machine: Machine, work: Path) -> Iterator[Check]:
    """Folders that Windows programs stumble over."""
    if not machine.windows:
        return
    folder = str(work)
    yield _length(machine, folder)
    for name, path in (("work folder", folder), ("TEMP folder", machine.environ.get("TEMP", ""))):
        if not path.isascii():
            said = f"the {name} is {path}, and nvcc and cl mistake letters beyond ASCII"
            remedy = "name a --work without them, and set TEMP and TMP to such a folder (C:\\tmp)"
            yield warn("letters", said, remedy)
        elif " " in path:
            said = f"the {name} has a space: {path}"
            yield warn("letters", said, "it should work; C:\\vllm is what others use")
    if re.search(r"OneDrive|Dropbox|Google Drive", folder, re.IGNORECASE):
        remedy = "every object file would be uploaded: name another --work"
        yield warn("slow folder", f"{folder} is synchronised", remedy)
    if machine.registry(_DEFENDER, "DisableRealtimeMonitoring") != 1:
        said = f"real-time protection reads every file of a build; an exclusion of {folder} helps"
        yield info("virus scanner", said)


def _length(machine: Machine, folder: str) -> Check:
    enabled = machine.registry(_LONG_PATHS, "LongPathsEnabled") == 1
    said = f"long paths are {'on' if enabled else 'off'}; the work folder has {len(folder)} letters"
    if len(folder) + _DEEPEST > _LIMIT:
        remedy = "cl and nvcc stop at 260 letters regardless: name a short --work, such as C:\\vllm"
        return fail("paths", said, remedy)
    return ok("paths", said) if enabled else warn("paths", said, _ENABLE)


def programs(machine: Machine) -> Iterator[Check]:
    """Programs a build uses beside the compilers."""
    git = machine.run(["git", "--version"])
    if git is None or git.code != 0:
        yield fail("git", "not on PATH", "install git 2.38 or newer (git-scm.com)")
    elif not _at_least(git.out, "2.38"):
        yield fail("git", git.out.strip(), "install git 2.38 or newer (git-scm.com)")
    else:
        crlf = machine.run(["git", "config", "--get", "core.autocrlf"])
        value = crlf.out.strip() if crlf is not None and crlf.code == 0 else "unset"
        said = f"{git.out.strip()}, core.autocrlf {value}"
        yield ok(
            "git", said + (" (these tools write exact bytes regardless)" if value == "true" else "")
        )
    cache = next((name for name in ("sccache", "ccache") if machine.which(name) is not None), "")
    if cache:
        yield ok("compiler cache", f"{cache}, which upstream's setup.py uses by itself")


def _at_least(text: str, minimum: str) -> bool:
    found = re.search(r"\d+(\.\d+)+", text)
    try:
        return found is not None and Version(found[0]) >= Version(minimum)
    except InvalidVersion:
        return False
