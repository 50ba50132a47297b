"""The landing check: is a change in the new file where it was in the old one?

Three-way merges follow the text, and text lies: a lookalike inserted above the patched function
takes the change and every tool exits 0.  So each landing but a trivial one must show independent
witnesses: the same function or scope, the same branch of the preprocessor, the same neighbours,
one possible place between lines that are unique in both versions, and each token accounted for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum

from portkit.model import Edit
from portkit.sides import Alignment, Lines, Text, telling
from portkit.syntax import Language, Scope, without_prose

_TOKEN = re.compile(rb"\w+|[^\w\s]")


@dataclass(frozen=True)
class Finding:
    """The verdict of a check: whether it holds, and the sentence that goes into the report."""

    holds: bool
    text: str


class Neighbours(Enum):
    """What a landing's neighbours must show."""

    EXPLAINED = "the same, or another line that upstream's changes explain"
    STRICT = "the same: for code that moved, nothing explains another one"
    ANY = "nothing: the place is known by name, as a requirement line's"


def _no(text: str) -> Finding:
    return Finding(False, text)


def check(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    blocks: Sequence[Edit],
    edits: Sequence[Edit],
    *,
    neighbours: Neighbours = Neighbours.EXPLAINED,
    wrapped: bool = False,
) -> Finding:
    """Judge a landing.

    `blocks` are ours on `base`, `edits` the same change on `theirs`; `alignment` is None where
    the file is another one.  `wrapped` says that upstream indented the lines deeper, so that they
    may stand in more conditionals than they did.
    """
    old = (blocks[0].start, blocks[-1].end)
    new = (edits[0].start, edits[-1].end)
    scope = _under_the_same_header(base, theirs, blocks, edits) or same_scope(
        base, theirs, old, new
    )
    if not scope.holds:
        return scope
    branch = _same_branch(base, theirs, old, new, wrapped=wrapped)
    if not branch.holds:
        return branch
    parent = _same_parent(base, theirs, old, new)
    if not parent.holds:
        return parent
    tokens = _accounted(base, theirs, blocks, edits)
    if not tokens.holds:
        return tokens
    if neighbours is Neighbours.ANY:
        return scope
    beside = _neighbours(base, theirs, alignment, old, new, strict=neighbours is Neighbours.STRICT)
    return Finding(True, f"{scope.text}; {beside.text}") if beside.holds else beside


# scope


def _under_the_same_header(
    base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]
) -> Finding | None:
    """A quick proof of the same scope, by the margins of the lines above.

    None is no proof, not a refusal: then the files are parsed.
    """
    if base.language is Language.PYTHON:
        return _under_the_same_definitions(base, theirs, blocks, edits)
    was, now = _headers(base.lines, blocks), _headers(theirs.lines, edits)
    if was is None or was != now:
        return None
    if not was:
        outside = _in_no_block(base, blocks) and _in_no_block(theirs, edits)
        return Finding(True, "at file level") if outside else None
    # That line (the head of a function, say) must be unique in both files.
    outermost = was[-1]
    if base.counts[outermost] != 1 or theirs.counts[outermost] != 1:
        return None
    return Finding(True, f"in {_shorten(outermost)}")


def _headers(lines: Lines, edits: Sequence[Edit]) -> list[bytes] | None:
    """The lines above `edits` with ever smaller margins, the nearest first, down to none at all.

    None where there is no line without a margin above them.
    """
    depth = _margin(lines, edits)
    found: list[bytes] = []
    for line in reversed(lines[: edits[0].start]):
        if depth == 0:
            break
        if _outdented(line, depth) and not line.lstrip().startswith(_ASIDE):
            found.append(line)
            depth = _depth(line)
    return found if depth == 0 else None


def _margin(lines: Lines, edits: Sequence[Edit]) -> int:
    """The smallest margin of the lines of `edits`, old and new."""
    inner = [line for e in edits for line in (*lines[e.start : e.end], *e.lines) if line.strip()]
    return min((_depth(line) for line in inner if not line.startswith(b"#")), default=0)


def _in_no_block(text: Text, edits: Sequence[Edit]) -> bool:
    """Whether all blocks that open above the end of `edits` are closed there."""
    above = text.lines[: edits[-1].end]
    if text.language is not Language.CUDA:
        return _in_preamble(above)
    depth, outside = 0, []  # the depth at each conditional; every branch of it must be balanced
    for mark in _MARK.findall(without_prose(b"".join(above), text.language)):
        if mark in b"{}":
            depth += 1 if mark == b"{" else -1
        elif mark.endswith(b"if"):
            outside.append(depth)
        elif not outside or depth != outside[-1]:
            return False
        elif mark.endswith(b"end"):
            outside.pop()
    return depth == 0


_MARK = re.compile(rb"[{}]|^[ \t]*#[ \t]*(?:if|el|end)", re.MULTILINE)


def _in_preamble(above: Lines) -> bool:
    """Whether there are only directives and comments."""
    return all(not line.strip() or line.lstrip().startswith(_ASIDE) for line in above)


def _under_the_same_definitions(
    base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]
) -> Finding | None:
    """The quick proof for Python, where margins say all: one function or class of that name."""
    was = _definitions(base.lines, blocks[0].start, _margin(base.lines, blocks))
    now = _definitions(theirs.lines, edits[0].start, _margin(theirs.lines, edits))
    if was is None or was != now:
        return None
    if not was:
        return Finding(True, "at file level")
    if not (_only_one(base, was) and _only_one(theirs, now)):
        return None
    return Finding(True, f"in {' › '.join(name.decode() for _, name in reversed(was))}")


_Definition = tuple[bytes, bytes]  # `def` or `class`, and the name


def _definitions(lines: Lines, start: int, depth: int) -> list[_Definition] | None:
    """The functions and classes around a line of margin `depth`, the innermost first.

    None where there is no line without a margin above it.
    """
    found: list[_Definition] = []
    for line in reversed(lines[:start]):
        if depth == 0:
            break
        # What closes a bracket ends a statement that began with a line at that margin.
        if _outdented(line, depth) and not line.lstrip().startswith(_CLOSING):
            depth = _depth(line)
            if match := _DEFINES.match(line):
                found.append((match[1], match[2]))
    return found if depth == 0 else None


_CLOSING = (b"#", b")", b"]", b"}")
_DEFINES = re.compile(rb"[ \t]*(?:async[ ]+)?(def|class)[ ]+(\w+)")


def _only_one(text: Text, chain: list[_Definition]) -> bool:
    """Whether a file has one function or class of this name in those of the outer names."""
    kind, name = chain[0]
    if text.data.count(b"%s %s" % (kind, name)) == 1:
        return True
    lines = text.lines
    return (
        sum(
            [(kind, name), *(_definitions(lines, number, _depth(line)) or ())] == chain
            for number, line in enumerate(lines)
            if name in line and (match := _DEFINES.match(line)) and match.groups() == (kind, name)
        )
        == 1
    )


def _shorten(line: bytes) -> str:
    text = " ".join(line.decode("utf-8", "replace").split()).rstrip(":{ ")
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


def same_scope(base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int]) -> Finding:
    """Whether lines `new` of theirs stand in the function or class that lines `old` stood in."""
    was, now = base.outline.chain(*old), theirs.outline.chain(*new)
    if len(was) != len(now):
        return _no(f"scope differs: {_spell(was)} before, {_spell(now)} now")
    if not was:
        return Finding(True, "at file level")
    if [(s.kind, s.name) for s in was] == [(s.kind, s.name) for s in now]:
        return _among_namesakes(base, theirs, was, now)
    return _renamed(base, theirs, was, now)


def _among_namesakes(
    base: Text, theirs: Text, was: tuple[Scope, ...], now: tuple[Scope, ...]
) -> Finding:
    """Same names: right if there is no other scope of that name it could have been."""
    scope, landed = was[-1], now[-1]
    olds = _namesakes(base, was)
    news = _namesakes(theirs, now)
    if len(olds) == len(news) == 1:
        return Finding(True, f"in {_spell(now)}")
    if scope.signature == landed.signature:
        if sum(s.signature == scope.signature for s in news) == 1:
            return Finding(True, f"in {_spell(now)}, told from its namesakes by signature")
        if len(olds) == len(news) and olds.index(scope) == news.index(landed):
            return Finding(True, f"in {_spell(now)}, the same one of {len(news)} alike")
    elif not any(s.signature == scope.signature for s in news) and (
        len(olds) == len(news) and olds.index(scope) == news.index(landed)
    ):
        return Finding(True, f"in {_spell(now)}, the same one of {len(news)} overloads")
    return _most_alike(base, theirs, scope, landed, news)


def _namesakes(text: Text, chain: tuple[Scope, ...]) -> list[Scope]:
    names = [(s.kind, s.name) for s in chain]
    return [
        s
        for s in text.outline.scopes
        if (s.kind, s.name) == names[-1]
        and [(o.kind, o.name) for o in _parents(text, s)] == names[:-1]
    ]


def _parents(text: Text, scope: Scope) -> list[Scope]:
    return [
        s
        for s in text.outline.scopes
        if s != scope and s.start <= scope.start and scope.end <= s.end
    ]


def _renamed(base: Text, theirs: Text, was: tuple[Scope, ...], now: tuple[Scope, ...]) -> Finding:
    """Other names: right only if the old name is gone, the new one new, and the body alike."""
    for old, new in zip(was, now, strict=True):
        if (old.kind, old.name) == (new.kind, new.name):
            continue
        if old.kind != new.kind and {old.kind, new.kind} != {"class", "struct"}:
            return _no(f"scope differs: {_spell(was)} before, {_spell(now)} now")
        if any((s.kind, s.name) == (old.kind, old.name) for s in theirs.outline.scopes):
            return _no(f"lands in {new.name}, but {old.name} still exists")
        if any((s.kind, s.name) == (new.kind, new.name) for s in base.outline.scopes):
            return _no(f"lands in {new.name}, which existed beside {old.name} before")
        rivals = [s for s in theirs.outline.scopes if s.kind == new.kind]
        alike = _most_alike(base, theirs, old, new, rivals)
        if not alike.holds:
            return alike
    return Finding(True, f"in {_spell(now)}, renamed from {_spell(was)}")


def _most_alike(
    base: Text, theirs: Text, old: Scope, landed: Scope, rivals: Iterable[Scope]
) -> Finding:
    """Whether `landed` continues `old`: it shares half its lines, and no rival comes near."""

    def shared(scope: Scope) -> float:
        now = Counter(line for line in theirs.lines[scope.start : scope.end] if telling(line))
        both = sum((body & now).values())
        return both / max(1, sum(body.values()))

    body = Counter(line for line in base.lines[old.start : old.end] if telling(line))
    mine = shared(landed)
    best = max((shared(s) for s in rivals if s != landed), default=0.0)
    if mine >= 0.5 and best <= 0.6 * mine:
        return Finding(True, f"in {landed.name}, which keeps {mine:.0%} of {old.name}")
    return _no(f"cannot tell which {landed.kind} continues {old.name}")


def _spell(chain: tuple[Scope, ...]) -> str:
    return " › ".join(scope.name for scope in chain) or "file level"


# branch


def _same_branch(
    base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int], *, wrapped: bool
) -> Finding:
    was, now = base.outline.branch(*old), theirs.outline.branch(*new)
    if len(was) == len(now) and all(map(_alike, was, now)):
        return Finding(True, "")
    if wrapped:
        rest = iter(now)
        if all(any(_alike(one, other) for other in rest) for one in was):
            return Finding(True, "")
    return _no(
        f"conditional differs: {' › '.join(was) or 'none'} before, {' › '.join(now) or 'none'} now"
    )


def _alike(one: str, other: str) -> bool:
    """Whether a conditional is the same one: equal, widened (`A` to `A OR B`), or edited a bit."""
    if one == other:
        return True
    if one.split(" ", 1)[0] != other.split(" ", 1)[0]:
        return False
    if one.rstrip(")") in other:
        return True
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= 0.7


# tokens


def _accounted(base: Text, theirs: Text, blocks: Sequence[Edit], edits: Sequence[Edit]) -> Finding:
    """Whether theirs gains and loses the very tokens that base gained and lost."""
    meant, made = _balance(base.lines, blocks), _balance(theirs.lines, edits)
    if meant == made:
        return Finding(True, "")
    astray = next(iter((made - meant) + (meant - made) or (meant.keys() ^ made.keys())), b"")
    return _no(f"token {astray.decode('utf-8', 'replace')!r} is not accounted for")


def _balance(lines: Lines, edits: Sequence[Edit]) -> Counter[bytes]:
    count: Counter[bytes] = Counter()
    for edit in edits:
        count.update(_TOKEN.findall(b"".join(edit.lines)))
        count.subtract(_TOKEN.findall(b"".join(lines[edit.start : edit.end])))
    return Counter({token: number for token, number in count.items() if number})


# neighbours


def _neighbours(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    strict: bool,
) -> Finding:
    above = _compare(base, theirs, alignment, old[0], new[0], step=-1)
    below = _compare(base, theirs, alignment, old[1], new[1], step=1)
    removed = base.lines[old[0] : old[1]]
    kept = removed == theirs.lines[new[0] : new[1]] and any(map(telling, removed))
    equal = [above, below].count("equal")
    if strict:
        if equal == 2 or (equal == 1 and kept):
            return Finding(True, "same neighbours" if equal == 2 else "one neighbour is the same")
        return _no("its neighbours are not the ones it had")
    if "other" in (above, below):
        return _no("a neighbour is another line, and no change of upstream explains it")
    if equal == 2:
        return Finding(True, "same neighbours")
    if equal == 1:
        side = "below" if above == "equal" else "above"
        return Finding(True, f"upstream changed the line {side} it")
    if kept:
        return Finding(True, "upstream changed both neighbours, the replaced lines are the same")
    return _no("upstream changed the lines on both sides of it")


def _compare(
    base: Text,
    theirs: Text,
    alignment: Alignment | None,
    old: int,
    new: int,
    *,
    step: int,
) -> str:
    """Compare the nearest telling neighbour on one side: `equal`, `changed` (by upstream), `other`.

    `old` and `new` are gaps; `step` -1 looks above, 1 below.
    """
    was, now = _nearest(base.lines, old, step), _nearest(theirs.lines, new, step)
    if was is None or now is None:
        return "equal" if was is now else "changed"
    if base.lines[was].strip() == theirs.lines[now].strip():
        return "equal"
    if alignment is None:
        return "changed"
    place = alignment.line(was)
    if place is None:
        return "changed"
    # The old neighbour still stands on this side, upstream added lines between.
    return "changed" if (place < new if step < 0 else place >= new) else "other"


def _nearest(lines: Lines, gap: int, step: int) -> int | None:
    number = gap - 1 if step < 0 else gap
    while 0 <= number < len(lines):
        if telling(lines[number]):
            return number
        number += step
    return None


# parent


def _same_parent(base: Text, theirs: Text, old: tuple[int, int], new: tuple[int, int]) -> Finding:
    """Whether the lines stand under the line they stood under: a `case`, an `elif`, a `with`.

    Upstream may have edited that line or put a new one between; but when both lines stood in the
    old file and both still do, the lines are under the wrong one.
    """
    was, now = _parent(base.lines, *old), _parent(theirs.lines, *new)
    if was is None or now is None or _bare(was) == _bare(now):
        return Finding(True, "")
    if _bare(was) in map(_bare, theirs.lines) and _bare(now) in map(_bare, base.lines):
        return _no(f"it would stand under {_show(now)}, and {_show(was)} is elsewhere")
    return Finding(True, "")


def _bare(line: bytes) -> bytes:
    """A line without margin and `else`: `elif x:` and `} else if (x) {` are conditions as well."""
    return re.sub(rb"^(\}\s*)?el(se\s+)?if\b", b"if", line.strip())


def _parent(lines: Lines, start: int, end: int) -> bytes | None:
    """The nearest telling line above with a smaller margin than the lines [start, end)."""
    inner = [line for line in lines[start : max(end, start + 1)] if line.strip()]
    depth = min((_depth(line) for line in inner), default=0)
    for line in reversed(lines[:start]):
        if _outdented(line, depth) and not line.lstrip().startswith(_ASIDE):
            return line
    return None


# Comments and directives stand at any margin.
_ASIDE = (b"#", b"//", b"/*", b"*")


def _depth(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" \t"))


def _outdented(line: bytes, depth: int) -> bool:
    """Whether a telling line has a smaller margin than `depth`."""
    return not line[:depth].isspace() and telling(line) and _depth(line) < depth


def _show(line: bytes) -> str:
    return f"`{line.strip().decode('utf-8', 'replace')}`"


# place


def only_place(base: Text, theirs: Text, block: Edit, edit: Edit) -> Finding:
    """Whether a landing is the only one possible in its function.

    It is looked at between the nearest lines that are unique in both functions; none of them may
    have changed sides.  The place of a block is its removed lines, or for an insertion the lines
    on both sides.
    """
    # Most often the place is the only one in the whole file: no need to parse for functions.
    found = _only_between(base, theirs, block, edit, (_all(base), _all(theirs)))
    if found.holds and (found == _ONLY or _spot(base, block) == _spot(theirs, edit)):
        return found
    return _only_between(base, theirs, block, edit, (_span(base, block), _span(theirs, edit)))


_ONLY = Finding(True, "the only place")


def _only_between(
    base: Text,
    theirs: Text,
    block: Edit,
    edit: Edit,
    spans: tuple[tuple[int, int], tuple[int, int]],
) -> Finding:
    old, new = spans
    low, high = _anchors(base, theirs, block, old, new)
    back_low, back_high = _anchors(theirs, base, edit, new, old)
    if (low and low[1] >= edit.start) or (back_low and back_low[1] >= block.start):
        return _no("a line that stood on one side of it stands on the other")
    if (high and high[1] < edit.end) or (back_high and back_high[1] < block.end):
        return _no("a line that stood on one side of it stands on the other")
    olds = _places(base, block, low[0] if low else old[0], high[0] if high else old[1])
    news = _places(theirs, edit, low[1] if low else new[0], high[1] if high else new[1])
    if len(olds) == len(news) and olds.index(block.start) == news.index(edit.start):
        return _ONLY if len(news) == 1 else Finding(True, f"one of {len(news)} places")
    return _no(f"{len(news)} places look alike, there were {len(olds)}")


def as_many_places(base: Text, theirs: Text, block: Edit, edit: Edit) -> bool:
    """Whether the whole file has as many places for a moved block as the old one had."""
    return len(_places(base, block, *_all(base))) == len(_places(theirs, edit, *_all(theirs)))


def _all(text: Text) -> tuple[int, int]:
    return 0, len(text.lines)


def _span(text: Text, edit: Edit) -> tuple[int, int]:
    """The lines of the innermost scope around `edit`, or of the whole file."""
    chain = text.outline.chain(edit.start, edit.end)
    return (chain[-1].start, chain[-1].end) if chain else (0, len(text.lines))


def _anchors(
    here: Text, there: Text, edit: Edit, span: tuple[int, int], other: tuple[int, int]
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The nearest lines around `edit` that are unique in both texts, with their place in each."""

    def unique(numbers: Iterable[int]) -> tuple[int, int] | None:
        for number in numbers:
            line = here.lines[number]
            if telling(line) and here.counts[line] == 1 and there.counts[line] == 1:
                place = there.where(line)[0]
                if other[0] <= place < other[1]:
                    return number, place
        return None

    return unique(range(edit.start - 1, span[0] - 1, -1)), unique(range(edit.end, span[1]))


def _places(text: Text, edit: Edit, low: int, high: int) -> list[int]:
    """The lines between two anchors at which `edit` could be made, `edit.start` among them."""
    start, end = max(low, 0), min(high + 1, len(text.lines))
    removed = text.lines[edit.start : edit.end]
    if removed:
        return [n for n in text.find(removed) if start <= n <= end - len(removed)]
    above, below = _spot(text, edit)
    if above is None or below is None:
        return [edit.start]
    gaps = (place + 1 for place in text.where(above))
    return [n for n in gaps if start <= n <= end and text.lines[n : n + 1] == (below,)]


def _spot(text: Text, edit: Edit) -> tuple[bytes | None, ...]:
    """What marks the place of an edit: its removed lines, or the lines on both sides."""
    lines = text.lines
    if edit.start < edit.end:
        return lines[edit.start : edit.end]
    return (
        lines[edit.start - 1] if edit.start else None,
        lines[edit.start] if edit.start < len(lines) else None,
    )
