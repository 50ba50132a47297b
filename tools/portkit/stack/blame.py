"""Which patch made each line of a file, and which patch needs which.

Two patches of one file depend on each other by lines: what one removes or leans on, the other
made.  Patches of different files depend by names: one changes how a function, type or variable is
defined, the other changes lines that use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from portkit.errors import BadInput
from portkit.model import FileChange, Patch
from portkit.patches.apply import apply_change, split_lines
from portkit.patches.diffparse import start_of_diff
from portkit.text.syntax import Language, language_of


@dataclass(frozen=True)
class Origin:
    """Where a line comes from: the patch that made it, or the 0-based line of upstream's file.

    `added` says which hunk of the patch has it, and where in its lines (0-based); `cut` is the
    patch that removed what stood just above.
    """

    patch: str | None
    line: int | None
    added: tuple[int, int] = (-1, -1)
    cut: str | None = None


@dataclass(frozen=True)
class Annotated:
    """A patched file: its lines, where each is from, and the patches that change it, in order."""

    path: str
    lines: tuple[bytes, ...]
    origins: tuple[Origin, ...]
    patches: tuple[Patch, ...]


def history(patches: Iterable[Patch], path: str) -> tuple[str | None, tuple[Patch, ...]]:
    """The upstream path of what is `path` when all `patches` are applied, and those that touch it.

    The path is None for a file that a patch makes.
    """
    found: list[Patch] = []
    name: str | None = path
    for patch in reversed([*patches]):
        if name is not None and patch.change.path == name:
            found.append(patch)
            name = patch.change.old_path
    return name, tuple(reversed(found))


def annotate(path: str, pristine: bytes | None, patches: Sequence[Patch]) -> Annotated:
    """The file `path` after `patches`, which all change it; `pristine` is what upstream has.

    Raises `DoesNotApply` as applying them does, and `BadInput` when they delete the file.
    """
    data = pristine
    origins = [Origin(None, number) for number in range(len(split_lines(pristine or b"")))]
    for patch in patches:
        data = apply_change(patch.change, data)
        origins, _ = _after(origins, patch)
    if data is None:
        deleted = f"{patches[-1].name} deletes {path}" if patches else f"there is no file {path}"
        raise BadInput(deleted, hint="tools/series.py files lists what the series changes")
    return Annotated(path, tuple(split_lines(data)), tuple(origins), tuple(patches))


def _after(origins: Sequence[Origin], patch: Patch) -> tuple[list[Origin], dict[str, int]]:
    """The origins after `patch`, and the first old line it leans on of each patch before it."""
    after: list[Origin] = []
    leans: dict[str, int] = {}
    done = 0
    for number, hunk in enumerate(patch.change.hunks):
        begin = hunk.old_index
        after += origins[done:begin]
        done = begin
        cut = False  # whether the line just above was removed
        for at, line in enumerate(hunk.lines):
            kind = line[:1]
            if kind == b"+":
                after.append(Origin(patch.name, None, (number, at)))
                cut = False
                continue
            old = origins[done]
            for owner in {old.patch, old.cut if done > begin else None} - {None, patch.name}:
                leans.setdefault(str(owner), done)
            if kind == b" ":
                after.append(replace(old, cut=patch.name) if cut else old)
            cut = kind == b"-"
            done += 1
        if cut and done < len(origins):  # at the hunk's end, with no line of context below
            after.append(replace(origins[done], cut=patch.name))
            done += 1
    return [*after, *origins[done:]], leans


def printed_at(data: bytes, change: FileChange) -> list[list[int]]:
    """For each hunk of the patch file `data`, the 1-based line each of its lines is printed at."""
    lines = split_lines(data)
    at = start_of_diff(lines)
    found: list[list[int]] = []
    for hunk in change.hunks:
        while not lines[at].startswith(b"@@ -"):
            at += 1
        numbers: list[int] = []
        for _ in hunk.lines:
            at += 1
            while lines[at].startswith(b"\\"):
                at += 1
            numbers.append(at + 1)
        found.append(numbers)
        at += 1
    return found


# dependencies


@dataclass(frozen=True)
class Dependency:
    """`patch` needs `needs`: `by` is "lines" or "names", `what` the place or the names."""

    patch: str
    needs: str
    by: str
    what: tuple[str, ...]


def dependencies(patches: Sequence[Patch]) -> list[Dependency]:
    """What each patch needs of the others; in the order of the series."""
    found = [*_by_lines(patches), *_by_names(patches)]
    rank = {patch.name: number for number, patch in enumerate(patches)}
    return sorted(found, key=lambda one: (rank[one.patch], rank[one.needs], one.by))


def _by_lines(patches: Sequence[Patch]) -> Iterator[Dependency]:
    """Patches of one file, by whose lines they lean on; the source itself is not needed."""
    files: dict[str, list[Patch]] = {}
    for patch in patches:
        chain = files.pop(patch.change.old_path, []) if patch.change.old_path else []
        files[patch.path] = [*chain, patch]
    for chain in files.values():
        if len(chain) > 1:
            yield from _leaning(chain)


def _leaning(chain: Sequence[Patch]) -> Iterator[Dependency]:
    # Long enough for every hunk, whatever the file holds.
    length = sum(h.old_index + len(h.lines) for p in chain for h in p.change.hunks)
    origins = [Origin(None, number) for number in range(length)]
    for above, patch in zip([None, *chain], chain, strict=False):
        origins, leans = _after(origins, patch)
        named = above is not None and _names_change(above.change)
        if above is not None and named and above.name not in leans:
            yield Dependency(patch.name, above.name, "lines", (f"makes {above.path}",))
        for owner, line in leans.items():
            place = f"{patch.change.old_path}:{line + 1}"
            yield Dependency(patch.name, owner, "lines", (place,))


def _names_change(change: FileChange) -> bool:
    return change.old_path != change.new_path


def _by_names(patches: Sequence[Patch]) -> Iterator[Dependency]:
    """A patch that changes uses of a name whose definition another patch changes."""
    defining: dict[tuple[str, str], list[str]] = {}
    for patch in patches:
        family = _family(patch.path)
        for name in _defined(patch, family):
            defining.setdefault((family, name), []).append(patch.name)
    for patch in patches:
        family = _family(patch.path)
        own = set(_defined(patch, family))
        shared: dict[str, set[str]] = {}
        for name in _used(patch) - own:
            for definer in defining.get((family, name), ()):
                shared.setdefault(definer, set()).add(name)
        for definer, names in shared.items():
            yield Dependency(patch.name, definer, "names", tuple(sorted(names)))


# What these define, no other file sees.
_NOT_INCLUDED = (".c", ".cc", ".cpp", ".cu")
_DEFINITIONS = {
    Language.CUDA.value: (
        r"\s*#\s*define\s+(?P<macro>\w+)"
        r"|(?:template\s*<.*>\s*)?(?:enum\s+)?(?:class|struct|union|enum|using)\s+(?P<type>\w+)"
        # At the margin: a type or its qualifiers, then the name of a function or a variable.
        r"|(?!return\b|using\b|template\b|else\b|case\b|goto\b)[A-Za-z_][\w:<>,*&\s]*[\s*&]"
        r"(?P<name>[A-Za-z_]\w*)\s*(?:\(|=|\{|\[|;)"
    ),
    Language.PYTHON.value: (
        r"\s*(?:async\s+)?(?:def|class)\s+(?P<scope>\w+)"
        r"|(?P<name>[A-Za-z_]\w*)\s*(?::[^=]+)?=[^=]"
    ),
    Language.CMAKE.value: r"\s*(?:function|macro|set|option)\s*\(\s*(?P<name>\w+)",
}


def _family(path: str) -> str:
    return language_of(path).value


@cache
def _definition(family: str) -> re.Pattern[str] | None:
    pattern = _DEFINITIONS.get(family)
    return re.compile(pattern) if pattern else None


def _changed(patch: Patch) -> Iterator[str]:
    for hunk in patch.change.hunks:
        for line in hunk.lines:
            if line[:1] != b" ":
                yield line[1:].decode("utf-8", "replace")


def _defined(patch: Patch, family: str) -> Iterator[str]:
    """The names that the changed lines define."""
    pattern = _definition(family) if not patch.path.endswith(_NOT_INCLUDED) else None
    for line in _changed(patch) if pattern is not None else ():
        assert pattern is not None
        found = pattern.match(line)
        if found is not None:
            yield from (name for name in found.groups() if name is not None)


def _used(patch: Patch) -> set[str]:
    return {word for line in _changed(patch) for word in re.findall(r"[A-Za-z_]\w*", line)}
