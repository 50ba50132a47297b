"""Reading a source archive (or its unpacked folder) into the store, as hostile input.

An archive is streamed member by member into one `git fast-import`; the ref appears only after the
last byte was checked, so a refused or interrupted import leaves no tag.  What packaging added to
upstream's files (PKG-INFO, egg-info, generated `_version.py` and `setup.cfg`) is left out.
"""

from __future__ import annotations

import configparser
import errno
import gzip
import hashlib
import os
import re
import subprocess
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from portkit.errors import BadFile, Unavailable
from portkit.model import Archive, Event, Events, silent
from portkit.upstream.git import Store, environment, path_to_bytes

VERSION_FILE = "vllm/_version.py"

_BLOCK = 512
_CHUNK = 1 << 20
_COMMIT_ID = re.compile(rb"^__commit_id__\s*=.*?'g?([0-9a-f]{7,40})'\s*$", re.M)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most: bytes per member, bytes unpacked, number of members."""

    member: int = 64 << 20
    total: int = 2 << 30
    members: int = 100_000


@dataclass(frozen=True)
class Member:
    """A file of upstream: path below the archive's top folder, git mode, bytes."""

    path: str
    mode: str
    data: bytes


def describe(path: Path) -> Archive:
    """Name, size and sha256 of the archive at `path`."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Archive(path.name, size, digest.hexdigest())


# names


def name_fault(path: str) -> str | None:
    """Why `path` may not stand in a source tree, or None."""
    if path.startswith("/"):
        return "has an absolute path"
    if "\\" in path:
        return "has a backslash in its path"
    if _CONTROL.search(path):
        return "has a control character in its path"
    for part in path.split("/"):
        if part in ("", "."):
            return "has an empty path component"
        if part == "..":
            return "climbs out of the archive with '..'"
        if _DRIVE.match(part):
            return "has a drive letter in its path"
        if _is_git_folder(part):
            return "is inside a '.git' folder"
    return None


def _is_git_folder(part: str) -> bool:
    """Whether some file system takes `part` for `.git` (case, trailing dots, ignored letters)."""
    if not part.isascii():
        part = "".join(char for char in part if unicodedata.category(char) != "Cf")
    return part.split(":", 1)[0].rstrip(" .").casefold() in (".git", "git~1")


class _Names:
    """The names of one source: refuses faulty ones (`name_fault`) and those that clash."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def refuse(self, path: str, fault: str) -> BadFile:
        shown = ascii(path if len(path) <= 200 else path[:200] + "…")
        return BadFile(self._where, None, f"member {shown} {fault}", hint="nothing was imported")

    def folder(self, path: str) -> None:
        if fault := name_fault(path):
            raise self.refuse(path, fault)
        if path in self._files:
            raise self.refuse(path, "is both a file and a folder")
        self._folders.add(path)

    def file(self, path: str) -> None:
        if fault := name_fault(path):
            raise self.refuse(path, fault)
        if path in self._files:
            raise self.refuse(path, "occurs twice")
        if path in self._folders:
            raise self.refuse(path, "is both a file and a folder")
        self._files.add(path)
        while "/" in path:
            path = path.rsplit("/", 1)[0]
            if path in self._folders:
                break
            self.folder(path)


# reading


class _Unpacked:
    """The decompressed bytes of a `.tar.gz`, never more than the limits allow.

    Limits each single read too: a tar header may announce an extended header of any size, which
    tarfile would read whole.
    """

    def __init__(self, file: IO[bytes], where: str, limits: Limits) -> None:
        self._gzip = gzip.GzipFile(fileobj=file)
        self._where = where
        self._limits = limits
        self.last = b""

    def read(self, size: int) -> bytes:
        if size > self._limits.member:
            raise BadFile(self._where, None, f"holds a record of {size:,} bytes: refused")
        self._check(self._gzip.tell() + size)
        self.last = self._gzip.read(size)
        return self.last

    def seek(self, position: int) -> int:
        self._check(position)
        return self._gzip.seek(position)

    def tell(self) -> int:
        return self._gzip.tell()

    def finish(self) -> None:
        """Read to the end, which checks gzip's sum; an archive ends in nothing but zero blocks."""
        if len(self.last) != _BLOCK or self.last.strip(b"\0"):
            raise BadFile(self._where, None, "is damaged: a broken header, or no end of archive")
        while rest := self.read(_CHUNK if self._limits.member >= _CHUNK else _BLOCK):
            if rest.strip(b"\0"):
                raise BadFile(self._where, None, "is damaged: data after the end of the archive")

    def _check(self, position: int) -> None:
        # The slack lets the last reads run past the end of an archive that is just within.
        if position > self._limits.total + _CHUNK:
            raise BadFile(self._where, None, f"unpacks to over {self._limits.total:,} bytes")


def archive_members(
    path: Path, top: str, *, limits: Limits = Limits(), events: Events = silent
) -> Iterator[Member]:
    """The files of the `.tar.gz` at `path`, which all lie in its folder `top`.

    Raises `BadFile` for anything but plain files and folders with harmless, unique names, for
    damage, and beyond `limits`; the caller must drop what it has read then.
    """
    where = path.name
    total = path.stat().st_size
    with path.open("rb") as file:
        try:
            unpacked = _Unpacked(file, where, limits)
            with tarfile.open(
                fileobj=unpacked,  # type: ignore[call-overload]
                mode="r:",
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                names = _Names(where)
                for number, info in enumerate(tar):
                    if number >= limits.members:
                        raise BadFile(where, None, f"holds over {limits.members:,} members")
                    member = _read_member(tar, info, top, names, limits)
                    if member is not None:
                        yield member
                    if number % 256 == 0:
                        events(Event(f"importing {where}", file.tell(), total, "bytes"))
                unpacked.finish()
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BadFile(where, None, f"is not a sound .tar.gz: {error}") from error
        except (ValueError, OverflowError, RecursionError, IndexError) as error:
            # What tarfile lets through on malformed headers.
            raise BadFile(where, None, "is not a sound .tar.gz: a malformed header") from error
    events(Event(f"importing {where}", total, total, "bytes"))


def _read_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, top: str, names: _Names, limits: Limits
) -> Member | None:
    """Check one member and read it; None for a folder."""
    head, slash, path = info.name.partition("/")
    if fault := name_fault(info.name):
        raise names.refuse(info.name, fault)
    if head != top or not (slash or info.isdir()):
        raise names.refuse(info.name, f"is not in the folder {top}/")
    if info.isdir():
        if path:
            names.folder(path)
        return None
    if info.issym() or info.islnk():
        raise names.refuse(info.name, "is a link")
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
        raise names.refuse(info.name, "is neither a plain file nor a folder")
    if info.size > limits.member:
        raise names.refuse(info.name, f"has {info.size:,} bytes, over the limit")
    names.file(path)
    file = tar.extractfile(info)
    assert file is not None
    return Member(path, "100755" if info.mode & 0o100 else "100644", file.read())


def folder_members(
    folder: Path, *, limits: Limits = Limits(), events: Events = silent
) -> Iterator[Member]:
    """The files of an unpacked source folder, under the rules of `archive_members`.

    Where the system has no executable bit (Windows), every file is mode 100644.
    """
    names = _Names(str(folder))
    stage, read = f"importing {folder.name}", 0
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders.sort()
        for name in [*folders, *sorted(files)]:
            file = Path(parent, name)
            path = file.relative_to(folder).as_posix()
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise names.refuse(path, "is neither a plain file nor a folder")
            if name in folders:
                names.folder(path)
                continue
            names.file(path)
            state = file.stat()
            if state.st_size > limits.member:
                raise names.refuse(path, f"has {state.st_size:,} bytes, over the limit")
            executable = os.name != "nt" and bool(state.st_mode & 0o100)
            yield Member(path, "100755" if executable else "100644", file.read_bytes())
            read += 1
        events(Event(stage, read, None, "files"))


def _unreadable(error: OSError) -> None:
    raise Unavailable(f"cannot read {error.filename}: {error.strerror}")


# what packaging added


def is_metadata(member: Member) -> bool:
    """Whether packaging made this file, so that upstream's own tree does not have it."""
    first, _, rest = member.path.partition("/")
    if member.path in ("PKG-INFO", VERSION_FILE) or (rest and first.endswith(".egg-info")):
        return True
    return member.path == "setup.cfg" and _is_generated_setup_cfg(member.data)


def _is_generated_setup_cfg(data: bytes) -> bool:
    """setuptools writes a `setup.cfg` with just an `[egg_info]` section; upstream's has others."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(data.decode())
    except (configparser.Error, UnicodeDecodeError):
        return False
    return parser.sections() == ["egg_info"]


def commit_id(version_file: bytes) -> str:
    """The abbreviated commit id that the generated `vllm/_version.py` records, or ""."""
    found = _COMMIT_ID.search(version_file)
    return found.group(1).decode() if found else ""


# writing


class _FastImport:
    """One `git fast-import`; its refs appear only when the `with` block ends well."""

    def __init__(self, store: Store) -> None:
        # Source text is stored once and read often: fast compression, no deltas.
        config = ("-c", "core.compression=1", "-c", "fastimport.unpackLimit=0")
        options = ("--quiet", "--done", "--force", "--depth=0")
        self._process = subprocess.Popen(
            ["git", "--git-dir", str(store.path), *config, "fast-import", *options],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self._process.stdin is not None
        self._write = self._process.stdin.write
        self._marks = 0

    def __enter__(self) -> _FastImport:
        return self

    def blob(self, data: bytes) -> int:
        self._marks += 1
        self._write(b"blob\nmark :%d\ndata %d\n" % (self._marks, len(data)))
        self._write(data)
        self._write(b"\n")
        return self._marks

    def commit(self, ref: str, message: str, files: Iterable[tuple[str, str, int]]) -> None:
        text = message.encode()
        self._write(b"commit %s\n" % ref.encode())
        self._write(b"committer portkit <portkit@localhost> 0 +0000\n")
        self._write(b"data %d\n%s\n" % (len(text), text))
        for path, mode, mark in files:
            quoted = path_to_bytes(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            self._write(b'M %s :%d "%s"\n' % (mode.encode(), mark, quoted))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        broken = isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EINVAL)
        if error is not None and not broken:
            self._process.kill()
            self._process.communicate()
            return
        if error is None:
            self._write(b"done\n")
        _, said = self._process.communicate()
        if self._process.returncode or broken:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            reason = lines[0] if lines else "it ended early"
            raise Unavailable(f"git fast-import failed: {reason}") from error


def import_members(
    store: Store, ref: str, members: Iterable[Member], *, subject: str, trailers: Mapping[str, str]
) -> None:
    """Store `members` as one commit at `ref`: all of them, or nothing.

    The message is `subject` and `trailers`, with `Upstream-Commit` added where the members
    name it.  Hold the cache's lock; errors of the members pass through.
    """
    upstream_commit = ""
    files: list[tuple[str, str, int]] = []
    try:
        with _FastImport(store) as importer:
            for member in members:
                if member.path == VERSION_FILE:
                    upstream_commit = commit_id(member.data)
                if not is_metadata(member):
                    files.append((member.path, member.mode, importer.blob(member.data)))
            importer.commit(ref, message(subject, trailers, upstream_commit), files)
    finally:
        sweep(store)


def message(subject: str, trailers: Mapping[str, str], upstream_commit: str = "") -> str:
    """The commit message that makes a stored tag self-describing."""
    known = {**trailers, "Upstream-Commit": upstream_commit}
    lines = [f"{key}: {value}" for key, value in known.items() if value]
    return "\n".join([subject, "", *lines]) + "\n"


def sweep(store: Store) -> None:
    """Remove what a killed import or fetch left half-written; hold the cache's lock."""
    for folder, pattern in (("objects/pack", "tmp_*"), (".", "fast_import_crash_*")):
        for leftover in (store.path / folder).glob(pattern):
            leftover.unlink(missing_ok=True)
