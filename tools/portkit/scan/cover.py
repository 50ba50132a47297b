"""The series on a tag: which files it changes there, and into what.

At the pin every patch applies.  At another tag the series is carried as a refresh would carry it,
and what waits for a person covers nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from portkit.model import Edit, Events, Patch, silent
from portkit.patches.apply import apply_change, edits_of
from portkit.port import porting
from portkit.port.rebase import Carried
from portkit.scan.model import Finding
from portkit.scan.tree import SourceTree
from portkit.upstream.cache import Cache


@dataclass(frozen=True)
class Covered:
    """One file as the series leaves it (None: deleted), by which patches, and their edits."""

    data: bytes | None
    patches: tuple[str, ...]
    edits: tuple[Edit, ...] = ()

    def upstream_line(self, line: int) -> int | None:
        """The line (1-based) of upstream's file that is `line` here; None for one of ours."""
        shift = 0
        for edit in sorted(self.edits, key=lambda edit: edit.start):
            start = edit.start + shift
            if line - 1 < start:
                break
            if line - 1 < start + len(edit.lines):
                return None
            shift += len(edit.lines) - (edit.end - edit.start)
        return line - shift


@dataclass(frozen=True)
class Cover:
    """The files of a tag that the series changes; empty where no series is looked at."""

    files: Mapping[str, Covered] = field(default_factory=dict)

    def on(self, tree: SourceTree) -> SourceTree:
        """`tree` as the series leaves it."""
        return tree.overlaid({path: file.data for path, file in self.files.items()})

    def untouched(self, tree: SourceTree) -> SourceTree:
        """Upstream's versions of these files alone, and the CMake file with the C++ standard."""
        wanted = {*self.files, "CMakeLists.txt"} & set(tree.paths)
        return SourceTree.of_files(dict(tree.read_all(wanted)), tree.name)

    def placed(self, finding: Finding) -> Finding:
        """A finding of the patched tree at its place in upstream's file."""
        file = self.files.get(finding.path)
        if file is None:
            return finding
        line = file.upstream_line(finding.line)
        if line is not None:
            return replace(finding, line=line)
        ours = f"in a line of {', '.join(file.patches)}"
        return replace(finding, detail=f"{finding.detail}; {ours}" if finding.detail else ours)

    def patches(self, path: str) -> str:
        """The patches of a file, in words."""
        file = self.files.get(path)
        return "" if file is None else ", ".join(file.patches)

    @cached_property
    def names(self) -> frozenset[str]:
        """The patches that change anything on this tag."""
        return frozenset(name for file in self.files.values() for name in file.patches)


def at_pin(patches: Iterable[Patch], tree: SourceTree) -> Cover:
    """What the series makes of its own pin; raises `DoesNotApply` where a patch does not fit."""
    files: dict[str, Covered] = {}
    for patch in patches:
        change = patch.change
        base = tree.read(change.old_path) if change.old_path is not None else None
        if change.old_path is not None and change.old_path != change.new_path:
            files[change.old_path] = Covered(None, (patch.name,))
        if change.new_path is not None:
            after = apply_change(change, base)
            files[change.new_path] = Covered(after, (patch.name,), tuple(edits_of(change)))
    return Cover(files)


def carried(done: Carried) -> Cover:
    """What of a carried series fits its new tag."""
    return Cover(
        {path: Covered(f.result, f.owners, tuple(f.edits)) for path, f in done.files.items()}
    )


def at(
    root: Path,
    tag: str,
    tree: SourceTree,
    *,
    cache: Cache,
    upstream: Path | None = None,
    events: Events = silent,
) -> Cover:
    """What the series of the repository at `root` covers on `tag`, carried if it is not the pin."""
    start = porting.read(root)
    if tag == start.pin.tag:
        return at_pin(start.patches, tree)
    plan = porting.plan(
        start,
        (start.pin.tag, tag),
        porting.Answers(),
        upstream=upstream,
        cache=cache,
        events=events,
    )
    return carried(plan.carried)
