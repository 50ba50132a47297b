"""Writing a tree of the store to a folder: exact bytes, whole or not at all, on Windows too.

Files are written by us rather than by a git check-out, whose attributes (`eol=`, `ident`, filters)
and settings (`core.autocrlf`) would change bytes.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from portkit.errors import BadInput, Unavailable
from portkit.model import Event, Events, silent
from portkit.upstream.git import Store, TreeEntry

GITLINK = "160000"
_EVENT_EVERY = 128  # files

_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.I | re.S
)
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')


def windows_fault(path: str) -> str | None:
    """Why Windows cannot hold a file at `path` (of a tree: forward slashes), or None."""
    for part in path.split("/"):
        if found := _FORBIDDEN.search(part):
            return f"{found.group()!a} may not stand in a name"
        if part.endswith((".", " ")):
            return "a name may not end with a dot or a space"
        if _RESERVED.fullmatch(part):
            return f"{part} is the name of a device"
        if len(part) > 255:
            return "a name may have at most 255 characters"
        if any("\ud800" <= char <= "\udfff" for char in part):
            return "the name is not UTF-8"
    return None


def check_windows_names(paths: Iterable[str]) -> None:
    """Raise `BadInput` for the first path Windows cannot hold, or hold beside the others."""
    spellings: dict[str, str] = {}  # folded to as written, of files and their folders
    for path in paths:
        if fault := windows_fault(path):
            raise BadInput(f"Windows cannot hold the file {path!a}: {fault}")
        parts = path.split("/")
        for end in range(len(parts), 0, -1):
            prefix = "/".join(parts[:end])
            known = spellings.setdefault(prefix.casefold(), prefix)
            if known != prefix:
                raise BadInput(
                    f"Windows cannot hold both {known!a} and {prefix!a}: they differ only by case"
                )


def long_path(path: Path) -> str:
    """`path` as the system's calls take it; on Windows in the form without the 260-letter limit."""
    if os.name != "nt":
        return str(path)
    full = str(path.absolute())
    if full.startswith("\\\\?\\"):
        return full
    return "\\\\?\\UNC" + full[1:] if full.startswith("\\\\") else "\\\\?\\" + full


def write_checkout(
    store: Store,
    tree: str,
    target: Path,
    changes: Mapping[str, bytes | None] | None = None,
    events: Events = silent,
    *,
    windows: bool = os.name == "nt",
) -> None:
    """Write the files of `tree` to the folder `target`, which must be empty or not exist.

    `changes` replaces the contents of a path, adds it, or removes it (None).  The files are built
    in a folder beside `target` and renamed at the end.  A symbolic link becomes a plain file
    holding its target, as git writes it where links are off; a submodule is left out.  Raises
    `BadInput` when `target` is not empty or a name cannot be held, `Unavailable` when the disk
    does not serve.
    """
    target = target.absolute()
    _refuse_used(target)
    changes = changes or {}
    entries: dict[str, TreeEntry | None] = dict(store.files(tree))
    for path, data in changes.items():
        if data is None:
            entries.pop(path, None)
        else:
            entries.setdefault(path, None)
    if windows:
        check_windows_names(entries)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}-", dir=long_path(target.parent)
        ) as scratch:
            built = os.path.join(scratch, "tree")  # noqa: PTH118  (a long path is no pathlib matter)
            stage = f"writing {target.name}"
            _write_files(store, built, entries, changes, stage=stage, events=events)
            if target.exists():
                target.rmdir()
            os.rename(built, long_path(target))  # noqa: PTH104
    except OSError as error:
        raise Unavailable(
            f"cannot write {target}: {error.strerror or error}", hint="nothing was left there"
        ) from error


def _refuse_used(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BadInput(f"{target} is not a folder", hint="name a new or an empty folder")
    if target.exists() and next(target.iterdir(), None) is not None:
        raise BadInput(f"{target} is not empty", hint="name a new or an empty folder")


def _write_files(
    store: Store,
    root: str,
    entries: Mapping[str, TreeEntry | None],
    changes: Mapping[str, bytes | None],
    *,
    stage: str,
    events: Events,
) -> None:
    os.mkdir(root)  # noqa: PTH102
    made = {""}
    for number, (path, entry) in enumerate(entries.items()):
        if entry is not None and entry.mode == GITLINK:
            continue
        folder = path.rpartition("/")[0]
        if folder not in made:
            os.makedirs(_join(root, folder), exist_ok=True)  # noqa: PTH103
            made.add(folder)
        data = changes.get(path)
        if data is None:
            assert entry is not None
            data = store.read(entry.oid)
        executable = entry is not None and entry.mode == "100755"
        _write_file(_join(root, path), data, 0o777 if executable else 0o666)
        if number % _EVENT_EVERY == 0:
            events(Event(stage, number, len(entries), "files"))
    events(Event(stage, len(entries), len(entries), "files"))


def _join(root: str, path: str) -> str:
    return root + os.sep + path.replace("/", os.sep)


def _write_file(path: str, data: bytes, mode: int) -> None:
    """Create a file that must not exist yet, with `mode` under the umask."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, mode), "wb") as file:  # noqa: PTH123
        file.write(data)
