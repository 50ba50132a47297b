"""The rungs that blend text: token merge, indentation, both sides added, requirement lines.

They are asked where ours and upstream changed the same lines.  Each returns the new text of the
region or `None`; the landing check then counts every token and parses the result.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from merge3 import Merge3
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from portkit.carrying.ort import merge_file
from portkit.carrying.rungs import Group, Pair, indented, margin, shift_of
from portkit.model import Edit
from portkit.text.sides import Change, Lines, Text, split_lines, telling
from portkit.text.syntax import Language

# tokens

_WORD = re.compile(rb"(\s*)(\w+|[^\w\s])")
_LONGEST = 4000  # tokens of a region; beyond, an alignment of tokens is no evidence


@dataclass(frozen=True)
class _Word:
    """A token and the white space before it, which does not count when tokens are compared.

    In Python a line break outside brackets is a token of its own: there it has a meaning.
    """

    text: bytes
    space: bytes


def tokens(pair: Pair, group: Group) -> Edit | None:
    """Merge word by word, where ours and upstream changed different words of a line.

    Two merges that align differently (git's, with one token a line, and difflib's) must agree,
    and most of the old text must have survived upstream.
    """
    base, ours, theirs = group.sides(pair)
    merged = _merge(pair.theirs.language, base, ours, theirs)
    if merged is None or any(_several(_rated(pair, b, group.region)) for b in group.blocks):
        return None
    return Edit(group.region.start, group.region.end, merged)


def twin(pair: Pair, group: Group) -> Edit | None:
    """Merge the replaced lines word by word with the lines they became among much new code."""
    if len(group.blocks) != 1:
        return None
    block = group.blocks[0]
    old = pair.base.lines[block.start : block.end]
    rated = _rated(pair, block, group.region)
    if not rated or rated[0][0] < _ALIKE or _several(rated):
        return None
    start = rated[0][1]
    now = pair.theirs.lines[start : start + len(old)]
    merged = _merge(pair.theirs.language, old, block.lines, now)
    return None if merged is None else Edit(start, start + len(old), merged)


def _several(rated: Sequence[tuple[float, int]]) -> bool:
    """Whether the replaced lines could have become one of several places."""
    return len(rated) > 1 and rated[1][0] >= _ALIKE and rated[1][0] > 0.8 * rated[0][0]


def _rated(pair: Pair, block: Edit, region: Change) -> list[tuple[float, int]]:
    """How alike the replaced lines are to each place of their size in the region, best first."""
    old = pair.base.lines[block.start : block.end]
    size = len(old)
    if not any(map(telling, old)):
        return []
    places = range(region.start, region.end - size + 1)
    return sorted(
        ((_likeness(old, pair.theirs.lines[n : n + size]), n) for n in places), reverse=True
    )


_ALIKE = 0.6  # share of words, in order, that make two lines one line edited


def _likeness(one: Lines, other: Lines) -> float:
    mine, yours = ([m[2] for m in _WORD.finditer(b"".join(side))] for side in (one, other))
    matcher = SequenceMatcher(None, mine, yours, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0


def _merge(language: Language, base: Lines, ours: Lines, theirs: Lines) -> Lines | None:
    if language is Language.REQUIREMENTS:
        return None  # a line is known by its package, not by its words
    sides = [_words(b"".join(side), language) for side in (base, ours, theirs)]
    texts = [[word.text for word in side] for side in sides]
    if not texts[0] or not texts[2] or max(map(len, texts)) > _LONGEST:
        return None
    if not _survives(texts[0], texts[2]) or not _survives(texts[0], texts[1]):
        return None
    merged = _merge3(*sides)
    if merged is None or [word.text for word in merged] != _merge_git(texts):
        return None
    data = b"".join(word.space + word.text for word in merged)
    last = b"".join(theirs)
    return split_lines(data + last[len(last.rstrip()) :])


def _words(data: bytes, language: Language) -> list[_Word]:
    words: list[_Word] = []
    depth = 0
    for match in _WORD.finditer(data):
        space, text = match[1], match[2]
        if language is Language.PYTHON and depth == 0 and b"\n" in space:
            line_break = space.rindex(b"\n")
            words.append(_Word(space[line_break:], space[:line_break]))
            space = b""
        depth += (text in b"([{") - (text in b")]}")
        words.append(_Word(text, space))
    return words


def _merge3(base: list[_Word], ours: list[_Word], theirs: list[_Word]) -> list[_Word] | None:
    """The three-way merge of words; white space is upstream's where upstream changed it."""

    def texts(words: list[_Word]) -> list[bytes]:
        return [word.text for word in words]

    merged: list[_Word] = []
    z = a = b = 0
    synced = Merge3(texts(base), texts(ours), texts(theirs)).find_sync_regions()
    for z_start, z_end, a_start, a_end, b_start, b_end in synced:
        old, our, their = base[z:z_start], ours[a:a_start], theirs[b:b_start]
        if texts(our) in (texts(old), texts(their)):
            merged += their
        elif texts(their) == texts(old):
            merged += our
        else:
            return None
        for one, mine, yours in zip(
            base[z_start:z_end], ours[a_start:a_end], theirs[b_start:b_end], strict=True
        ):
            merged.append(mine if yours.space == one.space else yours)
        z, a, b = z_end, a_end, b_end
    return merged


def _merge_git(sides: list[list[bytes]]) -> list[bytes] | None:
    """The same merge by git, with one token a line."""
    base, ours, theirs = (
        b"".join(word.hex().encode() + b"\n" for word in words) for words in sides
    )
    merged = merge_file(base, ours, theirs)
    return None if merged is None else [bytes.fromhex(line.decode()) for line in merged.split()]


def _survives(base: list[bytes], side: list[bytes]) -> bool:
    words, left = Counter(word for word in base if word.strip()), Counter(side)
    return sum((words & left).values()) >= 0.5 * sum(words.values())


# indentation


def indentation(pair: Pair, block: Edit) -> Edit | None:
    """Upstream only re-indented the lines around: indent ours the same way."""
    if pair.theirs.language in (Language.TEXT, Language.REQUIREMENTS):
        return None
    start, end = block.start, block.end
    if pair.spaceless.touching(start, end):
        return None
    region = pair.spaceless.region(start, end)
    shifts = {
        shift
        for number in range(max(0, start - 3), min(len(pair.base.lines), end + 3))
        if telling(pair.base.lines[number])
        and (place := pair.spaceless.line(number)) is not None
        and (shift := shift_of(pair.base.lines[number], pair.theirs.lines[place])) is not None
    }
    if len(shifts) != 1:
        return None
    old, new = shifts.pop()
    lines = indented(block.lines, old, new)
    return None if lines is None else Edit(region.start, region.end, lines)


# both sides added


def union(pair: Pair, group: Group) -> Edit | None:
    """Both added lines at one spot where order has no meaning: keep both, upstream's first."""
    region = group.region
    if region.base_start != region.base_end or any(b.start != b.end for b in group.blocks):
        return None
    _, ours, theirs = group.sides(pair)
    if not _unordered(pair.theirs, region.start, region.end, ours, theirs):
        return None
    return Edit(region.end, region.end, ours)


def _unordered(text: Text, start: int, end: int, ours: Lines, theirs: Lines) -> bool:
    if text.language is Language.PYTHON:
        both = (ours, theirs)
        return (
            all(map(_imports, both))
            or all(map(_definitions, both))
            or (all(map(_items, both)) and _in_display(text, start, end))
        )
    if text.language is Language.CUDA:
        return all(re.match(rb"\s*(#\s*include\b.*)?$", line) for line in (*ours, *theirs))
    if text.language is Language.CMAKE:
        return all(re.match(rb'\s+"?[\w./${}-]+"?\s*$', line) for line in (*ours, *theirs))
    return False


def _statements(lines: Lines) -> list[ast.stmt] | None:
    outer = min((margin(line) for line in lines if line.strip()), key=len, default=b"")
    if not all(line.startswith(outer) for line in lines if line.strip()):
        return None
    try:
        return ast.parse(b"".join(line[len(outer) :] or b"\n" for line in lines)).body
    except (SyntaxError, ValueError):
        return None


def _imports(lines: Lines) -> bool:
    body = _statements(lines)
    return bool(body) and all(isinstance(s, ast.Import | ast.ImportFrom) for s in body or ())


def _definitions(lines: Lines) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    body = _statements(lines)
    return bool(body) and all(isinstance(s, kinds) for s in body or ())


def _items(lines: Lines) -> bool:
    return all(line.rstrip().endswith(b",") for line in lines)


def _in_display(text: Text, start: int, end: int) -> bool:
    """Whether the lines are items of one list, set, dictionary or parenthesised import."""
    kinds = ast.List | ast.Set | ast.Dict | ast.ImportFrom
    try:
        nodes = list(ast.walk(ast.parse(text.data)))
    except (SyntaxError, ValueError):
        return False
    return any(
        isinstance(n, kinds) and n.lineno <= start and end < (n.end_lineno or 0) for n in nodes
    )


# requirement lines


def requirement(pair: Pair, group: Group) -> Edit | None:
    """A pinned version upstream moves and a marker of ours on one line never conflict.

    Lines are matched by package name; each field (version, extras, marker, comment) is merged
    on its own.
    """
    if pair.theirs.language is not Language.REQUIREMENTS or len(group.blocks) != 1:
        return None
    block = group.blocks[0]
    olds = pair.base.lines[block.start : block.end]
    names = [_name(line) for line in olds]
    if None in names or names != [_name(line) for line in block.lines]:
        return None
    places = [[n for n, line in enumerate(pair.theirs.lines) if _name(line) == name]
              for name in names]  # fmt: skip
    if any(len(found) != 1 for found in places):
        return None
    start = places[0][0]
    if [found[0] for found in places] != list(range(start, start + len(names))):
        return None
    merged: list[bytes] = []
    for old, our, their in zip(olds, block.lines, pair.theirs.lines[start:], strict=False):
        line = _merge_requirement(old, our, their)
        if line is None:
            return None
        merged.append(line)
    return Edit(start, start + len(names), tuple(merged))


def _name(line: bytes) -> str | None:
    parsed = _fields(line)
    return canonicalize_name(parsed[0].name) if parsed else None


def _fields(line: bytes) -> tuple[Requirement, str] | None:
    text, hash_mark, comment = line.decode("utf-8", "surrogateescape").partition(" #")
    try:
        return Requirement(text.strip()), hash_mark + comment.rstrip("\r\n")
    except InvalidRequirement:
        return None


def _merge_requirement(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Theirs with our marker, where ours changed nothing else."""
    sides = [_fields(line) for line in (base, ours, theirs)]
    if any(side is None for side in sides):
        return None
    (old, _), (our, _), (their, comment) = (side for side in sides if side)
    same = (str(old.specifier), old.extras, old.url) == (str(our.specifier), our.extras, our.url)
    if not same or str(old.marker) != str(their.marker) or our.marker is None:
        return None
    ending = theirs[len(theirs.rstrip(b"\r\n")) :]
    text = theirs.decode("utf-8", "surrogateescape").partition(" #")[0].partition(";")[0].rstrip()
    marker = ours.decode("utf-8", "surrogateescape").partition(" #")[0].partition(";")
    gap = " " if marker[0].endswith(" ") else ""
    space = marker[2][: len(marker[2]) - len(marker[2].lstrip())]
    line = f"{text}{gap};{space}{marker[2].strip()}{comment}"
    return line.encode("utf-8", "surrogateescape") + ending


def trimmed(theirs: Sequence[bytes], edit: Edit) -> Edit:
    """The edit without the lines at its ends that change nothing."""
    old, new = theirs[edit.start : edit.end], edit.lines
    head = _common(old, new)
    tail = _common(reversed(old[head:]), reversed(new[head:]))
    return Edit(edit.start + head, edit.end - tail, tuple(new[head : len(new) - tail]))


def _common(one: Iterable[bytes], other: Iterable[bytes]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
