"""The journal: steps, undo and redo, and nothing in between, whatever stops a command."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from faults import DIED, SPACE, Died, Strike, faults
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from portkit.change import durable, steps
from portkit.change.journal import Entry, Journal, fingerprint, managed_files
from portkit.errors import BadInput, Busy, IntegrityError, PortError, Unavailable

NEVER = 10**9
MESSAGE = '"refresh to v0.16.0"'
OLD: dict[str, bytes] = {
    "upstream_pin.txt": b"tag: v0.14.1\r\n",
    "patch_series/series": b"build/setup.py.patch\nkernels/csrc/old/a.cu.patch\n",
    "patch_series/build/setup.py.patch": b"-a\n+b\xff\x0c" * 500,
    "patch_series/kernels/csrc/old/a.cu.patch": b"old",
    "patch_series/rules/x.toml": b"",
}
NEW: dict[str, bytes | None] = {
    "upstream_pin.txt": b"tag: v0.16.0\n",
    "docs/patches.md": b"# The patches\n",
    "patch_series/series": b"build/setup.py.patch\nkernels/csrc/new/a.cu.patch\n",
    "patch_series/build/setup.py.patch": b"-a\n+b\n" * 700,
    "patch_series/kernels/csrc/old/a.cu.patch": None,
    "patch_series/kernels/csrc/new/a.cu.patch": b"",
    "patch_series/runtime/vllm/with späce.py.patch": b"old",
}
AFTER = {path: data for path, data in (OLD | NEW).items() if data is not None}


def with_folders(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Files with the folders they lie in, as `tree` reads them."""
    folders = {parent.as_posix(): None for path in files for parent in Path(path).parents}
    folders.pop(".", None)
    return {**folders, **files}


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file of the repository and its bytes, every folder as None; not `.port`."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    return {
        name: None if path.is_dir() else path.read_bytes()
        for name, path in found.items()
        if name.split("/")[0] != ".port"
    }


TREES = [with_folders(OLD), with_folders(AFTER)]


def write(root: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a clöne"
    write(root, OLD)
    return root


@pytest.fixture(autouse=True)
def _no_faults_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(durable, "_TRANSIENT", ())
    faults.fast = True
    yield
    faults.disarm()
    faults.fast = False


def switch(journal: Journal, files: Mapping[str, bytes | None] = NEW) -> Entry | None:
    return journal.switch(files, message="refresh to v0.16.0", expect=fingerprint(journal.root))


def undo(journal: Journal) -> Entry | None:
    return journal.undo()


def redo(journal: Journal) -> Entry | None:
    return journal.redo()


Action = Callable[[Journal], Entry | None]
ACTIONS: list[tuple[Action, list[Action]]] = [
    (switch, []),
    (undo, [switch]),
    (redo, [switch, undo]),
]


def do(root: Path, *actions: Action) -> None:
    journal = Journal(root)
    with journal.lock():
        for action in actions:
            action(journal)


def check_history(root: Path, *, go_on: bool = True) -> None:
    """What the log says is in effect is what the files are, nothing else is kept, and it works."""
    journal = Journal(root)
    state = TREES.index(tree(root))
    assert [entry.undone for entry in journal.log()] in ([[False]] if state else [[], [True]])
    folder = root / ".port/journal"
    assert not (folder / "staged").exists()
    kept = len(list((folder / "objects").iterdir())) if (folder / "objects").exists() else 0
    changed = {NEW[path] for path in NEW} | {OLD[path] for path in NEW if path in OLD}
    assert kept == (len(changed - {None}) + 1 if journal.log() else 0)
    if go_on:
        do(root, *([undo, redo, undo, switch] if state else [switch, undo]))
        assert tree(root) == TREES[state]


# steps


def test_a_switch_writes_removes_and_is_logged(root: Path) -> None:
    untouched = (root / "patch_series/rules/x.toml").stat().st_mtime_ns
    journal = Journal(root)
    with journal.lock() as recovered:
        entry = switch(journal)
        assert switch(journal) is None
    assert recovered == ""
    assert tree(root) == TREES[1]
    assert (root / "patch_series/rules/x.toml").stat().st_mtime_ns == untouched
    assert entry is not None
    assert journal.log() == [entry]
    assert (entry.number, entry.message, entry.undone) == (1, "refresh to v0.16.0", False)
    assert entry.time.endswith("+00:00")


def test_undo_and_redo_are_byte_for_byte(root: Path) -> None:
    journal = Journal(root)
    with journal.lock():
        switch(journal)
        switch(journal, {"docs/patches.md": b"two"})
        assert journal.undo() == journal.log()[1]
        assert tree(root) == TREES[1]
        assert journal.undo().undone
        assert tree(root) == TREES[0]
        with pytest.raises(BadInput, match="nothing to undo"):
            journal.undo()
        assert journal.redo() == journal.log()[0]
        assert tree(root) == TREES[1]
        journal.redo()
        assert tree(root) == TREES[1] | {"docs/patches.md": b"two"}
        with pytest.raises(BadInput, match="nothing to redo"):
            journal.redo()


def test_a_new_step_after_undo_ends_redo_but_is_not_lost_itself(root: Path) -> None:
    journal = Journal(root)
    with journal.lock():
        switch(journal)
        switch(journal, {"docs/patches.md": b"two"})
        journal.undo()
        switch(journal, {"docs/patches.md": b"three"})
        with pytest.raises(BadInput, match="nothing to redo"):
            journal.redo()
        assert [entry.undone for entry in journal.log()] == [False, True, False]
        journal.undo()
        journal.undo()
        journal.redo()
        journal.redo()
    assert (root / "docs/patches.md").read_bytes() == b"three"
    assert [entry.number for entry in journal.log()] == [1, 2, 3]


def test_undo_refuses_and_names_what_was_edited(root: Path) -> None:
    do(root, switch)
    write(root, {"upstream_pin.txt": b"mine", "patch_series/rules/x.toml": b"mine too"})
    (root / "docs/patches.md").unlink()
    before = tree(root)
    with pytest.raises(BadInput) as caught:
        do(root, undo)
    assert caught.value.message == (
        "cannot undo step 1 (refresh to v0.16.0): "
        "docs/patches.md and upstream_pin.txt were changed since"
    )
    assert tree(root) == before
    write(root, {path: AFTER[path] for path in ("docs/patches.md", "upstream_pin.txt")})
    do(root, undo)  # an edit of a file that the step did not touch is no reason
    assert tree(root) == TREES[0] | {"patch_series/rules/x.toml": b"mine too"}


def test_old_steps_are_forgotten_with_their_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "KEPT_STEPS", 3)
    journal = Journal(root)
    with journal.lock():
        for number in range(6):
            switch(journal, {"docs/patches.md": b"%d" % number})
        assert [entry.number for entry in journal.log()] == [4, 5, 6]
        objects = list((root / ".port/journal/objects").iterdir())
        assert len(objects) == 3 + 4  # three steps and the four versions they lead through
        for _ in range(3):
            journal.undo()
        with pytest.raises(BadInput, match="nothing to undo"):
            journal.undo()
        assert (root / "docs/patches.md").read_bytes() == b"2"
        for _ in range(3):
            journal.redo()
    assert (root / "docs/patches.md").read_bytes() == b"5"


def test_managed_files_are_the_series_the_pin_and_its_reference(root: Path) -> None:
    write(root, {"README.md": b"", "docs/porting.md": b"", "tools/x.py": b""})
    assert managed_files(root) == sorted(OLD)
    assert json.loads(json.dumps(fingerprint(root))) == fingerprint(root)


# refusals


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"upstream_pin.txt": b"x"}, "upstream_pin.txt was"),
        ({"patch_series/rules/x.toml": b"x"}, "patch_series/rules/x.toml was"),  # read, not written
        ({"docs/patches.md": b"x"}, "docs/patches.md was"),  # would be overwritten
        (
            {"upstream_pin.txt": b"x", "patch_series/series": None},
            "patch_series/series and upstream_pin.txt were",
        ),
    ],
)
def test_a_switch_refuses_when_files_changed_meanwhile(
    root: Path, edit: dict[str, bytes | None], named: str
) -> None:
    expect = fingerprint(root)
    write(root, {path: data for path, data in edit.items() if data is not None})
    for path in (path for path, data in edit.items() if data is None):
        (root / path).unlink()
    before = tree(root)
    journal = Journal(root)
    with journal.lock(), pytest.raises(BadInput) as caught:
        journal.switch(NEW, message="x", expect=expect)
    assert caught.value.message == (
        f"{named} changed while this was worked out; nothing was written"
    )
    assert tree(root) == before


def test_a_new_file_that_is_not_in_the_way_is_no_reason(root: Path) -> None:
    expect = fingerprint(root)
    write(root, {"patch_series/series~": b"an editor's"})
    journal = Journal(root)
    with journal.lock():
        journal.switch(NEW, message="x", expect=expect)
    assert tree(root) == TREES[1] | {"patch_series/series~": b"an editor's"}


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["tools/x.py"], "tools/x.py is not a file of the series"),
        (["patch_series/../x"], "leaves its folder"),
        (["patch_series//x"], "leaves its folder"),
        (["patch_series/aux.patch"], "the name of a device"),
        (["patch_series/a", "patch_series/A"], "differ only by case"),
        (["patch_series/Series"], "differ only by case"),
        (["patch_series/series/x"], "patch_series/series cannot be both a file and the folder"),
        (["patch_series/a", "patch_series/a/b"], "patch_series/a cannot be both"),
        (["patch_series/rules"], "patch_series/rules is a folder"),
    ],
)
def test_paths_that_cannot_be_are_refused(root: Path, paths: list[str], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        do(root, lambda journal: switch(journal, {**NEW, **dict.fromkeys(paths, b"x")}))
    assert tree(root) == TREES[0]


@pytest.mark.parametrize("link", ["patch_series/runtime", "docs/patches.md"])
def test_nothing_is_written_through_a_link(root: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / link).parent.mkdir(exist_ok=True)
    try:
        (root / link).symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let us make links")
    with pytest.raises(BadInput, match=f"{link} is a link"):
        do(root, switch)
    assert list(outside.iterdir()) == []


def test_without_the_lock_nothing_is_changed(root: Path) -> None:
    with pytest.raises(RuntimeError, match="without its lock"):
        switch(Journal(root))
    assert tree(root) == TREES[0]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"version": 2}', b'{"version": 1, "head": 0}'])
def test_a_damaged_log_is_not_trusted(root: Path, data: bytes) -> None:
    do(root, switch)
    (root / ".port/journal/log.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"\.port/journal/log\.json is missing or damaged"):
        do(root, undo)
    assert tree(root) == TREES[1]


@pytest.mark.parametrize("keep", [0, 1])
def test_a_lost_version_stops_undo_and_nothing_else(root: Path, keep: int) -> None:
    do(root, switch)
    for file in (root / ".port/journal/objects").iterdir():
        file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match=r"objects/[0-9a-f]{64} is missing or damaged"):
        do(root, undo)
    assert tree(root) == TREES[1]
    do(root, lambda journal: switch(journal, {"docs/patches.md": b"on"}), undo)
    assert tree(root) == TREES[1]


# two at once

HOLD = """
import sys; from pathlib import Path; from portkit.change.journal import Journal
with Journal(Path(sys.argv[1])).lock("refresh.py --to v0.17.1"):
    print("locked", flush=True); sys.stdin.read()
"""


def test_a_second_process_is_told_who_is_at_work(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(durable.__file__).parents[2])},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"locked"
        start = time.monotonic()
        with pytest.raises(Busy) as caught:
            do(root, switch)
        assert time.monotonic() - start < 1
        since = caught.value.message.split("since ")[1].split(" (")[0]
        assert caught.value.message == (
            f"`refresh.py --to v0.17.1` is at work here since {since} (process {holder.pid})"
        )
        assert time.strptime(since, "%Y-%m-%d %H:%M:%S")
        assert tree(root) == TREES[0]
        holder.kill()  # a killed process holds nothing
    do(root, switch)
    assert tree(root) == TREES[1]


def test_two_journals_in_one_process(root: Path) -> None:
    with Journal(root).lock("first"), pytest.raises(Busy, match="`first` is at work here since"):
        do(root, switch)


# kills


FORK = "fork" in multiprocessing.get_all_start_methods()
STEP = 1 if FORK else 7  # where processes are slow to start, not every step


def process(target: Callable[..., None], *args: object) -> BaseProcess:
    context: Any = multiprocessing.get_context("fork" if FORK else "spawn")
    child: BaseProcess = context.Process(target=target, args=args)
    child.start()
    return child


def die(kind: str, path: str) -> None:
    raise Died


def killed_at(root: Path, action: Action, at: int) -> None:
    """In a process of its own: do `action` and die at step `at`."""
    journal = Journal(root)
    with journal.lock():
        faults.arm(at, die)
        action(journal)
        faults.disarm()


@pytest.mark.parametrize(("action", "before"), ACTIONS)
def test_killed_at_any_step_all_files_are_old_or_all_new(
    root: Path, tmp_path: Path, action: Action, before: list[Action]
) -> None:
    do(root, *before)
    old = TREES.index(tree(root))
    outcomes: list[bool] = []
    recoveries = set()
    for at in range(0, NEVER, STEP):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        child = process(killed_at, copy, action, at)
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == DIED
        with Journal(copy).lock() as recovered:
            recoveries.add(recovered)
        assert tree(copy) in TREES
        outcomes.append(tree(copy) != TREES[old])
        check_history(copy, go_on=at % 6 == 0)
        shutil.rmtree(copy)
    # One moment decides: a kill before it leaves the old files, one after it the new.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) > 10 // STEP
    assert outcomes.count(True) > 10 // STEP
    what = MESSAGE if action is switch else f"{action.__name__} of {MESSAGE}"
    assert recoveries == {"", f"finished what a stopped command had begun: {what}"}


class Killed(BaseException):
    """Stands for a kill: no step after it reaches the disk."""


def kill(kind: str, path: str) -> None:
    raise Killed


def struck(root: Path, action: Action, at: int, strike: Strike = kill) -> bool:
    """Do `action` with faults from step `at` on; whether it was struck down."""
    journal = Journal(root)
    with journal.lock():
        faults.arm(at, strike)
        try:
            action(journal)
        except Killed:
            return True
        finally:
            faults.disarm()
    return False


def test_killed_while_recovering_from_a_kill(root: Path, tmp_path: Path) -> None:
    copy, again = tmp_path / "copy", tmp_path / "again"
    for first in range(0, NEVER, 5):
        shutil.copytree(root, copy)
        if not struck(copy, switch, first):
            break
        for second in range(first % 3, NEVER, 3):
            shutil.copytree(copy, again)
            journal = Journal(again)
            faults.arm(second, kill)
            try:
                with journal.lock():
                    pass
            except Killed:
                struck_again = True
            else:
                struck_again = False
            faults.disarm()
            journal._lock.release(force=True)
            do(again)
            assert tree(again) in TREES
            check_history(again, go_on=False)
            shutil.rmtree(again)
            if not struck_again:
                break
        shutil.rmtree(copy)


def churn(root: Path) -> None:
    journal = Journal(root)
    with journal.lock():
        (root / ".port/started").touch()
        while True:
            switch(journal)
            journal.undo()
            journal.redo()
            switch(journal, {**dict.fromkeys(AFTER), **OLD})


def test_killed_at_random_times(root: Path) -> None:
    chance = random.Random(2)
    faults.fast = False
    for _ in range(15):
        child = process(churn, root)
        while not (root / ".port/started").exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        child.join()
        (root / ".port/started").unlink()
        journal = Journal(root)
        with journal.lock():
            assert tree(root) in TREES
            assert not (root / ".port/journal/staged").exists()
            effective = [entry for entry in journal.log() if not entry.undone]
            for _ in effective[-2:]:
                here = tree(root)
                journal.undo()
                assert tree(root) in TREES
                assert tree(root) != here


def test_a_reader_puts_right_what_a_kill_left(root: Path) -> None:
    journal = Journal(root)
    assert journal.settle() == ""
    assert not (root / ".port").exists()  # a reader needs no state, and makes none
    at = 0
    while Journal(root)._steps.read().moving is None:
        assert struck(root, switch, at)
        at += 1
    assert journal.settle() == f"finished what a stopped command had begun: {MESSAGE}"
    assert tree(root) == TREES[1]


def test_an_edit_of_a_half_done_file_is_not_overwritten(root: Path) -> None:
    at = 0
    while Journal(root)._steps.read().moving is None:
        assert struck(root, switch, at)
        at += 1
    write(root, {"upstream_pin.txt": b"mine"})
    before = tree(root)
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            do(root)
        assert caught.value.message == (
            f"upstream_pin.txt was edited while {MESSAGE} was half done"
        )
        assert tree(root) == before
    (root / "upstream_pin.txt").unlink()  # moved out, as the hint says
    do(root)
    assert tree(root) == TREES[1]


def test_ctrl_c_at_any_step_leaves_old_or_new_files_at_once(root: Path, tmp_path: Path) -> None:
    outcomes = []
    for at in range(NEVER):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)

        def interrupt(kind: str, path: str) -> None:
            faults.disarm()  # only once
            raise KeyboardInterrupt

        try:
            struck(copy, switch, at, interrupt)
        except KeyboardInterrupt:
            assert tree(copy) in TREES
            outcomes.append(tree(copy) == TREES[1])
            do(copy)
            check_history(copy, go_on=at % 6 == 0)
        else:
            break
        shutil.rmtree(copy)
    assert outcomes == sorted(outcomes)
    assert {*outcomes} == {False, True}


# the disk does not serve


def disk_full(kind: str, path: str) -> None:
    if kind in SPACE:
        raise OSError(errno.ENOSPC, "No space left on device", path)


def disk_full_once(kind: str, path: str) -> None:
    if kind in SPACE:
        faults.disarm()
        disk_full(kind, path)


def failure(root: Path, action: Action, at: int, strike: Strike) -> Unavailable | None:
    try:
        struck(root, action, at, strike)
    except Unavailable as error:
        return error
    return None


@pytest.mark.parametrize("full", [disk_full, disk_full_once])
@pytest.mark.parametrize(("action", "before"), ACTIONS[:2])
def test_a_full_disk_at_any_step_leaves_everything_as_it_was(
    root: Path, tmp_path: Path, action: Action, before: list[Action], full: Strike
) -> None:
    do(root, *before)
    old, log = tree(root), Journal(root).log()
    refused = 0
    for at in range(NEVER):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        error = failure(copy, action, at, full)
        if error is not None:
            refused += 1
            assert "was not done: the disk is full" in error.message
            assert error.message.endswith("; all files are as they were")
            assert tree(copy) == old
            assert Journal(copy).log() == log
        else:
            # From some step on it needs no more space, whatever is left to do.
            assert tree(copy) != old
            if not faults.seen[at:]:
                break
        do(copy)
        check_history(copy, go_on=at % 6 == 0)
        shutil.rmtree(copy)
    assert refused > 5


@pytest.mark.parametrize("victim", [path for path in sorted(NEW) if path != "docs/patches.md"])
def test_a_file_that_cannot_be_replaced_is_named_and_all_is_put_back(
    root: Path, victim: str
) -> None:
    def held(kind: str, path: str) -> None:
        if kind in ("rename", "remove") and Path(path) == root / victim:
            raise PermissionError(errno.EACCES, "Permission denied", path)

    journal = Journal(root)
    with journal.lock():
        faults.arm(0, held)
        with pytest.raises(Unavailable) as caught:
            switch(journal)
        faults.disarm()
        assert f"{MESSAGE} was not done: permission denied" in caught.value.message
        assert Path(victim).name in caught.value.message
        assert tree(root) == TREES[0]
        assert journal.log() == []
    check_history(root)


def test_what_cannot_go_on_nor_back_goes_on_later(root: Path) -> None:
    def stuck(kind: str, path: str) -> None:
        if kind in ("rename", "remove") and ".port" not in path:
            stuck_at.append(path)
            if len(stuck_at) > 3:
                raise PermissionError(errno.EACCES, "Permission denied", path)

    stuck_at: list[str] = []
    journal = Journal(root)
    with journal.lock():
        faults.arm(0, stuck)
        with pytest.raises(Unavailable, match=f"{MESSAGE} is half done: permission"):
            switch(journal)
        with pytest.raises(Unavailable, match=f"cannot finish taking back {MESSAGE}"):
            journal.recover()
        faults.disarm()
        assert tree(root) not in TREES
        assert journal.recover() == (
            f"finished what a stopped command had begun: taking back {MESSAGE}"
        )
        assert tree(root) == TREES[0]
    check_history(root)


def test_killed_while_putting_back_after_a_failure(root: Path, tmp_path: Path) -> None:
    def refuse_then_kill(kind: str, path: str) -> None:
        if kind == "rename" and path.endswith("upstream_pin.txt"):  # the last file
            refused_at.append(len(faults.seen))
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if refused_at and len(faults.seen) > refused_at[0] + later:
            raise Killed

    for later in range(NEVER):
        refused_at: list[int] = []
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        try:
            assert struck(copy, switch, 0, refuse_then_kill)
        except Unavailable:
            break
        do(copy)
        assert tree(copy) in TREES
        check_history(copy, go_on=later % 6 == 0)
        shutil.rmtree(copy)
    assert later > 20


def test_a_file_held_for_a_moment_is_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_TRANSIENT", (PermissionError,))
    refused: list[str] = []

    def held(kind: str, path: str) -> None:
        if kind in ("rename", "remove") and len(refused) < 4:
            refused.append(path)
            raise PermissionError(errno.EACCES, "Permission denied", path)

    struck(root, switch, 0, held)
    assert len(refused) == 4
    assert tree(root) == TREES[1]


def test_bytes_are_on_the_disk_before_the_names_that_promise_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut may lose is only what nobody counts on yet."""
    events: list[tuple[str, str]] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        events.append((kind, str(status.st_ino)))
        real(descriptor)

    def note(kind: str, path: str) -> None:
        if kind == "rename":
            events.append(("rename", path))

    monkeypatch.setattr(os, "fsync", sync)
    do(root)
    struck(root, switch, 0, note)
    log = str(root / ".port/journal/log.json")
    commit = events.index(("rename", log))
    settled = events.index(("rename", log), commit + 1)
    synced = {inode for kind, inode in events[:commit] if kind == "file"}
    for path in [
        *(root / ".port/journal/objects").iterdir(),
        *(root / p for p in AFTER if p in NEW),
    ]:
        assert str(path.stat().st_ino) in synced
    if os.name != "nt":
        folders = {inode for kind, inode in events[commit:settled] if kind == "folder"}
        for folder in ("", "docs", "patch_series/kernels/csrc/new", ".port/journal"):
            assert str((root / folder).stat().st_ino) in folders


# everything together, against a model


@dataclass(frozen=True)
class Model:
    """What a journal means: the files, and the steps done and undone, without any disk."""

    files: dict[str, bytes] = field(default_factory=dict)
    done: tuple[tuple[int, dict[str, bytes], dict[str, bytes]], ...] = ()
    undone: tuple[tuple[int, dict[str, bytes], dict[str, bytes]], ...] = ()
    count: int = 0

    def switch(self, files: Mapping[str, bytes | None]) -> Model:
        wanted = {
            path: data for path, data in ({**self.files, **files}).items() if data is not None
        }
        if wanted == self.files:
            return self
        count = self.count + 1
        return Model(wanted, (*self.done, (count, self.files, wanted)), (), count)

    def flip(self, *, undo: bool) -> Model | None:
        stack = self.done if undo else self.undone
        if not stack:
            return None
        _, old, new = stack[-1]
        here, there = (new, old) if undo else (old, new)
        touched = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        if any(self.files.get(path) != here.get(path) for path in touched):
            return None
        files = {path: data for path, data in self.files.items() if path not in touched}
        files |= {path: there[path] for path in touched & there.keys()}
        done = self.done[:-1] if undo else (*self.done, stack[-1])
        undone = (*self.undone, stack[-1]) if undo else self.undone[:-1]
        return Model(files, done, undone, self.count)

    @property
    def flags(self) -> list[bool]:
        effective = {number for number, _, _ in self.done}
        return [number not in effective for number in range(1, self.count + 1)]


PATHS = ["upstream_pin.txt", "docs/patches.md", "patch_series/series", "patch_series/a/b/c.patch"]
CONTENTS = st.dictionaries(
    st.sampled_from(PATHS), st.none() | st.sampled_from([b"", b"1", b"2" * 9000]), max_size=4
)


class JournalMachine(RuleBasedStateMachine):
    """Random steps, undo, redo, edits and kills, always agreeing with the model."""

    folder: Path  # set by the test, empty

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.model = Model()

    @rule(files=CONTENTS, at=st.integers(0, 60) | st.just(NEVER))
    def switch(self, files: dict[str, bytes | None], at: int) -> None:
        self.attempt(lambda journal: switch(journal, files), self.model.switch(files), at)

    @rule(back=st.booleans(), at=st.integers(0, 40) | st.just(NEVER))
    def flip(self, back: bool, at: int) -> None:
        self.attempt(undo if back else redo, self.model.flip(undo=back), at)

    @precondition(lambda self: self.model.files)
    @rule(chance=st.randoms(use_true_random=False))
    def edit(self, chance: random.Random) -> None:
        path = chance.choice(sorted(self.model.files))
        write(self.folder, {path: b"edited"})
        self.model = Model(
            {**self.model.files, path: b"edited"},
            self.model.done,
            self.model.undone,
            self.model.count,
        )

    def attempt(self, action: Action, after: Model | None, at: int) -> None:
        try:
            killed = struck(self.folder, action, at)
        except PortError:
            assert after is None
            return
        if killed:
            do(self.folder)
            if after is not None and Journal(self.folder).log() != []:
                flags = [entry.undone for entry in Journal(self.folder).log()]
                if flags == after.flags:
                    self.model = after
        else:
            assert after is not None
            self.model = after

    @invariant()
    def agrees(self) -> None:
        assert tree(self.folder) == with_folders(self.model.files)
        assert [entry.undone for entry in Journal(self.folder).log()] == self.model.flags


def test_random_steps_agree_with_the_model(tmp_path: Path) -> None:
    class Machine(JournalMachine):
        folder = tmp_path / "machine"

    Machine.TestCase.settings = settings(
        max_examples=40,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    Machine.TestCase("runTest").runTest()
