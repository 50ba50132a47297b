"""One file of `patch_series/`: parsed to a `Patch`, written back in canonical form.

Canonical form is header, one blank line, and the change as `git diff` writes it, less the `index`
line and the text after `@@`, which change with every release though the patch does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from portkit.errors import BadFile, BadInput
from portkit.model import FileChange, Hunk, Patch, split_lines
from portkit.patches.diffparse import parse_change, start_of_diff
from portkit.upstream.git import path_to_bytes

SERIES_FOLDER = "patch_series"
_DEFAULT_MODE = "100644"
_NO_NEWLINE = b"\n\\ No newline at end of file\n"
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_ESCAPES = dict(zip(b'\a\b\t\n\v\f\r"\\', b'abtnvfr"\\', strict=True))


def parse_patch(name: str, data: bytes) -> Patch:
    """The patch called `name` in the series; its header is kept byte for byte.

    Raises `BadFile` with the line, counted in the whole file, unless it is one file's change.
    """
    where = f"{SERIES_FOLDER}/{name}"
    lines = split_lines(data)
    start = start_of_diff(lines)
    if start == len(lines):
        raise BadFile(where, None, "no change found", hint="a patch is a header and a git diff")
    change, end = parse_change(lines, start, where)
    rest = lines[end:]
    if start_of_diff(rest) < len(rest):
        raise BadFile(
            where,
            end + start_of_diff(rest) + 1,
            "changes a second file",
            hint="a patch changes one file; split it with tools/series.py import",
        )
    for number, line in enumerate(rest, end + 1):
        if line.strip():
            raise BadFile(where, number, "text after the change", hint="move it into the header")
    header = b"".join(lines[:start]).rstrip(b"\n")
    return Patch(name, header + b"\n" if header else b"", change)


def format_patch(patch: Patch) -> bytes:
    """The file of a patch in canonical form; `parse_patch` gives `canonical(patch)` back."""
    patch = canonical(patch)
    head = patch.header + b"\n" if patch.header else b""
    return head + format_change(patch.change)


def canonical(patch: Patch) -> Patch:
    """`patch` as its canonical form reads: modes and new line numbers filled in.

    Raises `BadInput` when its header holds lines that would read as a diff.
    """
    header = patch.header.rstrip(b"\n")
    lines = split_lines(header + b"\n") if header else []
    if start_of_diff(lines) < len(lines):
        raise BadInput(f"{patch.name}: the header holds the beginning of a diff")
    return replace(patch, header=b"".join(lines), change=canonical_change(patch.change))


def canonical_change(change: FileChange) -> FileChange:
    """`change` with git's modes for a new or deleted file and consistent new line numbers."""
    old_mode, new_mode = change.old_mode, change.new_mode
    if change.old_path is None:
        old_mode, new_mode = None, new_mode or _DEFAULT_MODE
    elif change.new_path is None:
        old_mode, new_mode = old_mode or _DEFAULT_MODE, None
    elif old_mode == new_mode or None in (old_mode, new_mode):
        old_mode = new_mode = None
    hunks = tuple(_renumbered(change.hunks))
    return replace(change, hunks=hunks, old_mode=old_mode, new_mode=new_mode)


def format_change(change: FileChange) -> bytes:
    """One file's part of a git diff, as `git apply` takes it."""
    change = canonical_change(change)
    old = path_to_bytes(change.old_path if change.old_path is not None else change.path)
    new = path_to_bytes(change.path)
    out = [b"diff --git ", _quoted(b"a/" + old), b" ", _quoted(b"b/" + new), b"\n"]
    if change.old_path is None:
        out.append(f"new file mode {change.new_mode}\n".encode())
    elif change.new_path is None:
        out.append(f"deleted file mode {change.old_mode}\n".encode())
    elif change.old_mode is not None:
        out.append(f"old mode {change.old_mode}\nnew mode {change.new_mode}\n".encode())
    if old != new:
        out += [b"rename from ", _quoted(old), b"\nrename to ", _quoted(new), b"\n"]
    if change.hunks:
        out.append(b"--- " + _file_name(change.old_path, b"a/"))
        out.append(b"+++ " + _file_name(change.new_path, b"b/"))
    for hunk in change.hunks:
        out += _hunk_lines(hunk)
    return b"".join(out)


def _renumbered(hunks: tuple[Hunk, ...]) -> Iterator[Hunk]:
    shift = 0
    for hunk in hunks:
        begin = hunk.old_index + shift
        yield replace(hunk, new_start=begin + 1 if hunk.new_count else begin)
        shift += hunk.new_count - hunk.old_count


def _hunk_lines(hunk: Hunk) -> Iterator[bytes]:
    old = _range(hunk.old_start, hunk.old_count)
    new = _range(hunk.new_start, hunk.new_count)
    yield f"@@ -{old} +{new} @@\n".encode()
    for line in hunk.lines:
        yield line if line.endswith(b"\n") else line + _NO_NEWLINE


def _range(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start},{count}"


def _file_name(path: str | None, prefix: bytes) -> bytes:
    """The name of a `---` or `+++` line; git ends one that holds spaces with a tab."""
    if path is None:
        return b"/dev/null\n"
    name = prefix + path_to_bytes(path)
    quoted = _quoted(name)
    return quoted + (b"\t\n" if b" " in name and quoted == name else b"\n")


def _quoted(name: bytes) -> bytes:
    """`name` as git prints it: in C quotes when it holds anything but plain ASCII."""
    if not _UNSAFE.search(name):
        return name

    def escape(found: re.Match[bytes]) -> bytes:
        byte = found[0][0]
        return b"\\%c" % _ESCAPES[byte] if byte in _ESCAPES else b"\\%03o" % byte

    return b'"' + _UNSAFE.sub(escape, name) + b'"'
