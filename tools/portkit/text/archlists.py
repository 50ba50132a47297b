"""CUDA architecture lists of upstream's CMake files, as a function of the CUDA toolkit's version.

A list may hold for some toolkits only (`if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL
13.0)`), and two tags may draw those lines elsewhere.  So lists are compared toolkit range by
toolkit range, not branch by branch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from portkit.text.cmakefile import Command, Condition

SUPPORTED = "supported by the build"

# A place between two toolkit versions: before the version (0) or behind it (1).
_Cut = tuple[tuple[int, ...], int]
_LOWEST: _Cut = ((), 0)
_HIGHEST: _Cut = ((10**6,), 0)


@dataclass(frozen=True)
class Span:
    """A range of toolkit versions."""

    low: _Cut = _LOWEST
    high: _Cut = _HIGHEST

    def meet(self, other: Span) -> Span:
        return Span(max(self.low, other.low), min(self.high, other.high))

    def holds(self, other: Span) -> bool:
        return self.low <= other.low and other.high <= self.high

    def includes(self, version: tuple[int, ...]) -> bool:
        """Whether a toolkit of this version is in the range."""
        return self.low <= (version, 0) < self.high

    @property
    def empty(self) -> bool:
        return self.low >= self.high

    def __str__(self) -> str:
        bounds = []
        if self.low != _LOWEST:
            bounds.append(f"{'>' if self.low[1] else '≥'} {_dotted(self.low)}")
        if self.high != _HIGHEST:
            bounds.append(f"{'≤' if self.high[1] else '<'} {_dotted(self.high)}")
        return "CUDA " + ", ".join(bounds) if bounds else ""


@dataclass(frozen=True)
class ArchList:
    """The architectures one group of kernels is built for; None where that could not be read."""

    group: str
    span: Span
    archs: tuple[str, ...] | None


@dataclass(frozen=True)
class ArchRow:
    """One group under one range of toolkits, at two tags; None is unknown, () is no list."""

    group: str
    span: Span
    old: tuple[str, ...] | None
    new: tuple[str, ...] | None


def arch_lists(commands: Iterable[Command]) -> tuple[ArchList, ...]:
    """The lists of one file: what the build supports, and those per kernel group.

    A group is called what upstream's own status message calls it (`Building NAME for archs:`),
    else by its variable.
    """
    reader = _Reader()
    for command in commands:
        reader.read(command)
    return reader.lists()


def supported(lists: Iterable[ArchList], toolkit: Sequence[int]) -> tuple[str, ...]:
    """What the build takes with a toolkit of this version, in upstream's order."""
    version = tuple(toolkit)
    taken = [one for one in lists if one.group == SUPPORTED and one.span.includes(version)]
    return tuple(dict.fromkeys(arch for one in taken for arch in one.archs or ()))


def compare(old: Sequence[ArchList], new: Sequence[ArchList]) -> tuple[ArchRow, ...]:
    """Every group of either tag, in order, by the largest ranges on which neither tag's varies."""
    rows: list[ArchRow] = []
    for group in dict.fromkeys(one.group for one in (*new, *old)):
        before = [one for one in old if one.group == group]
        after = [one for one in new if one.group == group]
        cuts = sorted({c for one in (*before, *after) for c in (one.span.low, one.span.high)})
        cuts = sorted({_LOWEST, *cuts, _HIGHEST})
        pieces = [Span(low, high) for low, high in pairwise(cuts)]
        valued = [(_value(before, piece), _value(after, piece), piece) for piece in pieces]
        for (was, now), run in groupby(valued, key=lambda item: item[:2]):
            spans = [span for _, _, span in run]
            if was != () or now != ():
                rows.append(ArchRow(group, Span(spans[0].low, spans[-1].high), was, now))
    return tuple(rows)


def _value(lists: Sequence[ArchList], piece: Span) -> tuple[str, ...] | None:
    found: dict[str, None] = {}
    for one in lists:
        if one.span.holds(piece):
            if one.archs is None:
                return None
            found |= dict.fromkeys(one.archs)
    return tuple(found)


_Values = list[tuple[Span, tuple[str, ...] | None]]


@dataclass
class _Reader:
    variables: dict[str, _Values] = field(default_factory=dict)
    pending: dict[str, _Values] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    found: list[ArchList] = field(default_factory=list)

    def read(self, command: Command) -> None:
        words = command.arguments
        span = span_of(command.conditions)
        if span.empty or not words:
            return
        if command.name != "message":
            self.used |= {name for word in words for name in _REFERENCE.findall(word)}
        if command.name == "set" and words[0].endswith("ARCHS"):
            kept = [v for v in self.variables.get(words[0], []) if not span.holds(v[0])]
            self.variables[words[0]] = [*kept, (span, _split(words[1:]))]
            if words[0] == "CUDA_SUPPORTED_ARCHS":
                self.found.append(ArchList(SUPPORTED, span, _split(words[1:])))
        elif command.name == "list" and words[0] == "APPEND" and words[1:2] != ():
            if words[1].endswith("ARCHS"):
                self.variables.setdefault(words[1], []).append((span, _split(words[2:])))
        elif command.name == "cuda_archs_loose_intersection" and len(words) > 1:
            if words[0] != "CUDA_ARCHS":
                self.pending.setdefault(words[0], []).extend(self._values(words[1], span))
        elif command.name.startswith("cuda_archs_"):
            self.pending.setdefault(words[0], []).append((span, (f"by {command.name}",)))
        elif command.name == "message" and (named := _NAMING.fullmatch(" ".join(words[1:]))):
            self._settle(named["variable"], named["name"])

    def lists(self) -> tuple[ArchList, ...]:
        for variable in [name for name in self.pending if name in self.used]:
            self._settle(variable, variable)  # a list that nothing uses says nothing
        return tuple(self.found)

    def _settle(self, variable: str, name: str) -> None:
        for span, archs in self.pending.pop(variable, []):
            self.found.append(ArchList(name, span, archs))
        self.used.discard(variable)

    def _values(self, word: str, span: Span) -> _Values:
        variable = _REFERENCE.fullmatch(word)
        if variable is None:
            return [(span, _split((word,)))]
        known = self.variables.get(variable[1])
        if known is None:
            return [(span, None)]
        return [(both, archs) for one, archs in known if not (both := span.meet(one)).empty]


_REFERENCE = re.compile(r"\$\{(\w+)\}")
_NAMING = re.compile(r"(?:Building|Enabling) (?P<name>.+?) for archs: \$\{(?P<variable>\w+)\}")


def _split(words: Sequence[str]) -> tuple[str, ...] | None:
    text = ";".join(words)
    return None if "$" in text else tuple(part.strip() for part in text.split(";") if part.strip())


# toolkit conditions

_TEST = re.compile(
    r"(?P<no>NOT )?\"?(?:\$\{)?(?:CMAKE_CUDA_COMPILER_VERSION|CUDA_VERSION)\}?\"? "
    r"VERSION_(?P<test>GREATER_EQUAL|GREATER|LESS_EQUAL|LESS) \"?(?P<version>\d+(?:\.\d+)*)\"?"
)


def span_of(conditions: Iterable[Condition]) -> Span:
    """The toolkits under which all `conditions` hold, as far as they speak of toolkits."""
    span = Span()
    for condition in conditions:
        for one in _spans(condition):
            span = span.meet(one)
    return span


def _spans(condition: Condition) -> Iterator[Span]:
    terms = [t for t in _terms(condition.words) if not t.startswith("DEFINED ")]
    if "OR" in condition.words or (not condition.holds and len(terms) != 1):
        return  # the other branch of `A AND B` says nothing of B alone
    for term in terms:
        match = _TEST.fullmatch(term)
        if match is not None:
            yield _span(match, condition.holds == (match["no"] is None))


def _span(match: re.Match[str], wanted: bool) -> Span:
    version = tuple(int(part) for part in match["version"].split("."))
    behind = match["test"] in ("GREATER", "LESS_EQUAL")
    cut: _Cut = (version, int(behind))
    above = match["test"].startswith("GREATER")
    return Span(low=cut) if above == wanted else Span(high=cut)


def _terms(words: Sequence[str]) -> list[str]:
    return [part.strip() for part in re.split(r"\bAND\b", " ".join(words))]


def _dotted(cut: _Cut) -> str:
    return ".".join(str(part) for part in cut[0])
