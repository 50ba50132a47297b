"""The headers inside a wheel, without the wheel: only their part of the archive is fetched.

A wheel is a zip archive whose directory is at its end, so a few range requests name and bring the
folder that is asked for: 8 MB instead of the 900 MB of a CUDA build of torch.  `zipfile` reads it
and checks each member's CRC.  A library that fetches member by member would make 9,600 requests.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import filelock
from packaging.version import Version

from portkit.change import durable
from portkit.errors import IntegrityError, Unavailable
from portkit.model import Events, silent
from portkit.upstream import ranged
from portkit.upstream.cache import Cache
from portkit.upstream.index import Index, IndexFile
from portkit.upstream.tree import long_path

_CHUNK = 4 << 20  # bytes of one range request; the members that are wanted lie side by side
_MANIFEST = "manifest.json"
_LOCK_TIMEOUT = 600.0  # seconds another process may take to fetch the same headers


@dataclass(frozen=True)
class Headers:
    """Unpacked headers of one wheel: `root` is the folder that holds the members' paths.

    `digest` is a sha256 over names and contents of all of them, the same on every machine.
    """

    project: str
    version: str
    wheel: str
    root: Path
    digest: str


@dataclass(frozen=True)
class Wanted:
    """The members below `folders` (`torch/include/`) of the first wheel that `choose` takes.

    `part` names what they are in the cache, where it is not the headers.
    """

    project: str
    version: str
    folders: tuple[str, ...]
    choose: Callable[[IndexFile], bool]
    part: str = ""


def obtain(wanted: Wanted, *, cache: Cache | None = None, events: Events = silent) -> Headers:
    """What is wanted, kept in the user's cache and fetched once.

    Raises `Unavailable` when the index does not serve or has no such wheel, `IntegrityError` when
    what it serves is damaged.
    """
    name = f"{wanted.project}{wanted.part}-{wanted.version}"
    home = Cache.at(cache).path / "headers" / name
    found = _kept(home)
    if found is not None:
        return found
    home.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{home}.lock", timeout=_LOCK_TIMEOUT):
        return _kept(home) or _fetch(wanted, home, events)


def _kept(home: Path) -> Headers | None:
    """Headers fetched earlier; the manifest is written last, so that it stands for all of them."""
    try:
        known = json.loads((home / _MANIFEST).read_bytes())
        return Headers(known["project"], known["version"], known["wheel"], home, known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch(wanted: Wanted, home: Path, events: Events) -> Headers:
    project, version = wanted.project, wanted.version
    with Index.configured(project) as index, tempfile.TemporaryDirectory(dir=home.parent) as temp:
        wheel = next(filter(wanted.choose, index.wheels(Version(version))), None)
        if wheel is None:
            raise Unavailable(
                f"the package index has no suitable wheel of {project} {version}",
                hint="its headers are needed to compile; name a mirror that has it (PIP_INDEX_URL)",
            )
        stage = Path(temp) / "headers"
        try:
            with _opened(index, wheel, Path(temp), events) as archive:
                digest = _unpack(archive, wanted.folders, stage, wheel.name)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise IntegrityError(f"{wheel.name} from the package index: {error}") from error
        known = {"project": project, "version": version, "wheel": wheel.name, "digest": digest}
        durable.write(stage / _MANIFEST, json.dumps(known, indent=2).encode() + b"\n")
        if home.exists():
            shutil.rmtree(long_path(home))  # a part that an older process left
        durable.replace(stage, home)
    return Headers(project, version, wheel.name, home, digest)


def _opened(index: Index, wheel: IndexFile, temp: Path, events: Events) -> zipfile.ZipFile:
    """The wheel as an archive: by ranges, or the whole of it where the index serves none."""
    archive = ranged.opened(index, wheel, _CHUNK, events)
    if archive is not None:
        return archive
    return zipfile.ZipFile(index.download(wheel, temp, events))


def _unpack(archive: zipfile.ZipFile, folders: Sequence[str], stage: Path, wheel: str) -> str:
    """Write the members below `folders` to `stage`; their digest."""
    total = hashlib.sha256()
    wanted = [
        member
        for member in archive.infolist()
        if member.filename.startswith(tuple(folders)) and not member.is_dir()
    ]
    if not wanted:
        raise IntegrityError(f"{wheel} has nothing below {', '.join(folders)}")
    made: set[Path] = set()
    contents: dict[str, str] = {}
    for member in sorted(wanted, key=lambda one: one.header_offset):
        if ".." in PurePosixPath(member.filename).parts:
            raise IntegrityError(f"{wheel} has a member outside of it: {member.filename!a}")
        data = archive.read(member)
        contents[member.filename] = hashlib.sha256(data).hexdigest()
        target = stage / member.filename
        if target.parent not in made:
            Path(long_path(target.parent)).mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        Path(long_path(target)).write_bytes(data)
    for name, digest in sorted(contents.items()):
        total.update(f"{digest} {name}\n".encode())
    return total.hexdigest()
