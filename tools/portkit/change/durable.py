"""File operations for what must survive a crash: bytes on the disk before names, whole renames."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import tenacity

# On Windows an editor, an indexer or a virus scanner holds a file for a moment; elsewhere a
# refusal is final.
_TRANSIENT: tuple[type[OSError], ...] = (PermissionError,) if os.name == "nt" else ()
_PATIENCE = 3.0  # seconds

_patiently = tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: isinstance(error, _TRANSIENT)),
    wait=tenacity.wait_exponential(multiplier=0.01, max=0.25),
    stop=tenacity.stop_after_delay(_PATIENCE),
    reraise=True,
)


def write(path: Path, data: bytes, *, executable: bool = False) -> None:
    """Write a file and wait until the disk has it; a crash may leave a part, so `replace` after.

    It is made `executable` for those who may read it.
    """
    with path.open("wb") as file:
        file.write(data)
        if executable:
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o444) >> 2)
        file.flush()
        os.fsync(file.fileno())


@_patiently
def replace(source: Path, target: Path) -> None:
    """Rename a file over another of the same file system, whole or not at all."""
    source.replace(target)


def put(path: Path, data: bytes) -> None:
    """Write a file and the folders above it: whole or not at all, whoever else does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part, data)
        replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@_patiently
def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(descriptor)
