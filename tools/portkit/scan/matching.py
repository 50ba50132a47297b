"""The detector of rules that are data: syntax patterns, identifiers and regular expressions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import PurePosixPath
from typing import Any, cast

from portkit.model import Event
from portkit.scan.code import Code
from portkit.scan.detectors import Context
from portkit.scan.model import Finding
from portkit.scan.rules import Rule
from portkit.scan.tree import is_shipped, language_of

_BATCH = 1_000_000  # bytes of source that a process reads in one go
_WORTH = 4  # batches from which on starting processes pays

_Job = tuple[str, bytes, tuple[str, ...]]  # a file and the rules it may hold something for


@dataclass(frozen=True)
class Match:
    """Where a rule matched: characters `start` to `end` of the file, and what it captured."""

    start: int
    end: int
    captured: dict[str, str]


def detect(context: Context) -> Iterator[Finding]:
    """What the rules with `match`, `words` or `regex` find in the tree."""
    matchers = [Matcher(rule) for rule in context.rules.values() if rule.detector is None]
    batches = list(_batches(context, matchers))
    rules = {matcher.rule.id: matcher.rule for matcher in matchers}
    for number, found in enumerate(_in_order(rules, batches)):
        context.events(Event("matching rules", number, len(batches), "batches"))
        yield from found


def _batches(context: Context, matchers: Sequence[Matcher]) -> Iterator[list[_Job]]:
    """The files that may hold a match, in batches of alike size."""
    languages = {matcher.rule.language for matcher in matchers}
    paths = [
        path for path in context.tree.paths if language_of(path) in languages and is_shipped(path)
    ]
    batch: list[_Job] = []
    size = 0
    for path, data in context.tree.read_all(paths).items():
        wanted = tuple(m.rule.id for m in matchers if m.concerns(path) and m.may_match(data))
        if wanted:
            batch.append((path, data, wanted))
            size += len(data)
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _in_order(rules: Mapping[str, Rule], batches: Sequence[list[_Job]]) -> Iterator[list[Finding]]:
    """What each batch holds, worked out by as many processes as there are processors."""
    processors = os.cpu_count() or 1
    if processors == 1 or len(batches) < _WORTH:
        prepared = {name: Matcher(rule) for name, rule in rules.items()}
        yield from (_found_in(prepared, batch) for batch in batches)
        return
    spawn = get_context("spawn")  # as on Windows, so that there is one way to test
    with ProcessPoolExecutor(
        min(processors, len(batches)), spawn, initializer=_prepare, initargs=(dict(rules),)
    ) as pool:
        yield from pool.map(_work, batches)


_prepared: dict[str, Matcher] = {}  # of a worker process


def _prepare(rules: dict[str, Rule]) -> None:
    _prepared.update({name: Matcher(rule) for name, rule in rules.items()})


def _work(batch: list[_Job]) -> list[Finding]:
    return _found_in(_prepared, batch)


def _found_in(matchers: Mapping[str, Matcher], batch: list[_Job]) -> list[Finding]:
    return [
        finding
        for path, data, names in batch
        for finding in find([matchers[name] for name in names], path, data)
    ]


def find(matchers: Iterable[Matcher], path: str, data: bytes) -> Iterator[Finding]:
    """What `matchers` find in one file, once per line and rule."""
    code = Code(data, language_of(path))
    for matcher in matchers:
        seen: set[int] = set()
        for match in matcher.matches(code):
            line, column = code.place(match.start)
            if line not in seen:
                seen.add(line)
                yield matcher.rule.at(path, line, column, code.line(line).strip())


class Matcher:
    """One rule, ready to match."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        literals = rule.literals or rule.words
        # A file is read for a rule only if one of these occurs in it.
        self._literals = tuple(text.encode() for text in literals)
        self._unless = re.compile(rule.unless) if rule.unless else None
        self._pattern: re.Pattern[str] | None = None
        if rule.words:
            self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, rule.words))})\b")
        elif rule.regex is not None:
            self._pattern = re.compile(rule.regex, re.MULTILINE)

    def concerns(self, path: str) -> bool:
        """Whether the rule is about files of this name."""
        if language_of(path) is not self.rule.language:
            return False
        files = self.rule.files
        return not files or any(PurePosixPath(path).match(glob) for glob in files)

    def may_match(self, data: bytes) -> bool:
        """A quick test that leaves most files unread."""
        return not self._literals or any(text in data for text in self._literals)

    def matches(self, code: Code) -> Iterator[Match]:
        """Every match in a file."""
        if self._unless is not None and self._unless.search(code.text):
            return
        if self._pattern is not None:
            for found in self._pattern.finditer(code.view(self.rule.view)):
                group = "at" if "at" in self._pattern.groupindex else 0
                yield Match(found.start(group), found.end(group), {})
        elif self.rule.match is not None:
            yield from _structural(code, self.rule)


def _structural(code: Code, rule: Rule) -> Iterator[Match]:
    assert rule.match is not None
    config = rule.match if "rule" in rule.match else {"rule": rule.match}
    for node in code.syntax.find_all(cast(Any, config)):
        names = _CAPTURE.findall(str(rule.rewrite.to)) if rule.rewrite is not None else ()
        found = {name: got.text() for name in names if (got := node.get_match(name)) is not None}
        yield Match(node.range().start.index, node.range().end.index, found)


_CAPTURE = re.compile(r"\$([A-Z][A-Z0-9_]*)")
