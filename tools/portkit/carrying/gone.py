"""Drops that are right: what a patch cured is gone, or upstream now does it.

Evidence is content on both sides, never a reverse application alone (measured: that gives false
positives).  A drop is proposed, a person confirms it.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from portkit.carrying.decision import Dropped, Why
from portkit.carrying.finder import Finder, searchable
from portkit.carrying.rungs import Group, Pair
from portkit.model import Hunk
from portkit.text.sides import Lines, Text, telling
from portkit.text.syntax import Language

_WORD = re.compile(rb"\w+|[^\w\s]")
_IDENTIFIER = re.compile(rb"[A-Za-z_]\w{2,}")


def target(base: Text, hunk: Hunk, finder: Finder) -> Dropped | None:
    """The file is gone, and what the hunk stands on went with it."""
    wanted = _standing(hunk)
    if not lost(hunk, finder):
        return None
    said = "; ".join(f"`{line.decode('utf-8', 'replace')}`" for line in wanted[:2])
    return Dropped(
        Why.TARGET_GONE,
        f"{base.path} is not in {finder.tag}, and no other file there took over {said}",
    )


def lost(hunk: Hunk, finder: Finder) -> bool:
    """Whether the lines a hunk stands on were deleted, not moved."""
    wanted = _standing(hunk)
    return bool(wanted) and all(map(finder.lost, wanted))


def _standing(hunk: Hunk) -> list[bytes]:
    """The most telling lines a hunk needs: those it removes, or its context."""
    removed = [line[1:] for line in hunk.lines if line[:1] == b"-"]
    return (searchable(removed) or searchable(hunk.before))[:4]


def upstreamed(pair: Pair, group: Group) -> Dropped:
    """Upstream made the same change: the aligned region is now exactly ours."""
    region = group.region
    return Dropped(
        Why.UPSTREAMED,
        f"{pair.theirs.path}:{region.start + 1}-{region.end} is now what the patch made of "
        f"lines {region.base_start + 1}-{region.base_end}",
    )


def upstreamed_elsewhere(pair: Pair, group: Group) -> Dropped | None:
    """The new lines stand in the same scope now, and the old ones stand nowhere in the file."""
    olds = [pair.base.lines[block.start : block.end] for block in group.blocks]
    for block, old in zip(group.blocks, olds, strict=True):
        if sum(map(telling, block.lines)) == 0 or pair.base.find(block.lines):
            return None
        places = pair.theirs.find(block.lines)
        if len(places) != 1 or (old and pair.theirs.find(old)):
            return None
        was = [s.name for s in pair.base.outline.chain(block.start, block.end)]
        end = places[0] + len(block.lines)
        now = [s.name for s in pair.theirs.outline.chain(places[0], end)]
        if was != now or (not old and not was):
            return None
    return Dropped(Why.UPSTREAMED, f"{pair.theirs.path} has the patch's own lines in place")


def cured_upstream(pair: Pair, group: Group) -> Dropped | None:
    """Upstream cured it its own way: what ours takes out is gone, what ours puts in is there."""
    base, ours, theirs = (set(_IDENTIFIER.findall(b"".join(s))) for s in group.sides(pair))
    out, put = base - ours, ours - base
    if not out or not put or not put <= theirs or out & theirs or not base & theirs - out:
        return None
    if out & set(_IDENTIFIER.findall(pair.theirs.data)):
        return None
    region = group.region
    return Dropped(
        Why.UPSTREAMED,
        f"{pair.theirs.path}:{region.start + 1}-{region.end} has {_name(put)} in place of "
        f"{_name(out)}, as the patch does",
    )


def _name(tokens: set[bytes]) -> str:
    return ", ".join(f"`{token.decode('utf-8', 'replace')}`" for token in sorted(tokens)[:4])


def construct(pair: Pair, group: Group, finder: Finder) -> Dropped | None:
    """What the patch cures was deleted from the file, and did not move elsewhere.

    Each telling line that it replaces named something the new file no longer names, and upstream
    deleted those lines instead of editing them (a rename would have left the rest).  An insertion
    replaces nothing: there, half of the lines that upstream deleted around it must be such.
    """
    base, _, theirs = group.sides(pair)
    replaced = _replaced(pair, group)
    around = set(replaced or [line for line in base if telling(line)])
    left = set(_IDENTIFIER.findall(pair.theirs.data))
    lost = {line: names for line in around if (names := set(_IDENTIFIER.findall(line)) - left)}
    needed = len(around) if replaced else (len(around) + 1) // 2
    if not lost or len(lost) < needed:
        return None
    if moved_to(pair, group, finder) or _replaced_in(pair, group, finder):
        return None
    if any(_survives(line, theirs) for line in lost):
        return None
    said = _name(set().union(*lost.values()))
    return Dropped(Why.CONSTRUCT_GONE, f"{said} no longer occurs in {pair.theirs.path}")


def _replaced(pair: Pair, group: Group) -> list[bytes]:
    """The telling lines that the group's blocks replace."""
    spans = (pair.base.lines[block.start : block.end] for block in group.blocks)
    return [line for span in spans for line in span if telling(line)]


def _replaced_in(pair: Pair, group: Group, finder: Finder) -> tuple[str, ...]:
    """The other files to which upstream moved what the group replaces.

    An import alone moves nowhere: the lines that used it tell where its code went.
    """
    for line in _replaced(pair, group):
        if line in pair.theirs.counts:
            continue
        needles = _uses(pair.base, line) if _IMPORT.match(line) else [line.strip()]
        homes = dict.fromkeys(path for needle in needles for path in finder.gained(needle))
        homes.pop(pair.theirs.path, None)
        if homes:
            return tuple(homes)
    return ()


_IMPORT = re.compile(rb"\s*(import|from)\s")


def _uses(base: Text, imported: bytes) -> list[bytes]:
    """The other lines of a file that use what a line imports."""
    names = _IDENTIFIER.findall(imported.partition(b"import")[2])
    found = (line.strip() for line in base.lines if line != imported and not _IMPORT.match(line))
    return [line for line in found if any(re.search(rb"\b%s\b" % name, line) for name in names)]


def only_serves(hunk: Hunk, language: Language) -> bool:
    """Whether a hunk only changes imports or includes: it serves the patch's other hunks."""
    pattern = _SERVING.get(language)
    changed = [line for line in hunk.lines if line[:1] != b" " and line[1:].strip()]
    return pattern is not None and all(pattern.match(line) for line in changed)


_SERVING = {
    Language.PYTHON: re.compile(rb"[+-](import|from)\s"),
    Language.CUDA: re.compile(rb"[+-]\s*#\s*include\b"),
}


def _survives(line: bytes, theirs: Lines) -> bool:
    """Whether one of `theirs` is an edited `line`: it keeps half of its words, in order."""
    words = _WORD.findall(line)
    return any(
        SequenceMatcher(None, words, _WORD.findall(other), autojunk=False).ratio() > 0.5
        for other in theirs
        if telling(other)
    )


def moved_to(pair: Pair, group: Group, finder: Finder) -> tuple[str, ...]:
    """The other files that now hold the function the group stood in."""
    chain = pair.base.outline.chain(group.blocks[0].start, group.blocks[-1].end)
    if not chain or any(s.name == chain[-1].name for s in pair.theirs.outline.scopes):
        return ()
    before = chain[-1].name.encode("utf-8", "surrogateescape")
    return tuple(path for path in finder.containing(before) if path != pair.theirs.path)


def explain(pair: Pair, group: Group, finder: Finder) -> str:
    """Why no rung was certain, as a person would say it."""
    base, ours, theirs = group.sides(pair)
    homes = moved_to(pair, group, finder)
    chain = pair.base.outline.chain(group.blocks[0].start, group.blocks[-1].end)
    if homes:
        return f"{chain[-1].name} is no longer in this file; see {', '.join(homes[:3])}"
    homes = _replaced_in(pair, group, finder)
    if homes:
        line = _replaced(pair, group)[0].strip().decode("utf-8", "replace")
        return f"the code of `{line}` is in {', '.join(homes[:3])} now"
    if not theirs:
        return "upstream deleted these lines"
    if not base or base == ours:
        return "upstream added lines at the very spot where the patch adds its own"
    return "upstream rewrote the lines that the patch changes"


def explain_missing(base: Text, hunk: Hunk, finder: Finder) -> str:
    """Why a hunk without a file could neither be placed nor dropped."""
    for line in searchable(hunk.before):
        paths = finder.containing(line)
        if paths:
            return (
                f"{base.path} is not in {finder.tag}; some of its lines are now in "
                f"{', '.join(paths[:3])}"
            )
    return f"{base.path} is not in {finder.tag}, and the hunk has no line to search for"
