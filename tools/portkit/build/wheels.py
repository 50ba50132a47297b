"""Wheels: reading them, the metadata that installs on Windows, and writing them with a true RECORD.

`wheel` does the format (hashes, RECORD, compression); here is what this project changes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version
from wheel.wheelfile import WheelError, WheelFile

from portkit.errors import BadInput

LOCAL_WINDOWS = "win"
_LOCAL = re.compile(
    rf"cu(?P<major>\d\d)(?P<minor>\d)(?P<archs>(\.sm\d+)*)(?P<windows>\.{LOCAL_WINDOWS})?"
)

# x86_64 is what Linux calls the machine that Windows calls AMD64.
_MACHINE = re.compile(r"""platform_machine\s*==\s*(?P<q>["'])x86_64(?P=q)""")


@dataclass(frozen=True)
class Wheel:
    """A wheel on the disk, by its name."""

    path: Path
    version: Version
    tags: frozenset[Tag]

    @property
    def windows(self) -> bool:
        return any(tag.platform.startswith("win") for tag in self.tags)

    @property
    def info(self) -> str:
        """The folder of its metadata."""
        name, version = self.path.name.split("-")[:2]
        return f"{name}-{version}.dist-info"

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(one.filename for one in self._archive.infolist() if not one.is_dir())

    def read(self, place: str) -> bytes:
        return self._archive.read(place)

    def close(self) -> None:
        """Let go of the file, which Windows does not remove or rename while it is open."""
        self._archive.close()


def opened(path: Path) -> Wheel:
    """A wheel by its file; raises `BadInput` when its name or its archive is none."""
    try:
        _, version, _, tags = parse_wheel_filename(path.name)
        wheel = Wheel(path, version, tags)
        assert wheel.names is not None
    except InvalidWheelFilename as error:
        raise BadInput(f"{path} is not named as a wheel: {error}") from None
    except FileNotFoundError:
        raise BadInput(f"{path} is not there") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise BadInput(f"{path} is not a wheel: {error}") from None
    return wheel


def local_version(version: str, cuda: str, archs: Sequence[str], *, windows: bool) -> str:
    """`0.14.1+cu126.sm86.win`: the release, its CUDA, its `archs`, and for what; PEP 440.

    A build for every architecture that upstream builds for names none (`archs` is empty).
    """
    release = Version(version).public
    major, minor = cuda.split(".")[:2]
    parts = [f"cu{major}{minor}", *(f"sm{arch.replace('.', '')}" for arch in archs)]
    return str(Version(f"{release}+{'.'.join([*parts, *([LOCAL_WINDOWS] if windows else [])])}"))


@dataclass(frozen=True)
class Local:
    """What the local version of a wheel says; no `archs` stand for all."""

    cuda: str
    archs: tuple[str, ...]
    windows: bool


def local(version: Version) -> Local | None:
    """What `local_version` wrote into a version, None where it is another's."""
    found = _LOCAL.fullmatch(version.local or "")
    if found is None:
        return None
    archs = (part.removeprefix("sm") for part in found["archs"].split(".") if part)
    return Local(
        f"{found['major']}.{found['minor']}",
        tuple(f"{arch[:-1]}.{arch[-1]}" for arch in archs),
        found["windows"] is not None,
    )


def requirements(metadata: bytes) -> Iterator[Requirement]:
    """What a METADATA file requires; lines that are none are left to `faults`."""
    for line in _headers(metadata):
        if line.lower().startswith("requires-dist:"):
            try:
                yield Requirement(line.partition(":")[2].strip())
            except InvalidRequirement:
                continue


def for_windows(metadata: bytes, torch: str | None) -> bytes:
    """METADATA as a wheel for Windows needs it.

    Markers that ask for x86_64 hold on AMD64 too, which is the same machine, and torch is asked
    for in the very build that was compiled against (`2.9.1+cu126`), so that pip cannot put the
    one without CUDA in its place.  Everything else stays as upstream's setup.py wrote it.
    """
    head, blank, body = metadata.partition(b"\n\n")
    lines = []
    for line in head.decode("utf-8").split("\n"):
        name, colon, value = line.partition(": ")
        if name.lower() == "requires-dist":
            line = f"{name}{colon}{_windows_requirement(value.rstrip(), torch)}"  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines).encode() + blank + body


def _windows_requirement(text: str, torch: str | None) -> str:
    try:
        required = Requirement(text)
    except InvalidRequirement:
        return text
    if canonicalize_name(required.name) == "torch" and torch is not None and "+" in torch:
        return f"{required.name}=={torch}" + (f"; {required.marker}" if required.marker else "")
    if required.marker is None or "AMD64" in text:
        return text
    return _MACHINE.sub(r"(\g<0> or platform_machine == \g<q>AMD64\g<q>)", text)


def _headers(metadata: bytes) -> Iterator[str]:
    yield from metadata.partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")


def rewrite(wheel: Wheel, folder: Path, *, changes: Mapping[str, bytes]) -> Wheel:
    """The wheel again in `folder` with some members replaced, its RECORD made anew.

    Raises `BadInput` when a member is not what its RECORD says.
    """
    record = f"{wheel.info}/RECORD"

    def members(read: WheelFile) -> Iterator[tuple[str, bytes]]:
        for one in read.infolist():
            if not one.is_dir() and one.filename != record:
                data = read.read(one)  # checks its hash
                yield one.filename, changes.get(one.filename, data)

    try:
        with WheelFile(wheel.path) as read:
            return pack(members(read), folder, wheel.path.name)
    except WheelError as error:
        raise BadInput(f"{wheel.path.name} is damaged: {error}") from None


def pack(members: Iterable[tuple[str, bytes | Path]], folder: Path, name: str) -> Wheel:
    """A wheel called `name` of places with their bytes or files, in order, with its RECORD."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    target.unlink(missing_ok=True)
    with WheelFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for place, source in members:
            if isinstance(source, Path):
                written.write(source, place)
            else:
                written.writestr(place, source)
    return opened(target)


def evaluate(required: Iterable[Requirement], environment: Mapping[str, str]) -> list[Requirement]:
    """Those that an installation with this marker environment asks for."""
    return [one for one in required if one.marker is None or one.marker.evaluate(dict(environment))]
