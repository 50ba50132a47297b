"""One carry as every tool faces it, and what a tool made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from portkit.model import Patch
from portkit.patches.apply import apply_change
from portkit.port.rebase import Snapshot
from portkit.upstream.git import Store


@dataclass(frozen=True)
class Task:
    """Carry `patches`, written for `base`, to `target`; `store` holds both."""

    store: Store
    patches: Sequence[Patch]
    base: Snapshot
    target: Snapshot

    def before(self, patch: Patch) -> bytes:
        """The patch's file at the base."""
        return self.store.read(self.base.files[patch.path].oid)

    def ours(self, patch: Patch) -> bytes:
        """The patch's file with the patch."""
        after = apply_change(patch.change, self.before(patch))
        assert after is not None
        return after

    def theirs(self, path: str) -> bytes | None:
        """A file of the target, None when it has none."""
        entry = self.target.files.get(path)
        return None if entry is None else self.store.read(entry.oid)

    @property
    def hunks(self) -> int:
        return sum(len(patch.change.hunks) for patch in self.patches)


class Verdict(Enum):
    """What a tool says of one hunk."""

    CARRIED = "carried"
    DROPPED = "dropped"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class HunkId:
    """A hunk of a patch, by its number from 1."""

    patch: str
    number: int


@dataclass(frozen=True)
class Landing:
    """A file as a tool left it, and the hunks that it says are in it."""

    path: str
    result: bytes
    hunks: frozenset[HunkId]


@dataclass(frozen=True)
class Attempt:
    """What one tool made of a task: a verdict for every hunk, and the files it changed."""

    tool: str
    verdicts: Mapping[HunkId, Verdict]
    landings: tuple[Landing, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(found is verdict for found in self.verdicts.values())

    def whole_files(self) -> int:
        """Patches of which no hunk is a conflict."""
        patches = {hunk.patch for hunk in self.verdicts}
        return len(patches - {h.patch for h, v in self.verdicts.items() if v is Verdict.CONFLICT})


def hunk_ids(patch: Patch) -> list[HunkId]:
    return [HunkId(patch.name, number) for number in range(1, len(patch.change.hunks) + 1)]


class Notes:
    """An `Attempt` in the making."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.verdicts: dict[HunkId, Verdict] = {}
        self.landings: list[Landing] = []

    def say(self, hunks: Iterable[HunkId], verdict: Verdict) -> None:
        self.verdicts.update(dict.fromkeys(hunks, verdict))

    def land(self, path: str, result: bytes, hunks: Iterable[HunkId]) -> None:
        landed = frozenset(hunks)
        if landed:
            self.say(landed, Verdict.CARRIED)
            self.landings.append(Landing(path, result, landed))

    def done(self) -> Attempt:
        return Attempt(self.tool, self.verdicts, tuple(self.landings))
