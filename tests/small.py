"""Small upstreams made of text: as trees in a store, or as a clone with a repository on it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.carrying.decision import HunkResult, Outcome, Rung
from portkit.carrying.resolutions import Resolutions
from portkit.carrying.rungs import Pair
from portkit.commands import refresh
from portkit.face import console
from portkit.model import Hunk, Patch, Pin
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.patches.apply import change_between
from portkit.patches.patchdoc import DOC_FILE, render
from portkit.patches.patchfile import canonical
from portkit.patches.series import Entry, Series, name_for
from portkit.port.rebase import Carried, Snapshot, carry_series
from portkit.text.sides import Text
from portkit.upstream.git import Store, TreeEntry, git

Files = Mapping[str, str]
Ours = Mapping[str, str | None]

HEADER = b"""\
Description: What fails, and what is done
 In more words.
Author: a maintainer
Forwarded: no
Last-Update: 2026-01-01
Diagnostic: C1083
Test: tests/port/test_runtime.py
Archs: none
"""


def patch(path: str, base: str | None, ours: str | None, name: str | None = None) -> Patch:
    """A patch of one file, in canonical form; None is no file."""
    old, new = (None if side is None else side.encode() for side in (base, ours))
    modes = {"old_mode": None if old is None else "100644"} if new is None else {}
    modes |= {"new_mode": "100644"} if old is None else {}
    if new is None:
        modes["old_mode"] = "100644"
    return canonical(Patch(name or name_for(path), HEADER, change_between(path, old, new, **modes)))


def snapshot(
    store: Store, tag: str, files: Files, modes: Mapping[str, str] | None = None
) -> Snapshot:
    oids = store.write_blobs([text.encode() for text in files.values()])
    entries = {
        path: TreeEntry((modes or {}).get(path, "100644"), oid)
        for path, oid in zip(files, oids, strict=True)
    }
    return Snapshot.of(store, tag, store.edit_tree(None, entries))


def carry(
    store: Store,
    patches: Sequence[Patch],
    *trees: Files,
    resolutions: Resolutions | None = None,
    skipped: frozenset[str] = frozenset(),
) -> Carried:
    """Carry through `trees`, which are v1.0.0, v1.1.0 and so on."""
    snapshots = [snapshot(store, f"v1.{n}.0", tree) for n, tree in enumerate(trees)]
    return carry_series(store, patches, snapshots, resolutions=resolutions, skipped=skipped)


def carry_file(store: Store, path: str, base: str, ours: str, theirs: str) -> Carried:
    """Carry the one patch of one file through one step."""
    return carry(store, [patch(path, base, ours)], {path: base}, {path: theirs})


def results(carried: Carried) -> list[HunkResult]:
    return [r for story in carried.stories for step in story.steps for r in step.results]


def outcomes(carried: Carried) -> list[Outcome]:
    return [outcome for result in results(carried) for outcome in result.outcomes]


def rungs(carried: Carried) -> set[Rung]:
    return {landed.rung for result in results(carried) for landed in result.landed}


def made(carried: Carried) -> dict[str, str]:
    """The text of each file that the series changes at the new tag."""
    return {path: file.result.decode() for path, file in carried.files.items()}


def pair(store: Store, path: str, base: str, theirs: str) -> Pair:
    oids = store.write_blobs([base.encode(), theirs.encode()])
    return Pair(store, Text(path, base.encode()), Text(path, theirs.encode()), oids[0], oids[1])


def hunk(path: str, base: str, ours: str) -> Hunk:
    """The one hunk between two texts."""
    (only,) = patch(path, base, ours).change.hunks
    return only


def edited(text: Text, edits: Sequence[object]) -> str:
    return text.edited(edits).decode()  # type: ignore[arg-type]


# a repository on a clone


@dataclass(frozen=True)
class Repository:
    """A repository of ours in `root`, whose upstream is the clone at `clone`."""

    root: Path
    clone: Path

    def refresh(self, *arguments: str) -> int:
        """Run tools/refresh.py as a person does, and give its exit code."""
        main = functools.partial(refresh.main, root=self.root)
        return console.run(main, arguments)

    def to(self, tag: str, *arguments: str) -> int:
        return self.refresh("--to", tag, "--upstream", str(self.clone), *arguments)

    def work(self, path: str) -> Path:
        return self.root / "work" / "refresh" / path

    @property
    def pin(self) -> Pin:
        return pinfile.read(self.root / pinfile.PIN_FILE)

    def patched(self, path: str) -> str:
        """A file of the pinned upstream with the series applied."""
        with Store(self.clone / ".git") as store:
            tree = patched.patched_tree(store, self.pin.tree, series.load(self.root).upstream)
            return store.read(store.files(tree)[path].oid).decode()


def repository(folder: Path, releases: Mapping[str, Files], ours: Ours) -> Repository:
    """Upstream's `releases` by tag, and a series on the first one that makes its files `ours`."""
    clone, root = folder / "up stream", folder / "our repository"
    git("init", "-q", str(clone))
    trees: dict[str, tuple[str, str]] = {}
    with Store(clone / ".git") as store:
        for tag, files in releases.items():
            tree = snapshot(store, tag, files).tree
            commit = store.commit(tree, message=f"release {tag}")
            store.git("tag", tag, commit)
            trees[tag] = tree, commit
        first = next(iter(releases))
        patches = [patch(path, releases[first].get(path), text) for path, text in ours.items()]
        tree, commit = trees[first]
        after = patched.patched_tree(store, tree, patches)
    pin = Pin("https://upstream.invalid/vllm", first, commit, None, tree, after)
    whole = Series(tuple(Entry(one) for one in patches))
    texts = series.render(whole)
    texts[pinfile.PIN_FILE] = pinfile.render(pin)
    texts[DOC_FILE] = render(whole, pin)
    for path, data in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return Repository(root, clone)


def tree_of(root: Path, *without: str) -> dict[str, bytes | None]:
    """Every file below `root` with its bytes, folders as None; not what lies in `without`."""
    return {
        name: None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if (name := path.relative_to(root).as_posix()).split("/")[0] not in without
    }
