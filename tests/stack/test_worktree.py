"""The work tree, how a changed file becomes a changed patch, and work files in the journal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from faults import faults
from hypothesis import given, settings
from hypothesis import strategies as st

from portkit.change.journal import Journal, fingerprint
from portkit.change.managed import Executable, digest
from portkit.errors import BadInput, IntegrityError
from portkit.model import Edit
from portkit.patches import header
from portkit.patches.apply import apply_change, apply_edits, change_between, diff, split_lines
from portkit.stack.revise import File, composed, divided, headed, revised
from portkit.stack.worktree import State, Worktree

LINES = b"".join(b"line %d\n" % number for number in range(60))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "patch_series").mkdir()
    (tmp_path / "patch_series/series").write_bytes(b"")
    return tmp_path


# the folder


@pytest.mark.parametrize("name", ["work/tree", "work/other one", "./work/x"])
def test_a_work_tree_is_a_folder_in_work(root: Path, name: str) -> None:
    assert Worktree(root, name).folder.startswith("work/")
    assert Worktree(root, str(root / name)).folder == Worktree(root, name).folder


@pytest.mark.parametrize(
    "name", ["work", "work/a/b", "tools", "..", "work/..", "work/../x", "/", "work/refresh", ""]
)
def test_other_folders_are_never_a_work_tree(root: Path, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be a work tree"):
        Worktree(root, name)


def test_a_damaged_state_is_said_and_not_guessed(root: Path) -> None:
    tree = Worktree(root)
    assert tree.state() == State()
    (root / tree.state_file).parent.mkdir(parents=True)
    for data in (b"", b"{}", b"[]", b'{"version": 2}', b'{"version": 1, "applied": {"x": 1}}'):
        (root / tree.state_file).write_bytes(data)
        with pytest.raises(IntegrityError, match=r"work/tree\.json is damaged"):
            tree.state()


def test_edits_are_noticed_and_leftovers_of_editors_are_not(root: Path) -> None:
    tree = Worktree(root)
    files = {"a b.py": b"1", "deep/x.cu": b"2", "gone": b"3", "same": b"4"}
    state = State(files={path: digest(data) for path, data in files.items()})
    for path, data in {**files, "a b.py": b"edited", "new": b""}.items():
        (root / tree.place(path)).parent.mkdir(parents=True, exist_ok=True)
        (root / tree.place(path)).write_bytes(data)
    (root / tree.place("gone")).unlink()
    for path in ("x.orig", "deep/x.cu.rej", "deep/.x.cu.swp", "x~", "__pycache__/x.pyc"):
        (root / tree.place(path)).parent.mkdir(exist_ok=True)
        (root / tree.place(path)).write_bytes(b"")
    assert tree.edited(state) == ["a b.py", "gone", "new"]


# composing changes


texts = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\r\n", b"\x0c\xff\n"]), max_size=14)
ends = st.sampled_from([b"", b"end"])


versions = st.builds(lambda lines, end: b"".join(lines) + end, texts, ends)


@settings(max_examples=60, deadline=None)
@given(versions, versions, versions)
def test_composed_edits_make_the_second_result(one: bytes, two: bytes, three: bytes) -> None:
    edits = composed(split_lines(one), diff(one, two), diff(two, three))
    assert b"".join(apply_edits(split_lines(one), edits)) == three
    assert all(first.end <= second.start for first, second in pairwise(edits))


def _replaced(data: bytes, *numbers: int) -> bytes:
    for number in numbers:
        data = data.replace(b"line %d\n" % number, b"new %d\n" % number)
    return data


def test_a_hunk_that_nobody_touched_stays_as_it_was_made() -> None:
    # A hunk that no diff program would write: it takes out a line and puts it in again.
    odd = (Edit(10, 12, (b"odd\n", b"line 10\n", b"line 11\n")), Edit(40, 41, (b"forty\n",)))
    base = split_lines(LINES)
    middle = b"".join(apply_edits(base, odd))
    after = middle.replace(b"line 25\n", b"x\n").replace(b"forty\n", b"40\n40\n")
    assert composed(base, odd, diff(middle, after)) == [
        odd[0],
        Edit(25, 26, (b"x\n",)),
        Edit(40, 41, (b"40\n", b"40\n")),
    ]


def test_an_edit_taken_back_leaves_no_trace() -> None:
    base = File(LINES)
    change = change_between("x", LINES, _replaced(LINES, 5, 50))
    half = revised(change, base, File(_replaced(LINES, 5, 50)), File(_replaced(LINES, 5)))
    assert half is not None
    assert half == change_between("x", LINES, _replaced(LINES, 5))
    assert revised(half, base, File(_replaced(LINES, 5)), base) is None


@pytest.mark.parametrize("before", [b"a\n", b"", LINES])
@pytest.mark.parametrize("after", [b"b\r\n", b"", LINES, None])
@pytest.mark.parametrize("base", [None, b"", LINES])
def test_new_deleted_and_executable_files(
    base: bytes | None, before: bytes, after: bytes | None
) -> None:
    old = None if base is None else File(base)
    change = change_between("x", base, before, new_mode=None if base is not None else "100644")
    new = None if after is None else File(after, "100755")
    result = revised(change, old, File(before), new)
    if result is None:
        assert (old, after) == (None, None)
        return
    assert apply_change(result, base) == after
    assert (result.new_mode == "100755") == (after is not None)


@given(st.sets(st.integers(1, 4), min_size=1))
def test_the_hunks_taken_out_stand_on_the_rest(numbers: set[int]) -> None:
    after = _replaced(LINES, 2, 50).replace(b"line 20\n", b"").replace(b"line 35\n", b"a\nb\nc\n")
    change = change_between("x", LINES, after)
    assert len(change.hunks) == 4
    rest, taken = divided(change, numbers)
    assert len(taken.hunks) == len(numbers)
    assert apply_change(taken, apply_change(rest, LINES)) == after


@pytest.mark.parametrize("numbers", [[0], [2], [1, -1]])
def test_a_hunk_that_is_not_there(numbers: Sequence[int]) -> None:
    change = change_between("x", LINES, _replaced(LINES, 2))
    with pytest.raises(BadInput, match="there is no hunk"):
        divided(change, numbers)


def test_the_header_of_a_new_patch_says_what_was_said() -> None:
    raw = headed("x.py", "Do it\n\nFirst.\n\nSecond.", author="me", today=date(2026, 1, 2))
    parsed = header.parse(raw)
    assert (parsed.summary, parsed.body) == ("Do it", "First.\n\nSecond.")
    assert (parsed.author, parsed.last_update) == ("me", "2026-01-02")
    short = header.parse(headed("x.py", "Do it", author="me", today=date(2026, 1, 2)))
    assert short.summary == "Do it"
    assert any("stub" in message for _, message in header.validate(short))


# in the journal


def _switch(root: Path, files: dict[str, bytes | None], expect: dict[str, str]) -> None:
    journal = Journal(root)
    with journal.lock("test"):
        journal.switch(files, message="work", expect={**fingerprint(root), **expect})


def _undo(root: Path) -> None:
    journal = Journal(root)
    with journal.lock("test"):
        journal.undo()


def test_work_files_go_and_come_back_with_their_folders(root: Path) -> None:
    _switch(root, {"work/tree/a/b c/ü.cu": b"1\r\n", "patch_series/x.patch": b"p"}, {})
    file = root / "work/tree/a/b c/ü.cu"
    assert file.read_bytes() == b"1\r\n"
    _switch(root, {"work/tree/a/b c/ü.cu": None}, {"work/tree/a/b c/ü.cu": digest(b"1\r\n")})
    assert not (root / "work/tree/a").exists()
    _undo(root)
    assert file.read_bytes() == b"1\r\n"
    _undo(root)
    assert not (root / "work/tree/a").exists()
    assert not (root / "patch_series/x.patch").exists()


def test_a_work_file_that_changed_meanwhile_is_not_written_over(root: Path) -> None:
    file = root / "work/tree/x"
    _switch(root, {"work/tree/x": b"1"}, {})
    file.write_bytes(b"mine")
    for expect in ({}, {"work/tree/x": digest(b"1")}):
        with pytest.raises(BadInput, match="changed while this was worked out"):
            _switch(root, {"work/tree/x": b"2"}, expect)
        assert file.read_bytes() == b"mine"
    with pytest.raises(BadInput, match="changed since"):
        _undo(root)
    assert file.read_bytes() == b"mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mode")
def test_modes_of_work_files_are_kept_and_a_changed_mode_is_an_edit(root: Path) -> None:
    file = root / "work/tree/x"
    _switch(root, {"work/tree/x": Executable(b"1")}, {})
    assert file.stat().st_mode & 0o111
    _switch(root, {"work/tree/x": b"1"}, {"work/tree/x": digest(Executable(b"1"))})
    assert not file.stat().st_mode & 0o111
    _undo(root)
    assert file.stat().st_mode & 0o111
    file.chmod(0o644)
    with pytest.raises(BadInput, match="changed since"):
        _undo(root)
    assert Worktree(root).edited(State(files={"x": digest(Executable(b"1"))})) == ["x"]


class Killed(BaseException):
    pass


def test_killed_anywhere_a_step_with_work_files_is_whole_after_the_next_command(
    root: Path,
) -> None:
    old: dict[str, bytes | None] = {
        "work/tree/a": Executable(b"1"),
        "work/tree/gone/b": b"2",
        "patch_series/x.patch": b"p",
    }
    new: dict[str, bytes | None] = {
        "work/tree/a": b"one",
        "work/tree/gone/b": None,
        "work/tree/fresh/c": Executable(b"3"),
        "patch_series/x.patch": b"q",
        ".port/work/tree.json": b"{}",
    }
    expect = {path: digest(data) for path, data in old.items() if data is not None}
    del expect["patch_series/x.patch"]

    def seen() -> dict[str, tuple[bytes, int]]:
        return {
            path: ((root / path).read_bytes(), (root / path).stat().st_mode & 0o111)
            for path in (*old, *new)
            if (root / path).is_file()
        }

    def kill(kind: str, path: str) -> None:
        if not path.endswith("running.json"):  # a killed process gives up the lock by itself
            raise Killed

    _switch(root, old, {})
    before = seen()
    _switch(root, new, expect)
    after = seen()
    _undo(root)
    ends: set[bool] = set()
    for step in range(1000):
        assert seen() == before
        faults.arm(step, kill)
        try:
            _switch(root, new, expect)
        except Killed:
            faults.disarm()
        else:
            faults.disarm()
            break
        with Journal(root).lock("the next command"):
            assert seen() in (before, after), step
            ends.add(seen() == after)
        if seen() == after:
            _undo(root)
    assert ends == {True, False}
