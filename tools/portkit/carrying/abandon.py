"""Giving up pieces of a patch: what has landed of it must stand without what waits.

A person who skips a patch gives up its waiting pieces.  Where the others cannot do without them,
because the file would not parse or would use a name that nothing defines, they go as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from portkit.carrying.compose import Placed, expected_errors
from portkit.carrying.decision import Dropped, Landed, Why
from portkit.carrying.finder import Library
from portkit.carrying.soundness import unsound
from portkit.model import Edit
from portkit.text.sides import Text

_NAME = re.compile(rb"[A-Za-z_]\w*")
# A name that a line makes known: a macro, a function, a type, an import, a value.
_DEFINED = re.compile(
    rb"\b(?:define|def|class|struct|enum|import|as|using|typename|bool|int)\s+(?P<a>[A-Za-z_]\w*)"
    rb"|(?:^|[\s*&>])(?P<b>[A-Za-z_]\w*)\s*(?::[^=:]+)?=(?!=)"
    rb"|^\s*(?!return\b|else\b)[\w:<>,*&]+[\s*&]+(?P<c>[A-Za-z_]\w*)\s*\("
    rb"|(?:set|option|function|macro)\s*\(\s*(?P<d>[A-Za-z_]\w*)"
)


def abandon(library: Library, placed: Sequence[Placed], skipped: Collection[str]) -> bool:
    """Drop what has landed of `skipped` patches and cannot stay; whether there was any.

    `placed` learns of it.
    """
    found = False
    for patch in dict.fromkeys(one.unit.patch for one in placed if one.unit.patch in skipped):
        mine = [one for one in placed if one.unit.patch == patch]
        reason = _dependence(library, mine)
        if reason is not None:
            found = True
            for one in mine:
                _drop(one, Dropped(Why.NEEDS_SKIPPED, reason))
    return found


def _dependence(library: Library, mine: Sequence[Placed]) -> str | None:
    """Why the landed pieces of a patch need those that wait, None when they do not."""
    results = [result for one in mine for result in one.results]
    waiting = [block for r in results for c in r.conflicts for block in c.blocks]
    if not waiting:
        return None
    for path in dict.fromkeys(o.path for r in results for o in r.landed):
        theirs = library.text(path)
        edits = dict.fromkeys(e for one in mine for o in one.landed(path) for e in o.edits)
        names = _missing(theirs, list(edits), waiting)
        if names:
            said = ", ".join(f"`{name.decode()}`" for name in sorted(names)[:4])
            return f"{path} would use {said}, which only the skipped piece defines"
        if unsound(theirs, list(edits), lambda: expected_errors(mine)) is not None:
            return f"{path} would not parse without the skipped piece"
    return None


def _missing(theirs: Text, edits: Sequence[Edit], waiting: Sequence[Edit]) -> set[bytes]:
    """The names that `edits` use and only `waiting` defines."""
    used = set(_NAME.findall(_added(edits)))
    shared = used & _defined(waiting) - _defined(edits)
    return shared - set(_NAME.findall(theirs.data)) if shared else shared


def _added(edits: Iterable[Edit]) -> bytes:
    return b"".join(line for edit in edits for line in edit.lines)


def _defined(edits: Iterable[Edit]) -> set[bytes]:
    lines = [line for edit in edits for line in edit.lines]
    return {
        name
        for line in lines
        for match in _DEFINED.finditer(line)
        for name in match.groups()
        if name
    }


def _drop(one: Placed, drop: Dropped) -> None:
    for number, result in enumerate(one.results):
        if result.landed:
            outcomes = tuple(drop if isinstance(o, Landed) else o for o in result.outcomes)
            one.results[number] = replace(result, outcomes=tuple(dict.fromkeys(outcomes)))
