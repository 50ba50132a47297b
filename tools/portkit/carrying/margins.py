"""What the margins and braces of lines say about where they stand, without parsing the file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from portkit.carrying.decision import Finding
from portkit.model import Edit
from portkit.text.sides import Lines, Text, telling
from portkit.text.syntax import Language, without_prose


def under_the_same_header(
    base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]
) -> Finding | None:
    """A quick proof of the same scope, by the margins of the lines above.

    None is no proof, not a refusal: then the files are parsed.
    """
    if base.language is Language.PYTHON:
        return _under_the_same_definitions(base, theirs, blocks, edits)
    was, now = _headers(base.lines, blocks), _headers(theirs.lines, edits)
    if was is None or was != now:
        return None
    if not was:
        outside = _in_no_block(base, blocks) and _in_no_block(theirs, edits)
        return Finding(True, "at file level") if outside else None
    # That line (the head of a function, say) must be unique in both files.
    outermost = was[-1]
    if base.counts[outermost] != 1 or theirs.counts[outermost] != 1:
        return None
    return Finding(True, f"in {_shorten(outermost)}")


def _headers(lines: Lines, edits: Sequence[Edit]) -> list[bytes] | None:
    """The lines above `edits` with ever smaller margins, the nearest first, down to none at all.

    None where there is no line without a margin above them.
    """
    depth = _margin(lines, edits)
    found: list[bytes] = []
    for line in reversed(lines[: edits[0].start]):
        if depth == 0:
            break
        if _outdented(line, depth) and not line.lstrip().startswith(_ASIDE):
            found.append(line)
            depth = _depth(line)
    return found if depth == 0 else None


def _margin(lines: Lines, edits: Sequence[Edit]) -> int:
    """The smallest margin of the lines of `edits`, old and new."""
    inner = [line for e in edits for line in (*lines[e.start : e.end], *e.lines) if line.strip()]
    return min((_depth(line) for line in inner if not line.startswith(b"#")), default=0)


def _in_no_block(text: Text, edits: Sequence[Edit]) -> bool:
    """Whether all blocks that open above the end of `edits` are closed there."""
    above = text.lines[: edits[-1].end]
    if text.language is not Language.CUDA:
        return _in_preamble(above)
    depth, outside = 0, []  # the depth at each conditional; every branch of it must be balanced
    for mark in _MARK.findall(without_prose(b"".join(above), text.language)):
        if mark in b"{}":
            depth += 1 if mark == b"{" else -1
        elif mark.endswith(b"if"):
            outside.append(depth)
        elif not outside or depth != outside[-1]:
            return False
        elif mark.endswith(b"end"):
            outside.pop()
    return depth == 0


_MARK = re.compile(rb"[{}]|^[ \t]*#[ \t]*(?:if|el|end)", re.MULTILINE)


def _in_preamble(above: Lines) -> bool:
    """Whether there are only directives and comments."""
    return all(not line.strip() or line.lstrip().startswith(_ASIDE) for line in above)


def _under_the_same_definitions(
    base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]
) -> Finding | None:
    """The quick proof for Python, where margins say all: one function or class of that name."""
    was = _definitions(base.lines, blocks[0].start, _margin(base.lines, blocks))
    now = _definitions(theirs.lines, edits[0].start, _margin(theirs.lines, edits))
    if was is None or was != now:
        return None
    if not was:
        return Finding(True, "at file level")
    if not (_only_one(base, was) and _only_one(theirs, now)):
        return None
    return Finding(True, f"in {' › '.join(name.decode() for _, name in reversed(was))}")


_Definition = tuple[bytes, bytes]  # `def` or `class`, and the name


def _definitions(lines: Lines, start: int, depth: int) -> list[_Definition] | None:
    """The functions and classes around a line of margin `depth`, the innermost first.

    None where there is no line without a margin above it.
    """
    found: list[_Definition] = []
    for line in reversed(lines[:start]):
        if depth == 0:
            break
        # What closes a bracket ends a statement that began with a line at that margin.
        if _outdented(line, depth) and not line.lstrip().startswith(_CLOSING):
            depth = _depth(line)
            if match := _DEFINES.match(line):
                found.append((match[1], match[2]))
    return found if depth == 0 else None


_CLOSING = (b"#", b")", b"]", b"}")
_DEFINES = re.compile(rb"[ \t]*(?:async[ ]+)?(def|class)[ ]+(\w+)")


def _only_one(text: Text, chain: list[_Definition]) -> bool:
    """Whether a file has one function or class of this name in those of the outer names."""
    kind, name = chain[0]
    if text.data.count(b"%s %s" % (kind, name)) == 1:
        return True
    lines = text.lines
    return (
        sum(
            [(kind, name), *(_definitions(lines, number, _depth(line)) or ())] == chain
            for number, line in enumerate(lines)
            if name in line and (match := _DEFINES.match(line)) and match.groups() == (kind, name)
        )
        == 1
    )


def _shorten(line: bytes) -> str:
    text = " ".join(line.decode("utf-8", "replace").split()).rstrip(":{ ")
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


def same_parent(base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int]) -> Finding:
    """Whether the lines stand under the line they stood under: a `case`, an `elif`, a `with`.

    Upstream may have edited that line or put a new one between; but when both lines stood in the
    old file and both still do, the lines are under the wrong one.
    """
    was, now = _parent(base.lines, *old), _parent(theirs.lines, *new)
    if was is None or now is None or _bare(was) == _bare(now):
        return Finding(True, "")
    if _bare(was) in map(_bare, theirs.lines) and _bare(now) in map(_bare, base.lines):
        return Finding.no(f"it would stand under {_show(now)}, and {_show(was)} is elsewhere")
    return Finding(True, "")


def _bare(line: bytes) -> bytes:
    """A line without margin and `else`: `elif x:` and `} else if (x) {` are conditions as well."""
    return re.sub(rb"^(\}\s*)?el(se\s+)?if\b", b"if", line.strip())


def _parent(lines: Lines, start: int, end: int) -> bytes | None:
    """The nearest telling line above with a smaller margin than the lines [start, end)."""
    inner = [line for line in lines[start : max(end, start + 1)] if line.strip()]
    depth = min((_depth(line) for line in inner), default=0)
    for line in reversed(lines[:start]):
        if _outdented(line, depth) and not line.lstrip().startswith(_ASIDE):
            return line
    return None


# Comments and directives stand at any margin.
_ASIDE = (b"#", b"//", b"/*", b"*")


def _depth(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))


def _outdented(line: bytes, depth: int) -> bool:
    """Whether a telling line has a smaller margin than `depth`."""
    return not line[:depth].isspace() and telling(line) and _depth(line) < depth


def _show(line: bytes) -> str:
    return f"`{line.strip().decode('utf-8', 'replace')}`"
