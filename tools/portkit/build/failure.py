"""What failed in the log of a build: the source, the first error, and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portkit.build.catalogue import Known, recognise

_FAILED = re.compile(r"FAILED: (?:\[code=-?\d+\] )?(?P<what>.+)")
_STEP = re.compile(r"\[\d+/\d+\] ")
_SOURCE = re.compile(
    r"(?:-c|/c|/Tp|-x cu -c) ?(?:\"(?P<quoted>[^\"]+\.(?:cu|cpp|cc|cxx|c))\""
    r"|(?P<plain>[^\"\s]+\.(?:cu|cpp|cc|cxx|c)))(?:\s|$)"
)
# cl and nvcc on Windows, gcc and clang, nvcc's front end, ptxas, linkers, CMake, Python; the least
# particular last.
_ERRORS = (
    re.compile(r"^.+\(\d+(?:,\d+)?\)\s*: (?:fatal )?error\b.*"),
    re.compile(r"^.+:\d+(?::\d+)?: (?:fatal )?error: .*"),
    re.compile(r"^.*\b(?:fatal )?error (?:[A-Z]+\d+)\s*:.*"),
    re.compile(
        r"^(?:nvcc|ptxas|cudafe\+\+|cicc|nvlink|cl|ninja|c\+\+|g\+\+|collect2)\b.*\b(?:fatal|error)\b.*"
    ),
    re.compile(r"^CMake Error.*"),
    re.compile(r"^\w*(?:Error|Exception): .*"),
    re.compile(
        r"^.*\b(?:undefined reference|catastrophic error|out of (?:heap|memory)|Killed)\b.*"
    ),
    re.compile(r"^\s*(?:fatal )?error\b.*", re.IGNORECASE),
)


@dataclass(frozen=True)
class Failure:
    """One failed step: the `source` (or what was made), the first `error`, where in the log.

    `line` counts from 1; `known` is what the catalogue says, None when it is new.
    """

    source: str
    error: str
    line: int
    known: Known | None


def failures(log: str, sources: Mapping[str, str] = {}) -> tuple[Failure, ...]:
    """Each failed step of a build by Ninja, else the first error of any log; empty without one.

    `sources` names the source of each object file; without it the command is read for it.
    """
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if _FAILED.match(line)]
    if not starts:
        found = _first_error(lines, 0, len(lines))
        return (_failure(lines, "", found, 0, len(lines)),) if found is not None else ()
    failed = []
    for number in starts:
        end = next(
            (n for n in range(number + 1, len(lines)) if _STEP.match(lines[n]) or n in starts),
            len(lines),
        )
        where = _first_error(lines, number + 1, end)
        made = _made(lines[number])
        source = sources.get(made) or _compiled(lines, number) or made
        failed.append(_failure(lines, source, where, number, end))
    return tuple(failed)


def _failure(lines: Sequence[str], source: str, where: int | None, start: int, end: int) -> Failure:
    known = recognise(lines[start:end])
    if where is None and known is not None:
        where = start + known.line
    if where is None:
        where = max(start, end - 1)
    error = lines[where].strip()
    if error.startswith("CMake Error"):
        error = " ".join([error, *_paragraph(lines, where + 1)])
    return Failure(source, error, where + 1, known.known if known is not None else None)


def _paragraph(lines: Sequence[str], start: int) -> list[str]:
    """The indented lines of a CMake message, up to its first blank one after text."""
    found: list[str] = []
    for line in lines[start : start + 12]:
        if line.strip():
            found.append(line.strip())
        elif found:
            break
    return found


def _first_error(lines: Sequence[str], start: int, end: int) -> int | None:
    """The line of the first error, the more telling kinds first among what one tool says."""
    for pattern in _ERRORS:
        for number in range(start, end):
            line = lines[number]
            if pattern.match(line) and not _is_command(line):
                return number
    return None


def _is_command(line: str) -> bool:
    """A compiler's command line may hold any word."""
    return len(line) > 600 or bool(_SOURCE.search(line))


def _made(line: str) -> str:
    """What a failed step was to make."""
    failed = _FAILED.match(line)
    return failed["what"].split()[0] if failed is not None else ""


def _compiled(lines: Sequence[str], start: int) -> str:
    """The file that the failed command compiles, if it is a compile that names it plainly."""
    for line in lines[start + 1 : start + 3]:
        match = _SOURCE.search(line)
        if match is not None:
            return str(match["quoted"] or match["plain"])
    return ""
