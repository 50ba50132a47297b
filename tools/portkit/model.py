"""The words of the project as frozen values: hunk, file change, patch, pin, event.

Everything from upstream is bytes.  Paths inside upstream are `str` with forward slashes, decoded
as UTF-8 with `surrogateescape`, so that any name git knows survives the round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def split_lines(data: bytes) -> list[bytes]:
    """The lines of a file, each with its own ending.

    Only `b"\\n"` ends a line, as in git: carriage returns, form feeds and the like belong to it.
    """
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


@dataclass(frozen=True)
class Edit:
    """Replace `base_lines[start:end]` (0-based, end exclusive) by `lines`, endings included."""

    start: int
    end: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True)
class Hunk:
    """One hunk of a unified diff.

    `lines` carry their prefix (`b" "`, `b"-"`, `b"+"`) and their own line ending; a line without
    a final `b"\\n"` is the last one of a file that ends without newline.  `old_start` and
    `new_start` are 1-based as in the `@@` line (0 where the side is empty).
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    lines: tuple[bytes, ...]

    @property
    def before(self) -> tuple[bytes, ...]:
        """The old side: context and removed lines, without prefixes."""
        return tuple(line[1:] for line in self.lines if line[:1] != b"+")

    @property
    def after(self) -> tuple[bytes, ...]:
        """The new side: context and added lines, without prefixes."""
        return tuple(line[1:] for line in self.lines if line[:1] != b"-")

    @property
    def old_index(self) -> int:
        """0-based index of the first old line in the old file."""
        return self.old_start - 1 if self.old_count else self.old_start


@dataclass(frozen=True)
class FileChange:
    """The change of one file: its paths, modes and hunks.

    `old_path is None` is a new file, `new_path is None` a deleted one; modes are git's
    (`"100644"`, `"100755"`), `None` where the diff does not say.
    """

    old_path: str | None
    new_path: str | None
    hunks: tuple[Hunk, ...] = ()
    old_mode: str | None = None
    new_mode: str | None = None

    @property
    def path(self) -> str:
        """The path the change is named after: the new one, or the old one of a deletion."""
        path = self.new_path if self.new_path is not None else self.old_path
        assert path is not None
        return path


@dataclass(frozen=True)
class Patch:
    """One file of `patch_series/`: `name` as in `series`, DEP-3 `header` as written, the change."""

    name: str
    header: bytes
    change: FileChange

    @property
    def path(self) -> str:
        return self.change.path

    @property
    def group(self) -> str:
        """First folder of the name: `build`, `kernels`, `runtime` or `deps`."""
        return self.name.split("/", 1)[0]


@dataclass(frozen=True)
class Archive:
    """An upstream source archive: file name, size in bytes, sha256 as lower-case hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Pin:
    """Which upstream the series is written for.

    `commit` is the id as far as it is known (an archive names an abbreviated one, `d7de043d5`);
    `tree` and `patched_tree` are git tree ids of the pristine and of the patched source.
    """

    repository: str
    tag: str
    commit: str
    archive: Archive | None
    tree: str
    patched_tree: str


@dataclass(frozen=True)
class Event:
    """Progress: `stage` is a verb phrase, `done` of `total` in `unit`; total None is unknown."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = ""


Events = Callable[[Event], None]


def silent(_: Event) -> None:
    """The `Events` of a caller that does not want any."""
