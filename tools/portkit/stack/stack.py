"""The stack: the series, how far it is applied in a work tree, and one way to change both.

Patches of different files do not depend on each other, so a stack is a prefix of the series, and
what a file of the work tree shall hold is known from its own patch alone.  Every command gives
`change` a new series and a new prefix; it finds the files that this changes, and refuses where a
person's edits would be lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.change.managed import digest, digest_of, fingerprint, sentence_of
from portkit.errors import BadInput, Busy
from portkit.model import Patch, Pin
from portkit.patches import patchdoc
from portkit.patches import pin as pinfile
from portkit.patches import series as seriesfile
from portkit.patches.apply import DoesNotApply, apply_change
from portkit.patches.choose import choose, upstream_path
from portkit.patches.diffparse import MODES
from portkit.patches.patchfile import canonical_change, format_change
from portkit.patches.series import Series
from portkit.stack.revise import File
from portkit.stack.worktree import DEFAULT, Applied, State, Worktree, executable
from portkit.upstream.git import TreeEntry
from portkit.upstream.pristine import Pristine, Progress, quiet

if TYPE_CHECKING:
    from portkit.patches.monolith import Base

EXECUTABLE_MODE = "100755"


class Upstream(Pristine):
    """The pinned upstream for commands that need to know all of its files."""

    @cached_property
    def files(self) -> Mapping[str, TreeEntry]:
        return self.store.files(self.tree)

    @cached_property
    def base(self) -> Base:
        """These files as `monolith` takes them."""
        from portkit.patches.monolith import Base  # noqa: PLC0415

        return Base(self.store, self.tree)

    def file(self, path: str) -> File | None:
        """The file as upstream has it, None when it has none."""
        entry = self.files.get(path)
        if entry is None:
            return None
        if entry.mode not in MODES:
            raise BadInput(f"{path} is a symbolic link or a submodule", hint="patches carry files")
        return File(self.store.read(entry.oid), entry.mode)


@dataclass(frozen=True)
class Change:
    """What a command is about to do: what the journal writes, and what it must find there.

    `pushed` and `popped` name patches that were in the series and stay there.
    """

    files: Mapping[str, bytes | None]
    expect: Mapping[str, str]
    pushed: tuple[str, ...]
    popped: tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """The repository at `root` and one of its work trees, as they are now."""

    root: Path
    work: Worktree
    pin: Pin
    series: Series
    state: State
    pristine: Upstream
    expect: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        root: Path,
        work: str = DEFAULT,
        *,
        upstream: Path | None = None,
        progress: Progress = quiet,
    ) -> Stack:
        """Read all of it; raises as `series.load`, `pin.read` and `Worktree.state` do."""
        seen = fingerprint(root)
        tree = Worktree(root, work)
        state_digest = digest_of(tree.root / tree.state_file)
        expect = {**seen, **({tree.state_file: state_digest} if state_digest else {})}
        pin = pinfile.read(root / pinfile.PIN_FILE)
        return cls(
            root, tree, pin, seriesfile.load(root), tree.state(),
            Upstream(pin, upstream=upstream, progress=progress), expect,
        )  # fmt: skip

    # where we stand

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The patches of upstream: what can be on the stack."""
        return self.series.upstream

    @cached_property
    def depth(self) -> int:
        """How many patches are applied: up to the last one that the state names."""
        return depth_of(self.patches, self.state.applied)

    @property
    def applied(self) -> tuple[Patch, ...]:
        return self.patches[: self.depth]

    @property
    def unapplied(self) -> tuple[Patch, ...]:
        return self.patches[self.depth :]

    def find(self, text: str) -> Patch:
        """The patch a person means by its name, its path or the path of its file."""
        return self._owners.get(self.path(text)) or choose(self.patches, text)

    def path(self, text: str) -> str:
        """The upstream path of a file that a person names by it or by its place on the disk."""
        return upstream_path(self.root, text, self.root.absolute() / self.work.folder)

    def owner(self, path: str) -> Patch | None:
        """The patch that is about the upstream file `path`."""
        return self._owners.get(path)

    @cached_property
    def _owners(self) -> Mapping[str, Patch]:
        return {path: patch for patch in self.patches for path in paths_of(patch)}

    def is_applied(self, patch: Patch) -> bool:
        return any(one.name == patch.name for one in self.applied)

    def is_current(self, patch: Patch) -> bool:
        """Whether an applied patch is in the work tree as the series has it now."""
        known = self.state.applied.get(patch.name)
        return (
            known is not None
            and known.digest == digest(format_change(patch.change))
            and self.state.tree == self.pin.tree
        )

    # contents

    def patched(self, patch: Patch) -> File | None:
        """The file that `patch` makes, None when it deletes it; raises `DoesNotApply`."""
        change = canonical_change(patch.change)
        base = None if change.old_path is None else self.pristine.file(change.old_path)
        try:
            if (
                change.new_path not in (None, change.old_path)
                and change.new_path in self.pristine.files
            ):
                raise DoesNotApply(change.path, "the new file exists already")
            data = apply_change(change, None if base is None else base.data)
        except DoesNotApply as error:
            raise DoesNotApply(
                patch.name, error.message, hunk=error.hunk, line=error.line
            ) from None
        if data is None:
            return None
        return File(data, change.new_mode or (base.mode if base is not None else MODES[0]))

    def content(self, path: str, owners: Mapping[str, Patch]) -> bytes | None:
        """What a file of the work tree holds where `owners` are the applied patches by path."""
        owner = owners.get(path)
        if owner is None:
            return self.bytes_of(self.pristine.file(path))
        return self.bytes_of(self.patched(owner)) if path == owner.change.new_path else None

    def bytes_of(self, file: File | None) -> bytes | None:
        """A file as it lies in the work tree."""
        if file is None:
            return None
        return executable(file.data, file.mode == EXECUTABLE_MODE and self.work.has_modes)

    def file_of(self, data: bytes | None, like: File | None) -> File | None:
        """A file of the work tree as upstream would hold it, in the mode of `like` if need be."""
        if data is None:
            return None
        if self.work.has_modes:
            return File(bytes(data), EXECUTABLE_MODE if digest(data).endswith("x") else MODES[0])
        return File(bytes(data), like.mode if like is not None else MODES[0])

    def edited(self) -> list[str]:
        """The files that hold what no patch and not upstream does: changed, new or gone."""
        owners = {path: patch for patch in self.applied for path in paths_of(patch)}
        found = self.work.edited(self.state)
        unknown = [path for path in found if path not in self.state.files]
        same = {path for path in unknown if self._is_as_expected(path, owners)}
        return [path for path in found if path not in same]

    def _is_as_expected(self, path: str, owners: Mapping[str, Patch]) -> bool:
        """Whether a file someone put here is the one we would."""
        if self.work.is_link(path):
            return False
        wanted = self.content(path, owners)
        return wanted is not None and digest(wanted) == self.work.digest(path)

    # changing

    def change(
        self,
        *,
        depth: int | None = None,
        series: Series | None = None,
        need: Collection[str] = (),
        discard: Collection[str] = (),
        show: Iterable[str] = (),
        subjects: Mapping[str, str] | None = None,
    ) -> Change:
        """What must be written so that `series` is applied up to `depth` in the work tree.

        Without `depth` what was applied stays so, and the patches called `need` are.  `show` are
        files to have in the work tree, `discard` those whose edits may go.  Raises `BadInput`
        that names the files whose edits would be lost, `DoesNotApply` for a patch.
        """
        new = series if series is not None else self.series
        refuse_shared(new)
        patches = new.upstream
        if depth is None:
            depth = depth_of(patches, {*self.state.applied, *need})
        applied: dict[str, Applied] = {}
        for patch in patches[:depth]:
            applied[patch.name] = Applied(
                digest(format_change(patch.change)), tuple(paths_of(patch))
            )
        owners = {path: patch for patch in patches[:depth] for path in paths_of(patch)}
        touched = {*show, *discard} | self._touched(applied)
        files = dict(self.state.files)
        written: dict[str, bytes | None] = {}
        expect = dict(self.expect)
        lost: list[str] = []
        for path in sorted(touched):
            wanted = self.content(path, owners)
            mark = None if wanted is None else digest(wanted)
            found = self.work.digest(path)
            if found != mark:
                if found != files.get(path) and path not in discard:
                    lost.append(path)
                written[self.work.place(path)] = wanted
                if found is not None:
                    expect[self.work.place(path)] = found
            if mark is None:
                files.pop(path, None)
            else:
                files[path] = mark
        if lost:
            raise self._would_lose(lost)
        pending = dict(self.state.subjects if subjects is None else subjects)
        written[self.work.state_file] = State(self.pin.tree, applied, files, pending).render()
        if series is not None:
            written |= self._series_files(series)
        before = [patch.name for patch in self.applied]
        kept = {patch.name for patch in self.patches} & {patch.name for patch in patches}
        return Change(
            written,
            expect,
            tuple(name for name in applied if name in kept and name not in before),
            tuple(name for name in before[::-1] if name in kept and name not in applied),
        )

    def _touched(self, applied: Mapping[str, Applied]) -> set[str]:
        """The files that differ between what is applied and what shall be."""
        old = self.state.applied
        if self.state.tree not in ("", self.pin.tree):
            known = (*old.values(), *applied.values())
            return {*self.state.files, *(path for one in known for path in one.paths)}
        names = {name for name in {*old, *applied} if old.get(name) != applied.get(name)}
        found = (known.get(name) for known in (old, applied) for name in names)
        return {path for one in found if one is not None for path in one.paths}

    def _would_lose(self, paths: Sequence[str]) -> BadInput:
        first = paths[0]
        owner = self.owner(first)
        taken = owner is None or (self.is_applied(owner) and self.is_current(owner))
        how = "take them with refresh, or " if taken else "copy them elsewhere, then "
        return BadInput(
            f"edits would be lost: {sentence_of(map(self.work.place, paths))} changed since the "
            "tools wrote there; nothing was done",
            hint=f"{how}drop them with: series.py revert {first}",
        )

    def _series_files(self, series: Series) -> dict[str, bytes | None]:
        from portkit.patches import patched  # noqa: PLC0415

        if (self.root / ".port/refresh.json").exists():
            raise Busy(
                "a refresh to another release is under way",
                hint="end it first: tools/refresh.py --status",
            )
        store = self.pristine.store
        tree = patched.patched_tree(store, self.pin.tree, series.upstream)
        pin = replace(self.pin, patched_tree=tree)
        files = seriesfile.changes(self.root, series)
        files[pinfile.PIN_FILE] = pinfile.render(pin)
        if not patchdoc.is_current(self.root, series, pin):
            files[patchdoc.DOC_FILE] = patchdoc.render(series, pin)
        return files


def depth_of(patches: Sequence[Patch], names: Collection[str]) -> int:
    """How many of the first patches hold all that are called `names`."""
    return max((at for at, patch in enumerate(patches, 1) if patch.name in names), default=0)


def paths_of(patch: Patch) -> list[str]:
    """The upstream files a patch is about: one, or two if it renames."""
    paths = (patch.change.new_path, patch.change.old_path)
    return list(dict.fromkeys(path for path in paths if path is not None))


def refuse_shared(series: Series) -> None:
    """Raise `BadInput` when two patches of `series` are about one file."""
    users: dict[str, str] = {}
    for patch in series.patches:
        for claim in seriesfile.claims(patch):
            other = users.setdefault(claim, patch.name)
            if other != patch.name:
                raise BadInput(f"{other} and {patch.name} would change the same file")
