"""Uses of a name that the series redefines, in lines that no patch changes.

A patch may change what a name is (`quant_type_max_v` from a variable to a function) and others its
uses.  Upstream keeps adding uses in the old form; nothing conflicts, and the tree does not compile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portkit.carrying.compose import NewFile
from portkit.carrying.finder import Library
from portkit.model import Edit, Patch
from portkit.stack.blame import dependencies
from portkit.text.syntax import language_of


@dataclass(frozen=True)
class StaleUse:
    """A line (1-based) of the new tag's file that uses `name` as it was; `patch` redefines it."""

    name: str
    patch: str
    path: str
    line: int
    text: bytes


def stale_uses(
    patches: Sequence[Patch], files: Mapping[str, NewFile], library: Library
) -> tuple[StaleUse, ...]:
    """The uses in the new tag that the carried series, `files`, leaves as they are."""
    by_name = {patch.name: patch for patch in patches}
    redefined = {
        (name, need.needs)
        for need in dependencies(patches)
        if need.by == "names"
        for name in need.what
    }
    found: list[StaleUse] = []
    for name, definer in sorted(redefined):
        word = re.compile(rb"\b%s\b" % name.encode())
        language = language_of(by_name[definer].path)
        paths = [path for path in library.files if language_of(path) is language]
        for text in library.texts(paths):
            if word.search(text.data) is None:
                continue
            changed = _changed(files.get(text.path))
            found += [
                StaleUse(name, definer, text.path, number + 1, line)
                for number, line in enumerate(text.lines)
                if number not in changed and word.search(line) and not _is_comment(line)
            ]
    return tuple(found)


def _changed(file: NewFile | None) -> set[int]:
    edits: Sequence[Edit] = file.edits if file is not None else ()
    return {number for edit in edits for number in range(edit.start, edit.end)}


def _is_comment(line: bytes) -> bool:
    return line.lstrip().startswith((b"//", b"#", b"*", b"/*"))
