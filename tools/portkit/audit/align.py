"""Two versions of a file with blank lines put in, so that what is equal has equal line numbers.

Checks and assertions compile their line number in (`__LINE__`), so a line added at the top of a
file changes code all over it.  Blank lines change nothing else.
"""

from __future__ import annotations

from difflib import SequenceMatcher

from portkit.cuda.includes import Closure
from portkit.model import split_lines


def closures(upstream: Closure, patched: Closure) -> tuple[Closure, Closure]:
    """Both versions of a unit with every file that differs aligned."""
    before, after = dict(upstream.files), dict(patched.files)
    for path in before.keys() & after.keys():
        if before[path] != after[path]:
            before[path], after[path] = texts(before[path], after[path])
    return Closure(upstream.unit, before), Closure(patched.unit, after)


def texts(upstream: bytes, patched: bytes) -> tuple[bytes, bytes]:
    """Both texts, the shorter side of each difference filled up with blank lines.

    A file with raw strings, in which a blank line is not nothing, stays as it is.
    """
    if b'R"' in upstream or b'R"' in patched:
        return upstream, patched
    before, after = split_lines(upstream), split_lines(patched)
    left: list[bytes] = []
    right: list[bytes] = []
    for _, start, end, ours, our_end in SequenceMatcher(
        None, before, after, autojunk=False
    ).get_opcodes():
        left += before[start:end]
        right += after[ours:our_end]
        _fill(left, len(right))
        _fill(right, len(left))
    return b"".join(left), b"".join(right)


def _fill(lines: list[bytes], length: int) -> None:
    """Blank lines up to `length`; after a line that goes on, lines that go on too."""
    goes_on = bool(lines) and lines[-1].rstrip(b"\r\n").endswith(b"\\")
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    lines += [b"\\\n" if goes_on else b"\n"] * (length - len(lines))
