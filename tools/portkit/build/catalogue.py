"""Failures that are known, and what helps: `data/failures.toml`, read as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomli

_PAGE = """\
# Troubleshooting

`tools/doctor.py LOGFILE` finds these in a log, and a failed build names them by itself. The lines
that tell each are regular expressions. The page is made by `tools/doctor.py --catalogue` from
`tools/portkit/build/data/failures.toml`. A failure that is missing is worth a report, with the log
and what `tools/doctor.py --json` says.
"""
_FILE = Path(__file__).with_name("data") / "failures.toml"


@dataclass(frozen=True)
class Known:
    """A failure with a name: how to tell it (`patterns`), why it happens, and what to do."""

    name: str
    title: str
    patterns: tuple[re.Pattern[str], ...]
    cause: str
    remedy: str
    unless: tuple[re.Pattern[str], ...] = ()


@dataclass(frozen=True)
class Recognised:
    """A known failure, and the line (from 0) that tells it."""

    known: Known
    line: int
    text: str


@cache
def catalogue() -> tuple[Known, ...]:
    """All of them, the more particular ones first, as the file has them."""
    read = tomli.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Known(
            name,
            one["title"],
            _compiled(one["patterns"]),
            one["cause"],
            one["remedy"],
            _compiled(one.get("unless", ())),
        )
        for name, one in read.items()
    )


def recognise(lines: Sequence[str]) -> Recognised | None:
    """The known failure that comes first in the text."""
    found = recognise_all(lines)
    return found[0] if found else None


def recognise_all(lines: Sequence[str]) -> list[Recognised]:
    """Each known failure in the text, once, in the order of its first line."""
    found: list[Recognised] = []
    for known in catalogue():
        for number, line in enumerate(lines):
            if any(one.search(line) for one in known.patterns) and not any(
                one.search(line) for one in known.unless
            ):
                found.append(Recognised(known, number, line.strip()))
                break
    return sorted(found, key=lambda one: one.line)


def render() -> str:
    """The catalogue as a page for people (docs/troubleshooting.md)."""
    parts = [_PAGE]
    parts += [
        f"## {one.title[0].upper()}{one.title[1:]}\n\n"
        + "".join(f"    {pattern.pattern}\n" for pattern in one.patterns)
        + f"\n{one.cause}\n\n**What helps:** {one.remedy}\n"
        for one in catalogue()
    ]
    return "\n".join(parts)


def _compiled(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(one, re.IGNORECASE) for one in patterns)
