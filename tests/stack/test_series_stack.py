"""push, pop, goto and what tells where the stack stands, with edits in the way and without."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from desk import Desk, a_patch
from small import HEADER

from portkit.change.managed import Executable
from portkit.model import FileChange, Hunk, Patch
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.patches.patchfile import format_patch
from portkit.patches.series import Entry, Series, name_for
from portkit.upstream.cache import CACHE_VARIABLE
from portkit.upstream.git import Store

LINES = b"".join(b"line %d\n" % number for number in range(40))
UPSTREAM: dict[str, bytes] = {
    "CMakeLists.txt": LINES.replace(b"\n", b"\r\n"),
    "setup.py": b"\xff\x0c\n" + LINES + b"no newline",
    "csrc/old.cu": LINES,
    "csrc/\u00e4.cu": LINES,
    "vllm/run.py": Executable(LINES),
    "vllm/other.py": LINES,
}
OURS: dict[str, bytes | None] = {
    "CMakeLists.txt": UPSTREAM["CMakeLists.txt"].replace(b"line 3\r", b"line three\r"),
    "setup.py": UPSTREAM["setup.py"] + b", and more\n",
    "csrc/old.cu": None,
    "csrc/\u00e4.cu": LINES + b"\xe4\n",
    "vllm/run.py": LINES + b"not to be run\n",
    "vllm/win32.py": Executable(b"new\r\n"),
}
NAMES = [name_for(path) for path in OURS]
PATCHED = {path: data for path, data in OURS.items() if data is not None}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv(CACHE_VARIABLE, "")
    return Desk.make(tmp_path / "the f\u00f6lder", UPSTREAM, OURS)


def modes(files: dict[str, bytes]) -> dict[str, tuple[bytes, bool]]:
    return {path: (bytes(data), isinstance(data, Executable)) for path, data in files.items()}


def test_push_writes_every_patched_file_byte_for_byte_and_pop_upstreams(desk: Desk) -> None:
    before = desk.managed()
    out = desk.does("push", "-a")
    assert out.count("pushed  ") == len(OURS)
    assert modes(desk.lying()) == modes(PATCHED)
    assert desk.applied() == NAMES
    desk.does("pop", "-a")
    pristine = {path: UPSTREAM[path] for path in OURS if path in UPSTREAM}
    assert modes(desk.lying()) == modes(pristine)
    assert desk.applied() == []
    assert desk.managed() == before


def test_one_several_as_far_as_and_where_we_are(desk: Desk) -> None:
    assert (desk.run("top").code, desk.does("next")) == (1, f"{NAMES[0]}\n")
    desk.does("push")
    desk.does("push", "2")
    assert desk.does("top") == f"{NAMES[2]}\n"
    desk.does("push", "vllm/run.py")
    assert desk.applied() == NAMES[:5]
    assert desk.does("applied", "--not").split() == NAMES[5:]
    desk.does("pop")
    desk.does("pop", "setup.py")
    assert desk.applied() == NAMES[:2]
    desk.does("goto", NAMES[5])
    assert desk.run("next").code == 1
    desk.does("goto", "work/tree/CMakeLists.txt")
    assert desk.applied() == NAMES[:1]
    assert json.loads(desk.does("status", "--json"))["top"] == NAMES[0]
    assert json.loads(desk.does("top", "--json"))["patch"] == NAMES[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pop",), "no patch is applied"),
        (("pop", "setup.py"), "build/setup.py.patch is not applied"),
        (("push", "7"), "only 6 patches are left"),
        (("push", "nothing.py"), "there is no patch nothing.py"),
        (("push", "--work", "tools"), "tools cannot be a work tree"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    desk: Desk, words: tuple[str, ...], sentence: str
) -> None:
    said = desk.run(*words)
    assert said.code == 2
    assert said.err.startswith(f"error: {sentence}")
    assert not (desk.root / "work").exists()


@pytest.mark.parametrize("path", ["setup.py", "csrc/old.cu", "vllm/win32.py"])
def test_a_file_with_edits_is_in_the_way_of_push(desk: Desk, path: str) -> None:
    desk.write(path, b"mine\n")
    before = desk.everything()
    said = desk.run("push", "-a")
    assert said.code == 2
    assert said.err.startswith(f"error: edits would be lost: work/tree/{path} was changed since")
    assert f"series.py revert {path}" in said.err
    assert desk.everything() == before
    desk.does("revert", path)
    desk.does("push", "-a")
    desk.does("undo", "2")
    assert desk.everything() == before


def test_edits_that_a_command_does_not_touch_stay(desk: Desk) -> None:
    desk.does("push", "3")
    edited = OURS["CMakeLists.txt"]
    assert edited is not None
    desk.write("CMakeLists.txt", edited + b"mine\r\n")
    desk.write("vllm/other.py", b"mine too\n")
    desk.does("push", "-a")
    desk.does("pop", "CMakeLists.txt")
    assert desk.work("CMakeLists.txt").read_bytes() == edited + b"mine\r\n"
    assert desk.work("vllm/other.py").read_bytes() == b"mine too\n"
    assert desk.run("pop").code == 2
    status = json.loads(desk.does("status", "--json"))
    assert [(one["file"], one["kind"]) for one in status["edits"]] == [
        ("CMakeLists.txt", "edited"),
        ("vllm/other.py", "new"),
    ]


def test_a_file_put_there_as_push_would_is_no_edit(desk: Desk) -> None:
    desk.write("setup.py", OURS["setup.py"])
    desk.write("vllm/other.py", UPSTREAM["vllm/other.py"])
    assert "other" not in desk.does("status")
    desk.does("push", "-a")
    assert desk.does("status").count("work/tree") == 0


def test_undo_and_redo_of_the_stack(desk: Desk) -> None:
    states = [desk.everything()]
    for words in (("push", "-a"), ("pop", "2"), ("goto", "setup.py"), ("pop", "-a")):
        desk.does(*words)
        states.append(desk.everything())
    for state in states[-2::-1]:
        desk.does("undo")
        assert desk.everything() == state
    assert desk.run("undo").code == 2
    desk.does("redo", "4")
    assert desk.everything() == states[-1]
    log = json.loads(desk.does("oplog", "--json"))["steps"]
    assert [step["message"].split()[0] for step in log] == ["push", "pop", "goto", "pop"]


def test_undo_refuses_where_a_person_edited_since(desk: Desk) -> None:
    desk.does("push", "-a")
    desk.write("setup.py", b"mine\n")
    before = desk.everything()
    said = desk.run("undo")
    assert said.code == 2
    assert "work/tree/setup.py was changed since" in said.err
    assert desk.everything() == before


def test_a_patch_changed_by_other_means_comes_with_the_next_command(desk: Desk) -> None:
    desk.does("push", "3")
    patch = a_patch("setup.py", UPSTREAM["setup.py"], LINES)
    (desk.root / "patch_series" / patch.name).write_bytes(format_patch(patch))
    desk.does("push")
    assert desk.work("setup.py").read_bytes() == LINES


def test_a_patch_changed_by_other_means_does_not_take_edits_with_it(desk: Desk) -> None:
    desk.does("push", "3")
    desk.write("setup.py", b"mine\n")
    patch = a_patch("setup.py", UPSTREAM["setup.py"], LINES)
    (desk.root / "patch_series" / patch.name).write_bytes(format_patch(patch))
    for words in (("push",), ("refresh",), ("pop", "-a")):
        assert desk.run(*words).code == 2, words
        assert desk.work("setup.py").read_bytes() == b"mine\n"
    assert "was changed since it was pushed" in desk.does("status")
    desk.does("revert", "setup.py")
    assert desk.work("setup.py").read_bytes() == LINES


def test_edits_are_not_taken_for_a_patch_that_came_by_other_means(desk: Desk) -> None:
    desk.does("push", "-a")
    patch = a_patch("vllm/other.py", LINES, LINES + b"theirs\n")
    file = desk.root / "patch_series" / patch.name
    file.write_bytes(format_patch(patch))
    order = desk.root / "patch_series/series"
    order.write_bytes(f"{patch.name}\n".encode() + order.read_bytes())
    desk.write("vllm/other.py", LINES + b"mine\n")
    assert desk.run("refresh").code == 2
    assert file.read_bytes() == format_patch(patch)
    assert desk.work("vllm/other.py").read_bytes() == LINES + b"mine\n"


def test_another_header_changes_nothing_in_the_work_tree(desk: Desk) -> None:
    desk.does("push", "-a")
    file = desk.root / "patch_series" / NAMES[1]
    file.write_bytes(file.read_bytes().replace(HEADER.splitlines()[0], b"Description: other"))
    desk.write("setup.py", b"mine\n")
    desk.does("refresh")
    assert file.read_bytes().startswith(b"Description: other\n")
    assert b"+mine\n" in file.read_bytes()


def test_the_pin_moved_under_the_work_tree(desk: Desk) -> None:
    desk.does("push", "3")
    desk.does("edit", "--no-editor", "vllm/other.py")
    pin = pinfile.read(desk.root / "upstream_pin.txt")
    with Store(Path(os.environ[CACHE_VARIABLE]) / "upstream.git") as store:
        oid = store.write_blobs([b"another release\n"])[0]
        entry = store.files(pin.tree)["vllm/other.py"]
        tree = store.edit_tree(pin.tree, {"vllm/other.py": type(entry)(entry.mode, oid)})
        after = patched.patched_tree(store, tree, series.load(desk.root).upstream)
    moved = type(pin)(pin.repository, pin.tag, pin.commit, None, tree, after)
    (desk.root / "upstream_pin.txt").write_bytes(pinfile.render(moved))
    desk.does("push")
    assert desk.work("vllm/other.py").read_bytes() == b"another release\n"


def test_two_work_trees_stand_where_they_stand(desk: Desk) -> None:
    desk.does("push", "-a")
    desk.does("push", "--work", "work/second one")
    assert desk.does("top", "--work", "work/second one") == f"{NAMES[0]}\n"
    assert desk.does("top") == f"{NAMES[-1]}\n"
    assert (desk.root / "work/second one/CMakeLists.txt").is_file()


def test_a_patch_that_does_not_apply_is_named_and_nothing_is_pushed(desk: Desk) -> None:
    file = desk.root / "patch_series" / NAMES[4]
    file.write_bytes(file.read_bytes().replace(b" line 38\n", b" line x\n"))
    said = desk.run("push", "-a")
    assert said.code == 2
    assert said.err.startswith(f"error: {NAMES[4]}: vllm/run.py: hunk 1 does not apply at line 39")
    assert desk.lying() == {}


def test_a_link_in_the_work_tree_is_never_written_through(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    desk.work("").mkdir(parents=True)
    try:
        desk.work("setup.py").symlink_to(tmp_path / "mine")
    except OSError:
        pytest.skip("links cannot be made here")
    assert desk.run("push", "-a").code == 2
    assert desk.run("refresh").code == 2
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["a\u00e4 b/ c.py", "x y.cu"])
def test_names_with_spaces_survive_what_they_cannot_be_part_of(desk: Desk, path: str) -> None:
    desk.write(path, b"1\r\n\x0c")
    desk.does("push", "-a")
    said = desk.run("refresh")
    assert "quilt's series cannot hold a name with spaces" in said.err
    desk.does("pop", "-a")
    assert desk.work(path).read_bytes() == b"1\r\n\x0c"


def test_pushing_takes_time_linear_in_the_number_of_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "")
    seconds: list[float] = []
    for number in (60, 240):
        upstream = {f"csrc/f{n}.cu": b"%d\n" % n + LINES for n in range(number)}
        ours: dict[str, bytes | None] = {path: data + b"x\n" for path, data in upstream.items()}
        desk = Desk.make(tmp_path / str(number), upstream, {})
        entries = (Entry(a_patch_of(path)) for path in ours)
        for path, data in series.render(Series(tuple(entries))).items():
            (desk.root / path).parent.mkdir(parents=True, exist_ok=True)
            (desk.root / path).write_bytes(data)
        start = time.perf_counter()
        desk.does("push", "-a")
        seconds.append(time.perf_counter() - start)
        assert desk.lying() == ours
    assert seconds[1] < 4 * 2 * seconds[0]


def a_patch_of(path: str) -> Patch:
    lines = (b" line 37\n", b" line 38\n", b" line 39\n", b"+x\n")
    return Patch(name_for(path), HEADER, FileChange(path, path, (Hunk(39, 3, 39, 4, lines),)))
