"""Two versions of one upstream file and how their lines correspond.

`Text` is a file split into lines with what landing checks ask of it, computed once.  `Alignment`
is git's own histogram diff between two of them, read as a map of lines.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from portkit import model
from portkit.model import Edit
from portkit.patches.apply import apply_edits
from portkit.text.syntax import Language, Outline, Replaced, language_of
from portkit.upstream.git import Store, TreeEntry

Lines = tuple[bytes, ...]


def split_lines(data: bytes) -> Lines:
    """The lines of a file with their endings, as a value."""
    return tuple(model.split_lines(data))


def telling(line: bytes) -> bool:
    """Whether a line says enough to recognise a place by: two word characters or more."""
    return _TELLING.search(line) is not None


_TELLING = re.compile(rb"\w\W*\w")


@dataclass(frozen=True)
class Text:
    """One version of one upstream file."""

    path: str
    data: bytes

    @cached_property
    def lines(self) -> Lines:
        return split_lines(self.data)

    @cached_property
    def language(self) -> Language:
        return language_of(self.path)

    @cached_property
    def outline(self) -> Outline:
        return Outline(self.data, self.language)

    @cached_property
    def counts(self) -> Counter[bytes]:
        """How often each line occurs."""
        return Counter(self.lines)

    def where(self, line: bytes) -> list[int]:
        """Where a line occurs, ascending."""
        if line not in self._where:
            found: list[int] = []
            for _ in range(self.counts[line]):
                found.append(self.lines.index(line, found[-1] + 1 if found else 0))
            self._where[line] = found
        return self._where[line]

    @cached_property
    def _where(self) -> dict[bytes, list[int]]:
        return {}

    @cached_property
    def flush(self) -> Text:
        """The file without indentation, line for line."""
        return Text(self.path, b"".join(line.strip() + b"\n" for line in self.lines))

    def find(self, block: Sequence[bytes]) -> list[int]:
        """Every line number at which `block` occurs, ascending; none for an empty block."""
        if not block:
            return []
        rarest = min(range(len(block)), key=lambda i: self.counts[block[i]])
        wanted = tuple(block)
        return [
            start
            for place in self.where(block[rarest])
            if (start := place - rarest) >= 0 and self.lines[start : start + len(wanted)] == wanted
        ]

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """The bytes with `edits` (ascending, not overlapping) made."""
        return b"".join(apply_edits(self.lines, edits))

    def with_edits(self, edits: Sequence[Edit]) -> Text:
        """The file with `edits` (ascending, not overlapping) made."""
        made = Text(self.path, self.edited(edits))
        replaced = [Replaced(e.start, e.end, len(e.lines)) for e in edits]
        made.outline.comes_from(self.outline, replaced, checking=True)
        return made

    def continues(self, base: Text, alignment: Alignment) -> None:
        """Remember that this is what became of `base`, which spares parsing what is the same."""
        changes = alignment.changes
        replaced = [Replaced(c.base_start, c.base_end, c.end - c.start) for c in changes]
        self.outline.comes_from(base.outline, replaced)


@dataclass(frozen=True)
class Change:
    """A region that differs: lines [base_start, base_end) became [start, end)."""

    base_start: int
    base_end: int
    start: int
    end: int


class Alignment:
    """Which line of `theirs` each line of `base` became, from the ordered list of changes."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.changes = tuple(changes)
        self._starts = [change.base_start for change in self.changes]
        self._ends = [change.base_end for change in self.changes]
        self._new_ends = [change.end for change in self.changes]

    def line(self, base: int) -> int | None:
        """Where an unchanged base line is now; None when it was changed or removed."""
        following = bisect_right(self._ends, base)
        if following < len(self.changes) and self.changes[following].base_start <= base:
            return None
        return base + self._shift(following)

    def origin(self, line: int) -> int | None:
        """The base line an unchanged line of theirs was; None for a new or changed one."""
        following = bisect_right(self._new_ends, line)
        if following < len(self.changes) and self.changes[following].start <= line:
            return None
        return line - self._shift(following)

    def touching(self, start: int, end: int) -> tuple[Change, ...]:
        """The changes that overlap or adjoin base lines [start, end)."""
        return self.changes[self._first(start) : self._last(end)]

    def region(self, start: int, end: int) -> Change:
        """The smallest aligned region that holds base lines [start, end), in both files.

        It is widened over every change that overlaps or adjoins it.
        """
        first, last = self._first(start), self._last(end)
        for change in self.changes[first:last]:
            start, end = min(start, change.base_start), max(end, change.base_end)
        return Change(start, end, start + self._shift(first), end + self._shift(last))

    def _first(self, start: int) -> int:
        return bisect_left(self._ends, start)

    def _last(self, end: int) -> int:
        return bisect_right(self._starts, end)

    def _shift(self, number: int) -> int:
        """How far lines behind the first `number` changes have moved."""
        if number == 0:
            return 0
        return self.changes[number - 1].end - self.changes[number - 1].base_end


_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
_INDEX = re.compile(rb"^index ([0-9a-f]+)\.\.([0-9a-f]+)", re.MULTILINE)
_DIFF = (
    "--no-ext-diff", "--no-textconv", "--text", "--histogram", "--no-indent-heuristic",
    "--unified=0", "--full-index",
)  # fmt: skip


Oids = tuple[str, str]
Alignments = Mapping[Oids, Alignment]


def align(store: Store, pairs: Iterable[Oids], *, ignore_space: bool = False) -> Alignments:
    """Align pairs of blobs by git's histogram diff, exact or blind to white space.

    The blind alignment is only ever a map; nothing is applied through it unseen.
    """
    found = {pair: Alignment(()) for pair in pairs}
    differing = [pair for pair in found if pair[0] != pair[1]]
    if not differing:
        return found
    options = ["--ignore-all-space"] if ignore_space else []
    # One run of git takes them all, as two trees that hold each pair under one name.
    old, new = (
        store.edit_tree(None, {f"{n}": TreeEntry("100644", oid) for n, oid in enumerate(side)})
        for side in zip(*differing, strict=True)
    )
    said = store.git("diff-tree", *_DIFF, *options, old, new)
    heads = list(_INDEX.finditer(said))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        end = following.start() if following else len(said)
        found[head[1].decode(), head[2].decode()] = Alignment(_changes(said[head.end() : end]))
    return found


def _changes(diff: bytes) -> list[Change]:
    changes: list[Change] = []
    for match in _HUNK.finditer(diff):
        old, old_count, new, new_count = (
            int(match[1]), int(match[2] or 1), int(match[3]), int(match[4] or 1),
        )  # fmt: skip
        start = old - 1 if old_count else old
        target = new - 1 if new_count else new
        changes.append(Change(start, start + old_count, target, target + new_count))
    return changes
