"""Editing the series: new, edit, refresh, revert, fold, drop, rename, reorder, split, undo."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from desk import Desk
from small import HEADER

from portkit.change.managed import Executable
from portkit.model import Patch
from portkit.patches import header, series
from portkit.patches.patchfile import format_patch, parse_patch
from portkit.upstream.cache import CACHE_VARIABLE

LINES = b"".join(b"line %d\n" % number for number in range(60))
UPSTREAM: dict[str, bytes] = {
    "CMakeLists.txt": LINES.replace(b"\n", b"\r\n"),
    "setup.py": LINES,
    "csrc/old.cu": LINES,
    "csrc/form.cu": b"\xff\x0c\n" + LINES + b"no newline",
    "vllm/run.py": Executable(LINES),
    "vllm/other.py": LINES,
    "vllm/deep/a.py": LINES,
}
OURS: dict[str, bytes | None] = {
    "CMakeLists.txt": UPSTREAM["CMakeLists.txt"].replace(b"line 3\r", b"line three\r"),
    "setup.py": LINES.replace(b"line 5\n", b"line five\n").replace(b"line 40\n", b"forty\n"),
    "csrc/old.cu": None,
    "vllm/run.py": Executable(LINES + b"more\n"),
    "vllm/win32.py": b"new\n",
}
SETUP = "build/setup.py.patch"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv(CACHE_VARIABLE, "")
    desk = Desk.make(tmp_path, UPSTREAM, OURS)
    desk.does("push", "-a")
    return desk


def the_patch(desk: Desk, path: str) -> Patch:
    return next(patch for patch in series.load(desk.root).patches if patch.path == path)


def make(desk: Desk, path: str, old: bytes, new: bytes) -> None:
    data = desk.work(path).read_bytes()
    assert old in data
    desk.write(path, data.replace(old, new))


# refresh


def test_refresh_takes_an_edit_into_the_patch_of_its_file_alone(desk: Desk) -> None:
    before = desk.managed()
    make(desk, "setup.py", b"line 20\n", b"line twenty\n")
    assert desk.does("refresh") == f"changed {SETUP}\n"
    after = desk.managed()
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {f"patch_series/{SETUP}", "docs/patches.md", "upstream_pin.txt"}
    assert desk.patched()["setup.py"] == desk.work("setup.py").read_bytes()
    old, new = before[f"patch_series/{SETUP}"], after[f"patch_series/{SETUP}"]
    assert new.replace(b"Last-Update: " + _day(new), b"Last-Update: 2026-01-01") == old.replace(
        b"@@ -38,7 +38,7 @@",
        b"@@ -18,7 +18,7 @@\n line 17\n line 18\n line 19\n-line 20\n+line twenty\n line 21\n"
        b" line 22\n line 23\n@@ -38,7 +38,7 @@",
    )
    desk.does("undo")
    assert desk.managed() == before
    assert b"line twenty" in desk.work("setup.py").read_bytes()


def _day(data: bytes) -> bytes:
    return header.parse(data.partition(b"\ndiff")[0]).last_update.encode()


def test_nothing_edited_nothing_written(desk: Desk) -> None:
    before, log = desk.everything(), desk.does("oplog")
    assert desk.does("refresh") == "nothing to do: no file is edited\n"
    assert (desk.everything(), desk.does("oplog")) == (before, log)


def test_dry_run_shows_and_writes_nothing(desk: Desk) -> None:
    make(desk, "setup.py", b"line 20\n", b"")
    desk.write("vllm/fresh.py", b"1\n")
    desk.write("vllm/win32.py", None)
    before = desk.everything()
    result = json.loads(desk.does("refresh", "--dry-run", "--json"))
    assert result["changed"] == [SETUP]
    assert result["added"] == ["runtime/vllm/fresh.py.patch"]
    assert result["dropped"] == ["runtime/vllm/win32.py.patch"]
    assert result["written"] is False
    assert desk.everything() == before
    desk.does("refresh")
    assert desk.order() == ["CMakeLists.txt", "setup.py", "csrc/old.cu", "vllm/run.py",
                            "vllm/fresh.py"]  # fmt: skip


def test_only_what_is_named(desk: Desk) -> None:
    make(desk, "setup.py", b"line 20\n", b"")
    make(desk, "CMakeLists.txt", b"line 9\r\n", b"")
    make(desk, "vllm/run.py", b"more", b"less")
    desk.does("refresh", "setup.py", "build/CMakeLists.txt.patch")
    assert "less" not in (desk.root / "patch_series/runtime/vllm/run.py.patch").read_text()
    assert [one["file"] for one in json.loads(desk.does("status", "--json"))["edits"]] == [
        "vllm/run.py"
    ]
    said = desk.run("refresh", "setup.py")
    assert (said.code, said.err.splitlines()[0]) == (2, "error: setup.py is not edited")


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("CMakeLists.txt", b"a\r\nb\nc\rd"),
        ("csrc/form.cu", b"\xff\x0c\n\x0b\x85\xe2\x80\xa8" + LINES),
        ("csrc/form.cu", b""),
        ("setup.py", LINES + b"no newline"),
        ("vllm/other.py", Executable(LINES)),
        ("vllm/run.py", LINES),
        ("vllm/m\u00fc.py", b"\xe9\r\n"),
        ("vllm/empty.py", b""),
        ("csrc/old.cu", b"here again\n"),
        ("vllm/win32.py", b"new\n\x0c"),
        ("vllm/deep/a.py", None),
    ],
)
def test_any_bytes_and_modes_survive_refresh_pop_push_and_undo(
    desk: Desk, path: str, data: bytes | None
) -> None:
    if not desk.work(path).exists() and path in UPSTREAM and OURS.get(path, b"") is not None:
        desk.does("edit", "--no-editor", path)
    desk.write(path, data)
    edited = desk.everything()
    desk.does("refresh")
    made = desk.patched()
    assert made.get(path) == data
    assert isinstance(made.get(path), Executable) == isinstance(data, Executable)
    after = desk.everything()
    desk.does("pop", "-a")
    desk.does("push", "-a")
    assert desk.everything() == after
    desk.does("undo", "3")
    assert desk.everything() == edited
    desk.does("redo", "3")
    assert desk.everything() == after
    for patch in series.load(desk.root).patches:
        file = desk.root / "patch_series" / patch.name
        assert format_patch(parse_patch(patch.name, file.read_bytes())) == file.read_bytes()


def test_a_patch_that_is_emptied_is_dropped_and_comes_back(desk: Desk) -> None:
    before = desk.managed()
    desk.write("setup.py", UPSTREAM["setup.py"])
    assert desk.does("refresh").startswith(f"dropped {SETUP}  (nothing is left in it)\n")
    assert desk.order() == [path for path in OURS if path != "setup.py"]
    desk.does("undo")
    assert desk.managed() == before


def test_edits_in_a_file_whose_patch_is_not_applied_are_not_taken_for_it(desk: Desk) -> None:
    desk.does("pop", "CMakeLists.txt")
    make(desk, "setup.py", b"line 20\n", b"")
    before = desk.everything()
    for words in (("refresh",), ("push",), ("goto", "setup.py")):
        said = desk.run(*words)
        assert said.code == 2
        assert "setup.py" in said.err
        assert desk.everything() == before
    assert f"{SETUP} is not applied" in desk.run("refresh").err


@pytest.mark.parametrize(
    ("path", "data", "sentence"),
    [
        ("a b.py", b"", "quilt's series cannot hold a name with spaces"),
        ("vllm/x.py", b"\0", "holds NUL bytes"),
        ("setup.py", b"\0", "holds NUL bytes"),
        ("VLLM/RUN.py", b"x\n", "differ only by case"),
        ("vllm/other.py/x", b"x\n", "is both a file and a folder"),
        ("aux.py", b"x\n", "the name of a device"),
    ],
)
def test_what_no_patch_can_carry_is_kept_and_named(
    desk: Desk, path: str, data: bytes, sentence: str
) -> None:
    make(desk, "CMakeLists.txt", b"line 9\r\n", b"")
    desk.write(path, data)
    before = desk.everything()
    said = desk.run("refresh")
    assert said.code == 2
    assert path.split("/", maxsplit=1)[0].lower() in said.err.lower()
    assert sentence in said.err or "would change the same file" in said.err
    assert desk.everything() == before
    desk.does("refresh", "CMakeLists.txt")


# new, edit, revert


def test_new_announces_a_patch_and_refresh_fills_it(desk: Desk) -> None:
    desk.does("new", "vllm/other.py", "-m", "Do it\n\nBecause.")
    assert desk.work("vllm/other.py").read_bytes() == LINES
    assert "vllm/other.py  (nothing is in this patch yet)" in desk.does("status")
    make(desk, "vllm/other.py", b"line 3\n", b"")
    desk.does("refresh")
    head = header.parse(the_patch(desk, "vllm/other.py").header)
    assert (head.summary, head.body) == ("Do it", "Because.")
    assert "nothing is in this patch" not in desk.does("status")
    assert desk.applied()[-1] == "runtime/vllm/other.py.patch"


def test_new_for_a_file_that_is_not_there_or_is_edited_already(desk: Desk) -> None:
    desk.does("new", "csrc/fresh.cu", "-m", "Fresh")
    desk.write("csrc/fresh.cu", b"1\n")
    desk.write("vllm/deep/a.py", b"2\n")
    desk.does("new", "vllm/deep/a.py", "-m", "Deep")
    desk.does("refresh")
    subjects = {p.path: header.parse(p.header).summary for p in series.load(desk.root).patches}
    assert (subjects["csrc/fresh.cu"], subjects["vllm/deep/a.py"]) == ("Fresh", "Deep")
    assert desk.order()[3] == "csrc/fresh.cu"  # behind the others of its group


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("setup.py", f"setup.py has a patch: {SETUP}"),
        ("a b.py", "quilt's series cannot hold"),
        ("../x", "leaves"),
    ],
)
def test_new_refuses(desk: Desk, path: str, sentence: str) -> None:
    said = desk.run("new", path, "-m", "x")
    assert said.code == 2
    assert sentence in said.err or ".." in said.err
    assert "Traceback" not in said.err


def test_edit_opens_the_file_with_its_patch_applied(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "an editor.py"
    script.write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_bytes(file.read_bytes().replace(b'line five', b'line 5!'))\n"
    )
    monkeypatch.setenv("VISUAL", f'"{sys.executable}" "{script}"')
    desk.does("pop", "-a")
    desk.does("edit", "setup.py")
    assert desk.applied() == ["build/CMakeLists.txt.patch", SETUP]
    desk.does("refresh")
    assert b"+line 5!\n" in format_patch(the_patch(desk, "setup.py"))


def test_edit_brings_files_and_folders_and_no_edit_is_written_over(desk: Desk) -> None:
    desk.does("pop", "-a")
    desk.write("vllm/other.py", b"mine\n")
    desk.does("edit", "--no-editor", "vllm")
    assert desk.work("vllm/deep/a.py").read_bytes() == LINES
    assert desk.work("vllm/other.py").read_bytes() == b"mine\n"
    desk.does("edit", "--no-editor", ".")
    assert set(desk.lying()) == set(UPSTREAM)
    assert "vllm/deep" not in desk.does("status")
    said = desk.run("edit", "--no-editor", "vllm/nothing.py")
    assert (said.code, said.err.splitlines()[0]) == (2, "error: there is no patch vllm/nothing.py")


def test_revert_drops_edits_and_undo_brings_them_back(desk: Desk) -> None:
    whole = desk.everything()
    desk.write("setup.py", b"mine\n")
    desk.write("fresh.py", b"mine too\n")
    desk.write("vllm/win32.py", None)
    edited = desk.everything()
    desk.does("revert", "setup.py", "work/tree/fresh.py", "vllm/win32.py")
    assert desk.everything() == whole
    desk.does("undo")
    assert desk.everything() == edited
    assert desk.run("revert", "CMakeLists.txt").code == 2


# whole patches


def test_drop_takes_the_patch_and_its_change_away(desk: Desk) -> None:
    before = desk.everything()
    desk.does("drop", "setup.py", "vllm/win32.py")
    assert desk.order() == ["CMakeLists.txt", "csrc/old.cu", "vllm/run.py"]
    assert desk.work("setup.py").read_bytes() == LINES
    assert not desk.work("vllm/win32.py").exists()
    assert desk.patched()["setup.py"] == LINES
    desk.does("undo")
    assert desk.everything() == before
    make(desk, "setup.py", b"five", b"5")
    said = desk.run("drop", "setup.py")
    assert said.code == 2
    assert "edits would be lost" in said.err


def test_rename_to_another_group_and_to_another_file(desk: Desk) -> None:
    desk.does("rename", "vllm/win32.py", "build/vllm/win32.py.patch")
    assert (desk.root / "patch_series/build/vllm/win32.py.patch").is_file()
    desk.does("rename", "vllm/win32.py", "vllm/windows.py")
    assert not desk.work("vllm/win32.py").exists()
    assert desk.work("vllm/windows.py").read_bytes() == b"new\n"
    desk.does("rename", "vllm/run.py", "vllm/go.py")
    change = the_patch(desk, "vllm/go.py").change
    assert (change.old_path, change.new_path) == ("vllm/run.py", "vllm/go.py")
    assert desk.patched()["vllm/go.py"] == OURS["vllm/run.py"]
    assert "vllm/run.py" not in desk.patched()
    assert isinstance(desk.lying()["vllm/go.py"], Executable) == (os.name != "nt")
    make(desk, "vllm/go.py", b"more", b"less")
    desk.does("refresh")
    assert the_patch(desk, "vllm/go.py").change.old_path == "vllm/run.py"
    desk.does("rename", "vllm/go.py", "vllm/run.py")
    assert the_patch(desk, "vllm/run.py").change.old_path == "vllm/run.py"
    desk.does("undo", "2")
    desk.does("redo", "2")
    desk.does("undo", "2")
    assert desk.run("undo").code == 2  # an edit was made since
    desk.does("revert", "vllm/go.py")
    desk.does("drop", "vllm/go.py")
    assert desk.work("vllm/run.py").read_bytes() == LINES


@pytest.mark.parametrize("new", ["vllm/other.py", "setup.py", "a b", "x/y.patch", "vllm", "../x"])
def test_rename_refuses_names_in_use_and_names_that_cannot_be(desk: Desk, new: str) -> None:
    before = desk.everything()
    said = desk.run("rename", "vllm/win32.py", new)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert desk.everything() == before


def test_reorder_moves_a_patch_and_leaves_headings(desk: Desk) -> None:
    order = desk.root / "patch_series/series"
    order.write_bytes(
        b"# Build\n" + order.read_bytes().replace(b"kernels", b"\n# Kernels\nkernels")
    )
    desk.does("reorder", "setup.py", "--first")
    assert order.read_bytes().startswith(b"# Build\nbuild/setup.py.patch\nbuild/CMakeLists")
    desk.does("reorder", "vllm/run.py", "--before", "csrc/old.cu")
    assert b"runtime/vllm/run.py.patch\n\n# Kernels\nkernels/csrc/old.cu" in order.read_bytes()
    desk.does("reorder", "CMakeLists.txt", "--last")
    desk.does("reorder", "csrc/old.cu", "--after", "setup.py")
    assert desk.order()[:2] == ["setup.py", "csrc/old.cu"]
    assert desk.order()[-1] == "CMakeLists.txt"
    assert len(desk.applied()) == len(OURS)
    assert desk.run("reorder", "setup.py", "--before", "setup.py").code == 2


def test_split_takes_hunks_out_and_fold_puts_them_back(desk: Desk) -> None:
    before = desk.managed()
    desk.does("split", "setup.py", "--hunk", "1")
    assert b"five" not in desk.work("setup.py").read_bytes()
    file = desk.root / "work/split/setup.py-1.patch"
    assert parse_patch("x", file.read_bytes()).header == HEADER
    desk.does("fold", str(file))
    made = the_patch(desk, "setup.py")
    assert made.change == parse_patch("x", before[f"patch_series/{SETUP}"]).change
    desk.does("undo", "2")
    assert desk.managed() == before
    assert not file.exists()
    out = desk.does("split", "setup.py", "--hunk", "1", "--hunk", "2")
    assert "nothing is left in it" in out
    desk.does("fold", str(desk.root / "work/split/setup.py-1-2.patch"))
    assert the_patch(desk, "setup.py").header == HEADER
    assert desk.run("split", "setup.py", "--hunk", "9").code == 2


def test_fold_takes_a_diff_on_the_patched_or_on_the_pristine_source(desk: Desk) -> None:
    on_patched = b"--- a/setup.py\n+++ b/setup.py\n@@ -6,1 +6,1 @@\n-line five\n+line V\n"
    on_pristine = (
        b"--- a/setup.py\n+++ b/setup.py\n@@ -5,3 +5,3 @@\n line 4\n line 5\n-line 6\n+VI\n"
    )
    fresh = b"--- /dev/null\n+++ b/vllm/fresh.py\n@@ -0,0 +1 @@\n+1\n"
    file = desk.root / "other one.patch"
    file.write_bytes(on_patched + fresh)
    assert json.loads(desk.does("fold", str(file), "--json"))["added"] == [
        "runtime/vllm/fresh.py.patch"
    ]
    assert b"line V\n" in desk.work("setup.py").read_bytes()
    before = desk.everything()
    file.write_bytes(on_pristine + fresh.replace(b"\n+1", b"\n+2"))
    said = desk.run("fold", str(file))
    assert said.code == 2
    assert "  setup.py: hunk 1 does not apply at line 6" in said.err
    assert "  vllm/fresh.py: the new file exists already" in said.err
    assert desk.everything() == before
    file.write_bytes(on_pristine.replace(b" line 4\n line 5\n", b"").replace(b"5,3 +5,3", b"7 +7"))
    desk.does("fold", str(file))
    assert b"line V\nVI\n" in desk.work("setup.py").read_bytes()
    for nothing in (b"", b"no diff"):
        file.write_bytes(nothing)
        assert desk.run("fold", str(file)).code == 2
    assert desk.run("fold", "none.patch").code == 2


def test_editing_waits_while_a_refresh_to_another_release_is_under_way(desk: Desk) -> None:
    make(desk, "setup.py", b"five", b"5")
    (desk.root / ".port/refresh.json").write_bytes(b"{}")
    for words in (("refresh",), ("drop", "vllm/run.py"), ("undo",)):
        assert desk.run(*words).code == 4
    desk.does("pop")


def test_every_command_has_help_with_an_example(desk: Desk) -> None:
    for name in ("push", "pop", "goto", "top", "next", "applied", "status", "new", "edit", "revert",
                 "refresh", "fold", "drop", "rename", "reorder", "split", "undo", "redo", "oplog",
                 "import", "export", "docs"):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            desk.run(name, "--help")
        assert done.value.code == 0
    assert stat.S_ISDIR(desk.root.stat().st_mode)
