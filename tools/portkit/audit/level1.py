"""Level 1: the same program, once the Windows guards are resolved to "not Windows"."""

from __future__ import annotations

from portkit.audit import cmakefold, markers, pyfold
from portkit.audit.conditionals import NOT_WINDOWS, fold
from portkit.audit.doubt import Doubt
from portkit.cuda.includes import Read
from portkit.text.syntax import Language, language_of


def compare(path: str, upstream: bytes, patched: bytes, read: Read) -> str:
    """What was found identical, in words; `read` reads upstream's other files.

    Raises `Doubt` with the first difference.
    """
    language = language_of(path)
    if language is Language.PYTHON:
        pyfold.compare(upstream, patched)
        return "the same syntax tree, guards folded"
    if language is Language.REQUIREMENTS:
        pythons = markers.supported_pythons(read("pyproject.toml") or b"")
        return markers.compare(upstream, patched, pythons)
    if language is Language.CMAKE:
        quoted = cmakefold.compare(upstream, patched)
        if quoted:
            raise Doubt(f"{_count(len(quoted), 'argument')} got quotes ({quoted[0]})")
        return "the same commands, guards folded"
    if language is Language.CUDA:
        return _cuda(upstream, patched)
    if upstream == patched:
        return "the same bytes"
    raise Doubt("the audit cannot read this kind of file")


def _cuda(upstream: bytes, patched: bytes) -> str:
    before, after = fold(upstream, NOT_WINDOWS), fold(patched, NOT_WINDOWS)
    if before != after:
        raise Doubt(_difference(before, after))
    return f"the same {len(before)} tokens, guards folded"


def _difference(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """The first place where token streams part, with a few tokens of each."""
    pairs = zip(before, after, strict=False)
    at = next(
        (n for n, (one, other) in enumerate(pairs) if one != other), min(len(before), len(after))
    )
    one, other = (" ".join(tokens[at : at + 6]).replace("\n", "") for tokens in (before, after))
    return f"`{one}` became `{other}`"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
