"""Syntax colours for lines of code: a handful of classes, quiet enough for a diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.token import Comment, Keyword, Name, Number, String
from pygments.util import ClassNotFound

# The class of each run of a line: (start, end, class), in order, only where there is one.
Runs = tuple[tuple[int, int, str], ...]

_CLASSES = (
    (Comment.Preproc, "p"),
    (Comment, "c"),
    (String, "s"),
    (Number, "m"),
    (Keyword, "k"),
    (Name.Function, "f"),
    (Name.Class, "f"),
)


def colours(path: str | None, lines: Sequence[str]) -> list[Runs]:
    """The coloured runs of each line; none at all for a language that is not known."""
    text = "".join(f"{line}\n" for line in lines)  # lexers want every line ended
    lexer = _lexer(path or "")
    tokens = list(lexer.get_tokens(text))
    if "".join(value for _, value in tokens) != text:
        return [()] * len(lines)  # the lexer changed something: plain is safer
    found: list[list[tuple[int, int, str]]] = [[]]
    at = 0
    for kind, value in tokens:
        name = "" if kind is String and lexer.name == "CMake" else _class(kind)  # bare words
        for number, piece in enumerate(value.split("\n")):
            if number:
                found.append([])
                at = 0
            if piece and name:
                found[-1].append((at, at + len(piece), name))
            at += len(piece)
    return [tuple(runs) for runs in found[: len(lines)]]


def pieces(text: str, runs: Runs, marks: Sequence[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """A line cut where a colour or a mark begins or ends: (text, classes)."""
    cuts = {0, len(text), *(end for run in runs for end in run[:2]), *(e for m in marks for e in m)}
    ordered = sorted(cut for cut in cuts if cut <= len(text))
    for start, end in pairwise(ordered):
        names = [name for low, high, name in runs if low <= start and end <= high]
        if any(low <= start and end <= high for low, high in marks):
            names.append("x")
        yield text[start:end], " ".join(names)


@cache
def _lexer(path: str) -> Lexer:
    try:
        return get_lexer_for_filename(path.rpartition("/")[2], stripnl=False, ensurenl=False)
    except ClassNotFound:
        return TextLexer(stripnl=False, ensurenl=False)


def _class(kind: Any) -> str:
    return next((name for known, name in _CLASSES if kind in known), "")
