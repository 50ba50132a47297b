"""What the benchmarks run on: the shipped series at its pin, and upstream's released tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.task import Task
from portkit.carrying.resolutions import SUFFIX, Resolutions
from portkit.model import Patch, Pin
from portkit.patches import pin, series
from portkit.port.rebase import Snapshot, carry_series, patches_of
from portkit.upstream.git import Store
from portkit.upstream.source import Cache, normalise, obtain, released_tags, tags_between

ROOT = Path(__file__).resolve().parents[1]
TAGS = ("v0.16.0", "v0.17.1", "v0.19.1", "v0.21.0", "v0.26.0", "v0.33.0")


@dataclass(frozen=True)
class Shipped:
    """The series of a repository, its pin and its recorded resolutions."""

    pin: Pin
    patches: tuple[Patch, ...]
    resolutions: Resolutions

    @classmethod
    def load(cls, root: Path = ROOT) -> Shipped:
        folder = root / "patch_series/resolutions"
        recorded = {f.name: f.read_bytes() for f in sorted(folder.glob(f"*{SUFFIX}"))}
        return cls(
            pin.read(root / pin.PIN_FILE),
            series.load(root).upstream,
            Resolutions.parse(recorded),
        )


class Upstream:
    """Upstream's tags as snapshots, each fetched once."""

    def __init__(self, cache: Cache | None = None) -> None:
        self._cache = cache or Cache.default()
        self._snapshots: dict[str, Snapshot] = {}

    @property
    def store(self) -> Store:
        return self._cache.store

    def snapshot(self, tag: str) -> Snapshot:
        tag = normalise(tag)
        if tag not in self._snapshots:
            source = obtain(tag, cache=self._cache)
            self._snapshots[tag] = Snapshot.of(self.store, tag, source.tree)
        return self._snapshots[tag]

    def steps(self, first: str, last: str) -> list[str]:
        """Every released tag from `first` to `last`, both included."""
        return [first, *tags_between(first, last, released_tags(cache=self._cache))]


def direct(upstream: Upstream, shipped: Shipped, tag: str) -> Task:
    """From the pin straight to `tag`."""
    base = upstream.snapshot(shipped.pin.tag)
    return Task(upstream.store, shipped.patches, base, upstream.snapshot(tag))


def step_by_step(upstream: Upstream, shipped: Shipped, tags: Sequence[str]) -> list[Task]:
    """One task for each release step.

    Every tool starts a step from the same series: the shipped one as `carry_series` brought it to
    the tag before.  A hunk that waits for a person at one step is in no later one, for any tool.
    """
    tasks: list[Task] = []
    patches = shipped.patches
    for old, new in pairwise(map(upstream.snapshot, tags)):
        tasks.append(Task(upstream.store, patches, old, new))
        carried = carry_series(upstream.store, patches, [old, new], resolutions=shipped.resolutions)
        patches = patches_of(carried, patches)
    return tasks
