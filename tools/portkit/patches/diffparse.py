"""Parse what git, GNU diff and mail programs write: `parse_diff` gives one `FileChange` per file.

The rule is that nothing is lost: text between the files of a diff is skipped, but a hunk whose
counts do not fit its lines, a binary change, a copy or a link is refused with its line, and
input without any change is an error.

Hunks are read here and not by `unidiff`: where a hunk ends can only be known by counting its
lines (`--- x` may be a removed `-- x`, `-- ` the signature of a mail), and once they are counted
nothing is left for it to do; besides, its errors name no line, and it knows the marker of a
missing newline in English only.  The tests use it as the second opinion on real diffs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from portkit.errors import BadFile
from portkit.model import FileChange, Hunk, split_lines
from portkit.upstream.git import path_from_bytes

NO_PATH = b"/dev/null"
MODES = ("100644", "100755")

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_EXTENDED = re.compile(
    rb"(old mode|new mode|deleted file mode|new file mode|copy from|copy to|rename from|rename to|"
    rb"similarity index|dissimilarity index|index) ([^\n]+)\n"
)
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d{4})")
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_ESCAPES = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
_BINARY_HINT = "patches carry text only: keep binary files out of the diff"


def parse_diff(data: bytes, origin: str) -> tuple[FileChange, ...]:
    """The changes of a git or plain unified diff, in order; `origin` names it in errors.

    Takes `git diff`, `git format-patch` mails and `diff -ru`, with any path prefix or none.
    Raises `BadFile` with the line for anything that cannot be carried as text.
    """
    reader = _Reader(split_lines(data), origin)
    changes: list[FileChange] = []
    while not reader.finished:
        if _begins_file(reader.lines, reader.at):
            changes.append(_change(reader))
        else:
            _check_skipped(reader)
            reader.next()
    if not changes:
        raise BadFile(origin, None, "no change found", hint="expected a git or unified diff")
    return tuple(changes)


def parse_change(lines: list[bytes], start: int, origin: str) -> tuple[FileChange, int]:
    """The one file's change that begins at `lines[start]`, and the index of the line after it."""
    reader = _Reader(lines, origin, start)
    if not _begins_file(lines, start):
        _check_skipped(reader)
        reader.fail("no change begins here")
    return _change(reader), reader.at


def start_of_diff(lines: list[bytes]) -> int:
    """Index of the line where a diff begins (`len(lines)` if none does): before it is header."""
    for at, line in enumerate(lines):
        if line.startswith((b"diff --cc ", b"diff --combined ", b"@@ -")):
            return at
        if _begins_file(lines, at):
            return at
    return len(lines)


def unsafe_path(path: str) -> str:
    """Why a path must not be written below a folder on Linux or Windows, or the empty string."""
    parts = path.split("/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "is absolute"
    if ".." in parts or "." in parts or "" in parts or "\\" in path:
        return "leaves its folder or is not in its shortest form"
    if ".git" in (part.lower() for part in parts):
        return "is inside .git"
    if any(ord(char) < 32 for char in path):
        return "holds control characters"
    return ""


class _Reader:
    """The lines of a diff with the place of the one being read."""

    def __init__(self, lines: list[bytes], origin: str, at: int = 0) -> None:
        self.lines = lines
        self.origin = origin
        self.at = at

    @property
    def finished(self) -> bool:
        return self.at >= len(self.lines)

    @property
    def line(self) -> bytes:
        """The current line, empty at the end."""
        return b"" if self.finished else self.lines[self.at]

    def next(self) -> bytes:
        line = self.line
        self.at += 1
        return line

    def fail(self, message: str, *, at: int | None = None, hint: str = "") -> NoReturn:
        number = (self.at if at is None else at) + 1
        raise BadFile(self.origin, min(number, max(len(self.lines), 1)), message, hint=hint)


# files


def _begins_file(lines: list[bytes], at: int) -> bool:
    return lines[at].startswith(b"diff --git ") or _names_follow(lines, at)


def _change(reader: _Reader) -> FileChange:
    if reader.line.startswith(b"diff --git "):
        return _git_change(reader)
    return _plain_change(reader)


def _git_change(reader: _Reader) -> FileChange:
    start = reader.at
    header = reader.next()[len(b"diff --git ") :].rstrip(b"\n")
    if header.endswith(b"\r"):
        _refuse_crlf(reader, start)
    said: dict[str, bytes] = {}
    while found := _EXTENDED.fullmatch(reader.line):
        said[found[1].decode()] = found[2]
        reader.next()
    if reader.line.startswith((b"GIT binary patch", b"Binary files ")):
        reader.fail("binary change", hint=_BINARY_HINT)
    if "copy from" in said:
        reader.fail("copied file", at=start, hint="make the diff without -C: copies as new files")

    names = _file_names(reader) if _names_follow(reader.lines, reader.at) else None
    old, new = _git_paths(reader, start, header, said, names)
    if "new file mode" in said or (names and names[0] == NO_PATH):
        old = None
    if "deleted file mode" in said or (names and names[1] == NO_PATH):
        new = None
    old_mode = _mode(reader, start, said, "deleted file mode", "old mode")
    new_mode = _mode(reader, start, said, "new file mode", "new mode")
    hunks = _hunks(reader) if names else ()
    if not hunks and old == new and old_mode == new_mode:
        reader.fail("this file's section changes nothing", at=start)
    return _checked(reader, start, FileChange(old, new, hunks, old_mode, new_mode))


def _git_paths(
    reader: _Reader,
    start: int,
    header: bytes,
    said: Mapping[str, bytes],
    names: tuple[bytes, bytes] | None,
) -> tuple[str | None, str | None]:
    """Both paths of a git section; they differ for a rename only."""
    if "rename from" in said and "rename to" in said:
        old, new = _unquoted(said["rename from"]), _unquoted(said["rename to"])
        if names and not (names[0].endswith(old) and names[1].endswith(new)):
            reader.fail("the rename and the `---`/`+++` lines name different files", at=start)
        return path_from_bytes(old), path_from_bytes(new)
    # Without a rename both names are the same but for their prefix, so the space between them
    # is in the middle, however many spaces the names hold.
    middle = len(header) // 2
    path = None
    if header[middle : middle + 1] == b" ":
        path = _common_path(_unquoted(header[:middle]), _unquoted(header[middle + 1 :]))
    if names and NO_PATH not in names:
        named = _common_path(*names)
        if path is not None and named != path:
            reader.fail("`diff --git` and the `---`/`+++` lines name different files", at=start)
        path = named
    elif names and path is not None:
        name = names[1] if names[0] == NO_PATH else names[0]
        if not name.endswith(path):
            reader.fail("`diff --git` and the `---`/`+++` lines name different files", at=start)
    if path is None:
        reader.fail("cannot tell which file this section changes", at=start)
    return path_from_bytes(path), path_from_bytes(path)


def _plain_change(reader: _Reader) -> FileChange:
    start = reader.at
    stamps = [line.partition(b"\t")[2] for line in reader.lines[start : start + 2]]
    old, new = _file_names(reader)
    hunks = _hunks(reader)
    if NO_PATH in (old, new):
        path: bytes | None = _without_prefix(new if old == NO_PATH else old)
    else:
        path = _common_path(old, new)
    if path is None:
        reader.fail("the `---` and `+++` lines name different files", at=start)
    name = path_from_bytes(path)
    # GNU diff -N gives a file that does not exist the time 0.
    absent = old == NO_PATH or (hunks[0].old_start == 0 and _is_epoch(stamps[0]))
    gone = new == NO_PATH or (hunks[0].new_start == 0 and _is_epoch(stamps[1]))
    change = FileChange(None if absent else name, None if gone else name, hunks)
    return _checked(reader, start, change)


def _checked(reader: _Reader, start: int, change: FileChange) -> FileChange:
    """`change` if its paths are safe and its hunks fit a new or deleted file."""
    for path in (change.old_path, change.new_path):
        if path is not None and (reason := unsafe_path(path)):
            reader.fail(f"path {path!r} {reason}", at=start)
    if change.old_path is None and change.new_path is None:
        reader.fail("both sides are /dev/null", at=start)
    if change.old_path is None and any(hunk.old_count for hunk in change.hunks):
        reader.fail("a new file cannot have old lines", at=start)
    if change.new_path is None and any(hunk.new_count for hunk in change.hunks):
        reader.fail("a deleted file cannot keep lines", at=start)
    return change


def _check_skipped(reader: _Reader) -> None:
    """Refuse text between files that stands for a change which would be lost."""
    line = reader.line
    if line.startswith((b"diff --cc ", b"diff --combined ", b"@@@ ")):
        reader.fail("combined diff of a merge", hint="make it with `git diff BASE HEAD`")
    if _HUNK.match(line):
        reader.fail("hunk without a file header")
    if line.startswith(b"GIT binary patch") or re.match(rb"Binary files .+ differ$", line):
        reader.fail("binary change", hint=_BINARY_HINT)
    if re.match(rb"Only in [^:\n]+: .", line):
        reader.fail("a file that exists on one side only is not in the diff", hint="use diff -ruN")


def _mode(
    reader: _Reader, start: int, said: Mapping[str, bytes], whole: str, changed: str
) -> str | None:
    mode = said.get(whole, said.get(changed))
    if mode is None:
        return None
    if mode == b"120000":
        reader.fail("symbolic link", at=start, hint="links cannot be carried to Windows")
    if mode == b"160000":
        reader.fail("submodule", at=start, hint="a submodule's content is not in the diff")
    if mode.decode("ascii", "replace") not in MODES:
        reader.fail(f"unknown file mode {mode.decode('ascii', 'replace')!r}", at=start)
    return mode.decode()


# hunks


def _hunks(reader: _Reader) -> tuple[Hunk, ...]:
    hunks: list[Hunk] = []
    while reader.line.startswith(b"@@"):
        start = reader.at
        hunk = _hunk(reader)
        if hunks and hunk.old_index < hunks[-1].old_index + hunks[-1].old_count:
            reader.fail("hunk overlaps the one before it or is out of order", at=start)
        if hunks and any(not line.endswith(b"\n") for line in hunks[-1].lines):
            reader.fail("hunk after the end of the file", at=start)
        hunks.append(hunk)
    if not hunks:
        reader.fail("no hunk follows the file's header")
    _check_end(reader)
    return tuple(hunks)


def _hunk(reader: _Reader) -> Hunk:
    start = reader.at
    header = _HUNK.match(reader.next())
    if header is None:
        reader.fail(
            "malformed hunk header", at=start, hint="expected @@ -LINE,COUNT +LINE,COUNT @@"
        )
    old_count, new_count = (1 if n is None else int(n) for n in header.group(2, 4))
    lines: list[bytes] = []
    old, new = old_count, new_count
    while old > 0 or new > 0 or reader.line.startswith(b"\\"):
        line = reader.line
        if line == b"\n":  # an empty context line whose space an editor has trimmed
            line = b" \n"
        kind = line[:1]
        if kind == b"\\" and lines and lines[-1].endswith(b"\n"):
            lines[-1] = lines[-1][:-1]
        elif kind in (b" ", b"-", b"+") and line.endswith(b"\n"):
            old -= kind != b"+"
            new -= kind != b"-"
            if old < 0 or new < 0:
                reader.fail("the hunk's counts do not fit its lines", at=start)
            lines.append(line)
        else:
            reader.fail(
                "the patch ends inside a hunk" if not line else "not a line of a hunk",
                hint=f"the hunk at line {start + 1} promises {old} more old and {new} more new",
            )
        reader.next()
    hunk = Hunk(int(header[1]), old_count, int(header[3]), new_count, tuple(lines))
    _check_hunk(reader, start, hunk)
    return hunk


def _check_hunk(reader: _Reader, start: int, hunk: Hunk) -> None:
    if all(line.startswith(b" ") for line in hunk.lines):
        reader.fail("hunk changes nothing", at=start)
    if (hunk.old_count and not hunk.old_start) or (hunk.new_count and not hunk.new_start):
        reader.fail("line numbers of a hunk begin at 1", at=start)
    for side in (hunk.before, hunk.after):
        if any(not line.endswith(b"\n") for line in side[:-1]):
            reader.fail("a line without newline is not the last one of its file", at=start)


def _check_end(reader: _Reader) -> None:
    """Refuse lines that look like more of a hunk than its counts say: they would be lost."""
    at = reader.at
    while at < len(reader.lines) and reader.lines[at] == b"\n":
        at += 1
    line = reader.lines[at] if at < len(reader.lines) else b""
    signature = line in (b"-- \n", b"--\n", b"---\n")
    if (
        line[:1] in (b" ", b"+", b"-", b"\\")
        and not signature
        and not _names_follow(reader.lines, at)
    ):
        reader.fail("more lines than the hunk header says", at=at)


# names


def _names_follow(lines: list[bytes], at: int) -> bool:
    if len(lines) < at + 2:
        return False
    return lines[at].startswith(b"--- ") and lines[at + 1].startswith(b"+++ ")


def _file_names(reader: _Reader) -> tuple[bytes, bytes]:
    """The names of the `---` and `+++` lines, prefixes kept."""
    names: list[bytes] = []
    for _ in range(2):
        text = reader.next()[4:].rstrip(b"\n")
        if text.endswith(b"\r"):
            _refuse_crlf(reader, reader.at - 1)
        names.append(_unquoted(text if text.startswith(b'"') else text.partition(b"\t")[0]))
    return names[0], names[1]


def _unquoted(name: bytes) -> bytes:
    """A name as git prints it, without its C quotes; what follows the quotes is dropped."""
    quoted = re.match(rb'"((?:[^"\\]|\\.)*)"', name)
    if quoted is None:
        return name
    return _ESCAPE.sub(
        lambda found: bytes(
            [int(found[1], 8) & 255 if len(found[1]) == 3 else _ESCAPES[found[1][0]]]
        ),
        quoted[1],
    )


def _common_path(old: bytes, new: bytes) -> bytes | None:
    """The path both names stand for: equal as they are, or after each one's first folder."""
    for suffix in (b".orig", b"~"):
        if old.endswith(suffix) and not new.endswith(suffix):
            old = old[: -len(suffix)]
    if old == new:
        return old
    old_rest, new_rest = old.partition(b"/")[2], new.partition(b"/")[2]
    return new_rest if new_rest and old_rest == new_rest else None


def _without_prefix(name: bytes) -> bytes:
    """`name` without one of git's prefixes, when no other name tells."""
    return name[2:] if re.match(rb"[abciow12]/", name) else name


def _is_epoch(stamp: bytes) -> bool:
    found = _STAMP.match(stamp)
    if found is None:
        return False
    text = b" ".join(found.groups()).decode()
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z").timestamp() == 0


def _refuse_crlf(reader: _Reader, at: int) -> NoReturn:
    reader.fail(
        "the lines of the diff itself end in CRLF",
        at=at,
        hint="a check-out or an editor converted it; git needs `*.patch -text` in .gitattributes",
    )
