"""The files that only the journal changes: the series, the pin, its reference, the work trees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path, PurePosixPath

from portkit.errors import BadInput
from portkit.patches.diffparse import unsafe_path
from portkit.patches.patchdoc import DOC_FILE
from portkit.patches.patchfile import SERIES_FOLDER
from portkit.patches.pin import PIN_FILE
from portkit.upstream.tree import check_windows_names, long_path

WORK_FOLDER = "work"
WORK_STATE_FOLDER = ".port/work"
EXECUTABLE = "+x"  # what the digest of an executable file of a work tree ends with

_NAMED = 5  # files a sentence names before it counts the rest

Fingerprint = Mapping[str, str]
"""The sha256 of each managed file by its path; plain strings, so that JSON can hold it."""


class Executable(bytes):
    """The bytes of a file of a work tree that is executable, or is to be."""


def managed_files(root: Path) -> list[str]:
    """The managed files of the repository at `root`, as sorted paths with forward slashes."""
    base = Path(long_path(root))
    found = [name for name in (PIN_FILE, DOC_FILE) if (base / name).is_file()]
    for folder, _, names in os.walk(base / SERIES_FOLDER):
        below = Path(folder).relative_to(base).as_posix()
        found += [f"{below}/{name}" for name in names]
    return sorted(found)


def fingerprint(root: Path) -> dict[str, str]:
    """What the managed files hold now: take it before you read them, give it to `switch`."""
    base = Path(long_path(root))
    digests = ((path, digest_of(base / path)) for path in managed_files(root))
    return {path: digest for path, digest in digests if digest is not None}


def is_work(path: str) -> bool:
    """Whether `path` is a file of a work tree or what is known of one."""
    return path.startswith((f"{WORK_FOLDER}/", f"{WORK_STATE_FOLDER}/"))


@cache
def keeps_modes(folder: Path) -> bool:
    """Whether files in `folder` can be executable or not, which Windows and FAT do not know."""
    if os.name == "nt":
        return False
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        probe = Path(file.name)
        modes = []
        for mode in (0o700, 0o600):
            with suppress(OSError):
                probe.chmod(mode)
            modes.append(probe.stat().st_mode & 0o100)
    return modes == [0o100, 0]


def digest(data: bytes) -> str:
    """What tells versions of a file apart: its sha256, and whether it is `Executable`."""
    return sha256(data).hexdigest() + (EXECUTABLE if isinstance(data, Executable) else "")


def digest_of(file: Path, *, modes: bool = False) -> str | None:
    """The digest of a file, None where there is none; `modes` as for `bytes_of`."""
    data = bytes_of(file, modes=modes)
    return None if data is None else digest(data)


def bytes_of(file: Path, *, modes: bool = False) -> bytes | None:
    """The bytes of a file, None where there is none; with `modes` they may be `Executable`."""
    try:
        data = file.read_bytes()
        return Executable(data) if modes and file.stat().st_mode & 0o100 else data
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove_empty_folders(root: Path) -> None:
    """Remove the folders that removed files have left, as git does."""
    for top in (root / SERIES_FOLDER, (root / DOC_FILE).parent):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()


def remove_empty_parents(root: Path, path: str) -> None:
    """Remove the folders that a removed file of a work tree has left, but not the work tree."""
    for folder in [*PurePosixPath(path).parents][:-3]:
        try:
            (root / folder).rmdir()
        except OSError:  # it is not empty
            return


def refuse_changed(paths: Iterable[str], now: Fingerprint, expect: Fingerprint) -> None:
    """Raise `BadInput` when the files are not as they were read, or one of `paths` is new.

    A new file that nobody overwrites (an editor's backup, say) is no reason.
    """
    changed = {path for path in expect if now.get(path) != expect[path]}
    changed |= {path for path in paths if path in now and path not in expect}
    if changed:
        raise BadInput(
            f"{sentence_of(changed)} changed while this was worked out; nothing was written",
            hint="run the command again on the files as they are now",
        )


def refuse_paths(root: Path, files: Mapping[str, bytes | None]) -> None:
    """Raise `BadInput` for a path that is not managed, or that not every system can hold."""
    there = managed_files(root)
    for path in files:
        managed = path in (PIN_FILE, DOC_FILE) or path.startswith(f"{SERIES_FOLDER}/")
        if not managed and not is_work(path):
            raise BadInput(f"{path} is not a file of the series")
        if reason := unsafe_path(path):
            raise BadInput(f"{path!a} {reason}")
    written = {path for path, data in files.items() if data is not None}
    check_windows_names(sorted(written))
    spellings = {path.casefold(): path for path in there}
    present = written.union(there)
    for path in sorted(files):
        known = spellings.get(path.casefold(), path)
        if known != path:
            raise BadInput(
                f"Windows cannot hold both {known!a} and {path!a}: they differ only by case",
            )
        _refuse_place(root, path, present)


def _refuse_place(root: Path, path: str, files: Set[str]) -> None:
    parts = path.split("/")
    folders = ["/".join(parts[:end]) for end in range(1, len(parts))]
    for folder in folders:
        if folder in files:
            raise BadInput(f"{folder} cannot be both a file and the folder of {path}")
    for place in (*folders, path):
        if (root / place).is_symlink():
            raise BadInput(f"{place} is a link", hint="the tools write plain files only")
    if (root / path).is_dir():
        raise BadInput(f"{path} is a folder", hint="move it away")


def sentence_of(paths: Iterable[str]) -> str:
    """Some files as the subject of a sentence in the past: `a and b were`."""
    names = sorted(paths)
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    if len(names) == 1:
        return f"{names[0]} was"
    return f"{', '.join(names[:-1])} and {names[-1]} were"
