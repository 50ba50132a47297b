"""Which translation units a build has, and which of them a patch touches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from portkit.build.cmakereply import Reply, Unit

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*([<"])([^">\n]+)[">]', re.MULTILINE)


@dataclass(frozen=True)
class Affected:
    """A unit, and the patched files that it is made of or includes, as paths below the source."""

    unit: Unit
    touched: tuple[str, ...]


def affected(reply: Reply, patched: Iterable[str], pinned: Mapping[str, object]) -> list[Affected]:
    """The units that a change of the `patched` files reaches through includes.

    Includes are followed whatever `#if` they stand under, so a unit may be listed that one
    compiler would not need to build again; none that it would is missing.  A generated file
    (one that is not `pinned`) changes with the Python script in its folder that makes it.
    """
    changed = set(patched)
    scanner = _Scanner(reply.source, reply.folder)
    made_by = {path.rpartition("/")[0]: path for path in changed if path.endswith(".py")}
    found = []
    for unit in reply.units:
        touched: set[str] = set()
        for path in scanner.closure(unit.source, unit.includes):
            if path in changed:
                touched.add(path)
            elif path not in pinned and path.rpartition("/")[0] in made_by:
                touched.add(made_by[path.rpartition("/")[0]])
        if touched:
            found.append(Affected(unit, tuple(sorted(touched))))
    return found


class _Scanner:
    """Files below the source and the build folder that a file includes, directly or not."""

    def __init__(self, *roots: Path) -> None:
        self._roots = [root.resolve() for root in roots]
        self._named = cache(self._includes)

    def closure(self, file: Path, folders: Sequence[Path]) -> set[str]:
        """The file and all it includes, as paths below the first root (or below another)."""
        own = tuple(folder for folder in folders if self._inside(folder) is not None)
        seen: set[Path] = set()
        waiting = [file]
        while waiting:
            path = waiting.pop()
            if path in seen or self._inside(path) is None:
                continue
            seen.add(path)
            waiting.extend(self._resolved(path, own))
        return {inside for path in seen if (inside := self._inside(path)) is not None}

    def _resolved(self, path: Path, folders: Sequence[Path]) -> Iterable[Path]:
        for quoted, name in self._named(path):
            places = [path.parent, *folders] if quoted else folders
            for folder in places:
                candidate = Path(_normal(folder / name))
                if candidate.is_file():
                    yield candidate
                    break

    def _includes(self, path: Path) -> list[tuple[bool, str]]:
        try:
            data = path.read_bytes()
        except OSError:
            return []
        return [
            (mark == b'"', name.decode("utf-8", "replace")) for mark, name in _INCLUDE.findall(data)
        ]

    def _inside(self, path: Path) -> str | None:
        for root in self._roots:
            try:
                return Path(_normal(path)).relative_to(root).as_posix()
            except ValueError:
                continue
        return None


@cache
def _normal(path: Path) -> str:
    return str(path.resolve())


def counted(units: Iterable[Unit]) -> dict[str, int]:
    """How many units each module has, the largest first."""
    counts: dict[str, int] = {}
    for unit in units:
        counts[unit.target] = counts.get(unit.target, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
