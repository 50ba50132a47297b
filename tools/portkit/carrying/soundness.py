"""Whether a composed file still reads: Python by `ast`, C++, CUDA and CMake by tree-sitter."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest

from packaging.requirements import InvalidRequirement, Requirement

from portkit.model import Edit
from portkit.text import cmakefile
from portkit.text.sides import Text, split_lines
from portkit.text.syntax import Language, language_of


def unsound(theirs: Text, edits: Sequence[Edit], expected: Callable[[], int] = int) -> str | None:
    """Why `theirs` with `edits` is not a sound file, None when it is.

    A file that upstream's macros confuse the parser in may keep its own errors, and the
    ones that the patch shows at its own pin (`expected` counts them, when asked); no more.
    """
    ordered = sorted(edits, key=lambda e: (e.start, e.end))
    result = theirs.with_edits(ordered)
    if theirs.language is Language.REQUIREMENTS:
        return _bad_requirement(edits)
    if theirs.language is Language.TEXT:
        return None
    errors = result.outline.errors
    if errors and errors > theirs.outline.errors and errors > theirs.outline.errors + expected():
        return f"the result would not parse as {theirs.language.value}"
    return None


def _bad_requirement(edits: Sequence[Edit]) -> str | None:
    for edit in edits:
        for line in edit.lines:
            text = line.decode("utf-8", "replace").partition("#")[0].strip()
            if not text or text.startswith("-"):
                continue
            try:
                Requirement(text)
            except InvalidRequirement:
                return f"{text!r} would not be a requirement"
    return None


def python_fault(path: str, data: bytes) -> tuple[int, str] | None:
    """The line and message of a syntax error in a Python file, None when there is none."""
    if language_of(path) is not Language.PYTHON:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(data)
    except SyntaxError as error:
        return error.lineno or 0, error.msg
    except ValueError as error:
        return 0, str(error)
    return None


def cmake_fault(theirs: Text, data: bytes) -> tuple[int, str] | None:
    """The line and message of what keeps an edited CMake file from parsing as `theirs` does."""
    if theirs.language is not Language.CMAKE:
        return None
    if Text(theirs.path, data).outline.errors <= theirs.outline.errors:
        return None
    # The parser may blame all of the file: the fault is not before the first line that was edited.
    pairs = zip_longest(theirs.lines, split_lines(data))
    edited = next(n for n, (old, new) in enumerate(pairs, 1) if old != new)
    line = max(cmakefile.first_error(data), edited)
    return line, "does not parse as CMake from here on"
