"""Conflicts that a person settled once, replayed ever after.

A resolution is keyed by the content of its conflict (the three sides' lines, nothing else), so
it holds for any series, tag or file with the same conflict.  Kept in `patch_series/resolutions/`
as `<key>.json`-headed text files that a person can read and a reviewer can diff.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portkit.errors import BadFile
from portkit.text.sides import Lines, split_lines

SUFFIX = ".resolution"
_MAGIC = b"portkit resolution 1\n"
_PARTS = (b"base", b"ours", b"theirs", b"settled")


@dataclass(frozen=True)
class Resolution:
    """The settled `lines`, and what is known of how: `recorded` is `v0.14.1 → v0.16.0, path`."""

    key: str
    base: Lines
    ours: Lines
    theirs: Lines
    lines: Lines
    recorded: str


def key_of(base: Sequence[bytes], ours: Sequence[bytes], theirs: Sequence[bytes]) -> str:
    """The key of a conflict: a hash of its three sides."""
    digest = hashlib.sha256()
    for side in (base, ours, theirs):
        data = b"".join(side)
        digest.update(b"%d\n" % len(data) + data)
    return digest.hexdigest()[:40]


class Resolutions:
    """The resolutions of a series; immutable, `adding` gives a new collection."""

    def __init__(self, known: Mapping[str, Resolution] | None = None) -> None:
        self._known = dict(known or {})

    def lookup(self, base: Lines, ours: Lines, theirs: Lines) -> Resolution | None:
        return self._known.get(key_of(base, ours, theirs))

    def adding(self, *new: Resolution) -> Resolutions:
        return Resolutions(self._known | {resolution.key: resolution for resolution in new})

    def render(self) -> dict[str, bytes]:
        """Relative file name to content."""
        return {key + SUFFIX: _format(self._known[key]) for key in sorted(self._known)}

    @classmethod
    def parse(cls, files: Mapping[str, bytes]) -> Resolutions:
        """Read what `render` wrote.

        Raises:
            BadFile: a file is not a resolution, or its content is not what its name says.
        """
        known = {}
        for name, data in files.items():
            resolution = _parse(name, data)
            known[resolution.key] = resolution
        return cls(known)

    def __len__(self) -> int:
        return len(self._known)


def resolution(
    base: Lines, ours: Lines, theirs: Lines, settled: Lines, recorded: str
) -> Resolution:
    return Resolution(key_of(base, ours, theirs), base, ours, theirs, settled, recorded)


def _format(item: Resolution) -> bytes:
    parts = [_MAGIC, b"recorded: " + item.recorded.encode("utf-8", "surrogateescape") + b"\n"]
    for name, lines in zip(_PARTS, (item.base, item.ours, item.theirs, item.lines), strict=True):
        data = b"".join(lines)
        # The count keeps every byte, also where a side ends without a newline.
        parts += [b"--- %s %d\n" % (name, len(data)), data, b"\n"]
    return b"".join(parts)


def _parse(name: str, data: bytes) -> Resolution:
    hint = "restore the file from version control or delete it"
    head, _, rest = data.removeprefix(_MAGIC).partition(b"\n")
    if not data.startswith(_MAGIC) or not head.startswith(b"recorded: "):
        raise BadFile(name, 1, "not a resolution file", hint=hint)
    sides: list[Lines] = []
    for part in _PARTS:
        title, _, rest = rest.partition(b"\n")
        words = title.split(b" ")
        if len(words) != 3 or words[:2] != [b"---", part] or not words[2].isdigit():
            line = data[: len(data) - len(rest)].count(b"\n")
            raise BadFile(name, line, f"expected the part {part.decode()!r}", hint=hint)
        size = int(words[2])
        sides.append(split_lines(rest[:size]))
        if rest[size : size + 1] != b"\n":
            raise BadFile(name, None, f"part {part.decode()!r} is cut short", hint=hint)
        rest = rest[size + 1 :]
    base, ours, theirs, settled = sides
    if rest:
        raise BadFile(name, None, "something follows its last part", hint=hint)
    recorded = head.removeprefix(b"recorded: ").decode("utf-8", "surrogateescape")
    found = resolution(base, ours, theirs, settled, recorded)
    if not name.endswith(found.key + SUFFIX):
        raise BadFile(name, None, "the content does not match the key in its name", hint=hint)
    return found
