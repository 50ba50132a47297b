"""The tools people carry patches with, run on a `Task` as a person would run them.

How hunks are counted:

- `patch` and `git apply --reject` say for each hunk whether it applied; that is taken.
- `quilt push`, `git apply --3way` and `git rebase` decide a whole file (each patch changes one):
  a file in conflict carries none of its hunks.  A patch that fails is set aside (`quilt delete`,
  `git rebase --skip`), and the rest goes on.
- `ort, hunk by hunk` is the generous reading of git's merge: every hunk merged on its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.task import Attempt, HunkId, Notes, Task, Verdict, hunk_ids
from portkit.carrying.resolutions import Resolutions
from portkit.model import Patch
from portkit.patches.apply import apply_change
from portkit.patches.patchfile import format_change
from portkit.port.rebase import Snapshot, carry_series
from portkit.upstream.git import Store, TreeEntry, environment, path_from_bytes

Tool = Callable[[Task], Attempt]
PEAK = Path(__file__).with_name("peak.py")


@dataclass(frozen=True)
class Ran:
    """A finished process: exit status and everything it said."""

    code: int
    said: str


_meter: list[str] = []  # put before every command


@contextmanager
def metered(file: Path) -> Iterator[None]:
    """Append the peak memory of every command to `file`."""
    _meter[:] = [sys.executable, "-I", "-S", str(PEAK), str(file)]
    try:
        yield
    finally:
        _meter.clear()


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> Ran:
    done = subprocess.run(
        [*_meter, *command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment(), "GIT_CEILING_DIRECTORIES": str(cwd.parent), **(env or {})},
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace"))


def _numbers(pattern: str, said: str) -> set[int]:
    return {int(number) for number in re.findall(pattern, said)}


def write_files(task: Task, folder: Path) -> None:
    """The target's files that the patches name; the tools look at no others."""
    for patch in task.patches:
        data = task.theirs(patch.path)
        if data is not None:
            file = folder / patch.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def _settle(notes: Notes, patch: Patch, file: Path, failed: set[int]) -> None:
    """Note a patch of which the hunks `failed` did not apply to `file`."""
    hunks = hunk_ids(patch)
    notes.say((h for h in hunks if h.number in failed), Verdict.CONFLICT)
    if file.is_file():
        landed = (h for h in hunks if h.number not in failed)
        notes.land(patch.path, file.read_bytes(), landed)


# tools that work file by file


def git_apply(task: Task) -> Attempt:
    """`git apply --reject`, one patch at a time."""
    notes = Notes("git apply")
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_files(task, folder)
        for patch in task.patches:
            Path(folder, "p.diff").write_bytes(format_change(patch.change))
            ran = run("git", "apply", "--reject", "--verbose", "p.diff", cwd=folder)
            failed = _numbers(r"Rejected hunk #(\d+)", ran.said)
            if ran.code and not failed:  # no such file
                failed = {h.number for h in hunk_ids(patch)}
            _settle(notes, patch, folder / patch.path, failed)
    return notes.done()


def _gnu_patch(task: Task, tool: str, *options: str) -> Attempt:
    notes = Notes(tool)
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_files(task, folder)
        for patch in task.patches:
            Path(folder, "p.diff").write_bytes(format_change(patch.change))
            ran = run(
                *("patch", "-p1", "--force", "--binary", "--no-backup-if-mismatch", "-r", "-"),
                *(*options, "-i", "p.diff"),
                cwd=folder,
            )
            failed = _numbers(r"Hunk #(\d+) FAILED", ran.said)
            if ran.code and not failed:  # no such file
                failed = {h.number for h in hunk_ids(patch)}
            _settle(notes, patch, folder / patch.path, failed)
    return notes.done()


def gnu_patch(task: Task) -> Attempt:
    """GNU patch as it comes: up to two lines of context may differ."""
    return _gnu_patch(task, "GNU patch")


def gnu_patch_strict(task: Task) -> Attempt:
    """GNU patch without fuzz."""
    return _gnu_patch(task, "patch -F0", "-F0")


def quilt_push(task: Task) -> Attempt:
    """`quilt push -a`; a patch that does not apply is deleted from the series, whole."""
    notes = Notes("quilt push")
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_quilt(task, folder)
        failed = push_all(folder)
        for patch in task.patches:
            numbers = {h.number for h in hunk_ids(patch)} if patch.name in failed else set()
            _settle(notes, patch, folder / patch.path, numbers)
    return notes.done()


def write_quilt(task: Task, folder: Path) -> None:
    """A work tree with the series, ready for `quilt push`."""
    write_files(task, folder)
    patches = folder / "patches"
    for patch in task.patches:
        file = patches / patch.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(format_change(patch.change))
    (patches / "series").write_text("".join(f"{patch.name}\n" for patch in task.patches))


def push_all(folder: Path) -> set[str]:
    """Push every patch that applies; the names of those that were set aside."""
    env = {"QUILT_PATCHES": "patches"}
    failed: set[str] = set()
    while True:
        ran = run("quilt", "--quiltrc", "-", "push", "-a", cwd=folder, env=env)
        found = re.search(r"Patch (?:patches/)?(\S+) (?:does not apply|can be reverse)", ran.said)
        if ran.code == 0 or found is None:
            return failed
        failed.add(found[1])
        run("quilt", "--quiltrc", "-", "delete", found[1], cwd=folder, env=env)


# git's merges


class Clone:
    """A repository of its own with a work tree, on top of the task's objects."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--template=", ".")
        objects = (task.store.path / "objects").resolve()
        (folder / ".git/objects/info").mkdir(parents=True, exist_ok=True)
        (folder / ".git/objects/info/alternates").write_text(f"{objects.as_posix()}\n")
        self.store = Store(folder / ".git")

    def git(self, *command: str) -> Ran:
        return run("git", *command, cwd=self.folder)

    def tree_with(self, tree: str, snapshot: Snapshot, files: Mapping[str, bytes]) -> str:
        """`tree` with the contents of some files replaced."""
        oids = self.store.write_blobs(list(files.values()))
        entries = {
            path: TreeEntry(snapshot.files[path].mode, oid)
            for path, oid in zip(files, oids, strict=True)
        }
        return self.store.edit_tree(tree, entries)


def git_apply_3way(task: Task) -> Attempt:
    """`git apply --3way`, one patch at a time; a file with conflict markers is a conflict."""
    notes = Notes("git apply --3way")
    with TemporaryDirectory() as name:
        clone = Clone(task, Path(name).resolve())
        clone.git("read-tree", task.target.tree)
        write_files(task, clone.folder)
        clone.git("update-index", "-q", "--refresh")
        for patch in task.patches:
            hunks = hunk_ids(patch)
            diff = clone.folder / "p.diff"
            diff.write_bytes(_indexed(task, patch))
            if clone.git("apply", "--3way", str(diff)).code == 0:
                notes.land(patch.path, (clone.folder / patch.path).read_bytes(), hunks)
            else:
                notes.say(hunks, Verdict.CONFLICT)
    return notes.done()


def _indexed(task: Task, patch: Patch) -> bytes:
    """The patch with git's `index` line, by which a three-way merge finds the old file."""
    entry = task.base.files[patch.path]
    lines = format_change(patch.change).split(b"\n", 1)
    return lines[0] + f"\nindex {entry.oid}..{'1' * 40} {entry.mode}\n".encode() + lines[1]


def git_rebase(task: Task) -> Attempt:
    """`git rebase` (ort), one commit a patch; a commit in conflict is skipped, whole."""
    notes = Notes("git rebase")
    with TemporaryDirectory() as name:
        clone = Clone(task, Path(name).resolve())
        base, target = prepare_rebase(task, clone)
        failed = rebase_all(clone, base, target)
        log = clone.git("log", "--reverse", "--format=%x00%s", "--name-only", f"{target}..series")
        landed: dict[str, str] = {}
        for record in log.said.split("\0")[1:]:
            subject, *paths = [line for line in record.splitlines() if line]
            landed[subject] = paths[0]
        for patch in task.patches:
            hunks = hunk_ids(patch)
            if patch.name in landed:
                path = landed[patch.name]
                notes.land(path, clone.store.read(f"refs/heads/series:{path}"), hunks)
            else:
                gone = Verdict.CONFLICT if patch.name in failed else Verdict.DROPPED
                notes.say(hunks, gone)
        clone.store.close()
    return notes.done()


def prepare_rebase(task: Task, clone: Clone) -> tuple[str, str]:
    """A branch `series` with one commit a patch, checked out; the old and the new base."""
    store = clone.store
    base = store.commit(task.base.tree, message="base")
    target = store.commit(task.target.tree, [base], message="target")
    tree, tip = task.base.tree, base
    for patch in task.patches:
        tree = clone.tree_with(tree, task.base, {patch.path: task.ours(patch)})
        tip = store.commit(tree, [tip], message=patch.name)
    clone.git("update-ref", "refs/heads/series", tip)
    clone.git("checkout", "--quiet", "--force", "series")
    return base, target


def rebase_all(clone: Clone, base: str, target: str) -> set[str]:
    """Rebase `series`; the subjects of the commits that had to be skipped."""
    failed: set[str] = set()
    ran = clone.git("rebase", "--quiet", "--onto", target, base, "series")
    while ran.code:
        stopped = clone.git("log", "-1", "--format=%s", "REBASE_HEAD")
        if stopped.code:
            raise RuntimeError(f"git rebase: {ran.said}")
        failed.add(stopped.said.strip())
        ran = clone.git("rebase", "--skip")
    return failed


def ort_by_hunk(task: Task) -> Attempt:
    """`git merge-tree`, each hunk of a file on its own; hunks of different files go together."""
    notes = Notes("ort, hunk by hunk")
    with TemporaryDirectory() as name:
        clone = Clone(task, Path(name).resolve())
        renamed = _renames(task, clone.store)
        for number in range(max((len(p.change.hunks) for p in task.patches), default=0)):
            single = [p for p in task.patches if number < len(p.change.hunks)]
            _merge_hunks(task, clone, single, number, renamed=renamed, notes=notes)
        clone.store.close()
    return notes.done()


def _merge_hunks(
    task: Task,
    clone: Clone,
    patches: list[Patch],
    number: int,
    *,
    renamed: Mapping[str, str],
    notes: Notes,
) -> None:
    store = clone.store
    files = {p.path: _one_hunk(task, p, number) for p in patches}
    ours = clone.tree_with(task.base.tree, task.base, files)
    base = store.commit(task.base.tree)
    one, other = store.commit(ours, [base]), store.commit(task.target.tree, [base])
    options = ("--write-tree", "-z", "--name-only", "--no-messages")
    merged, *conflicted = store.git("merge-tree", *options, one, other, ok=(0, 1)).split(b"\0")
    stopped = {path_from_bytes(path) for path in conflicted}
    after = store.files(merged.decode())
    for patch in patches:
        hunk = HunkId(patch.name, number + 1)
        path = renamed.get(patch.path, patch.path)
        if path in stopped or path not in task.target.files:
            notes.say([hunk], Verdict.CONFLICT)
        elif after[path] == task.target.files[path]:
            notes.say([hunk], Verdict.DROPPED)
        else:
            notes.land(path, store.read(after[path].oid), [hunk])


def _one_hunk(task: Task, patch: Patch, number: int) -> bytes:
    change = patch.change
    single = type(change)(change.old_path, change.new_path, (change.hunks[number],))
    after = apply_change(single, task.before(patch))
    assert after is not None
    return after


def _renames(task: Task, store: Store) -> dict[str, str]:
    if all(patch.path in task.target.files for patch in task.patches):
        return {}
    said = store.git(
        *("diff-tree", "-r", "-z", "-M", "--diff-filter=R", "-l0"),
        *(task.base.tree, task.target.tree),
    ).split(b"\0")
    return {
        path_from_bytes(said[n + 1]): path_from_bytes(said[n + 2])
        for n in range(0, len(said) - 2, 3)
    }


# ours


def ours(task: Task, resolutions: Resolutions | None = None) -> Attempt:
    """`carry_series`, with the series' recorded resolutions."""
    notes = Notes("portkit")
    carried = carry_series(
        task.store, task.patches, [task.base, task.target], resolutions=resolutions
    )
    homes: dict[str, set[HunkId]] = {}
    for story in carried.stories:
        results = [result for step in story.steps for result in step.results]
        for hunk, result in zip(hunk_ids(story.patch), results, strict=True):
            if result.conflicts:
                notes.say([hunk], Verdict.CONFLICT)
            elif result.landed:
                homes.setdefault(result.landed[0].path, set()).add(hunk)
            else:
                notes.say([hunk], Verdict.DROPPED)
    for path, hunks in homes.items():
        notes.land(path, carried.files[path].result, hunks)
    return notes.done()


TOOLS: dict[str, Tool] = {
    "portkit": ours,
    "git apply": git_apply,
    "git apply --3way": git_apply_3way,
    "GNU patch": gnu_patch,
    "patch -F0": gnu_patch_strict,
    "quilt push": quilt_push,
    "git rebase": git_rebase,
    "ort, hunk by hunk": ort_by_hunk,
}
_NEEDS = {"GNU patch": "patch", "patch -F0": "patch", "quilt push": "quilt"}


def available() -> tuple[dict[str, Tool], list[str]]:
    """The tools this machine has, and the names of those it lacks."""
    missing = [tool for tool, program in _NEEDS.items() if shutil.which(program) is None]
    return {name: tool for name, tool in TOOLS.items() if name not in missing}, missing


def versions() -> dict[str, str]:
    """First line of `--version` of each program."""
    found: dict[str, str] = {}
    for program in ("git", "patch", "quilt"):
        if shutil.which(program) is not None:
            ran = run(program, "--version", cwd=Path(os.curdir).resolve())
            found[program] = ran.said.splitlines()[0].strip() if ran.said else ""
    return found
