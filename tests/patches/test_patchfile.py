"""Patches and diffs as real tools write them, and what is refused with which sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unidiff.patch import PatchSet

from portkit.errors import BadFile, BadInput
from portkit.model import FileChange, Patch, split_lines
from portkit.patches.apply import apply_change, change_between, edits_of, hunks_from_edits, reverse
from portkit.patches.diffparse import parse_diff, unsafe_path
from portkit.patches.patchfile import (
    canonical,
    canonical_change,
    format_change,
    format_patch,
    parse_patch,
)
from portkit.upstream.git import Store, git, path_from_bytes
from portkit.upstream.source import Source

HUNK = b"@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
CHANGE = b"diff --git a/f.py b/f.py\n--- a/f.py\n+++ b/f.py\n" + HUNK
HEADER = b"Description: replace b\n By B, which Windows has.\nForwarded: no\n"

ENDINGS = [b"\n", b"\r\n", b"\f\n", b"\x85\n", b"\xff\n", b"\x0b\n"]
WORDS = [b"", b"a", b" b", b"- a", b"-- a", b"++ b", b"@@ -1 +1 @@", b"diff --git a/x b/x", b"\\ N"]
lines = st.builds(bytes.__add__, st.sampled_from(WORDS), st.sampled_from(ENDINGS))
tails = st.sampled_from([b"", b"", b"end", b"\r"])
files = st.builds(lambda body, tail: b"".join(body) + tail, st.lists(lines, max_size=30), tails)
names = st.sampled_from(
    [
        "f.py",
        "with space.py",
        "caf\xe9.py",
        'quo"te',
        "tab\tname",
        "a/x",
        "b/x b/x",
        "new\x7f",
        "\udcff",
    ]
)

DiffMaker = Callable[..., bytes]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git("init", "--quiet", "--template=", str(tmp_path / "repo"))
    return tmp_path / "repo"


def _commit(folder: Path, content: dict[str, bytes | None]) -> None:
    for name, data in content.items():
        file = folder / name
        if data is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--allow-empty", "-m", "change", cwd=folder)


OLD: dict[str, bytes | None] = {
    "plain.py": b"a\nb\nc\n",
    "crlf.py": b"a\r\nb\r\nc\r\n",
    "with space.py": b"a\nb\n",
    "caf\xe9.txt": b"caf\xe9\f\nb\n",
    "no newline": b"a\nb",
    "gone.py": b"x\ny\n",
    "gone empty": b"",
    "old name.py": b"".join(b"%d\n" % n for n in range(20)),
    "moved.py": b"".join(b"m%d\n" % n for n in range(20)),
    "dir/a/deep.py": b"-- a\n++ b\n",
}
NEW: dict[str, bytes | None] = {
    "plain.py": b"a\nB\nc\n",
    "crlf.py": b"a\r\nB\r\nc\r\n",
    "with space.py": b"a\nB\n",
    "caf\xe9.txt": b"th\xe9\f\nb\n",
    "no newline": b"a\nb\n",
    "gone.py": None,
    "gone empty": None,
    "old name.py": None,
    "new name.py": b"".join(b"%d\n" % n for n in range(20)),
    "moved.py": None,
    "to/moved.py": b"".join(b"m%d\n" % n for n in range(19)) + b"changed\n",
    "dir/a/deep.py": b"-- b\n++ a\n",
    "fresh.py": b"x\n",
    "fresh empty": b"",
}


def _applied(changes: tuple[FileChange, ...]) -> dict[str, bytes | None]:
    tree = dict(OLD)
    for change in changes:
        base = tree.get(change.old_path) if change.old_path is not None else None
        if change.old_path is not None:
            del tree[change.old_path]
        after = apply_change(change, base)
        if change.new_path is not None:
            tree[change.new_path] = after
    return tree


def _expected() -> dict[str, bytes | None]:
    return {name: data for name, data in (OLD | NEW).items() if data is not None}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--no-renames",),
        ("--no-prefix",),
        ("--src-prefix=old/", "--dst-prefix=new/"),
        ("--src-prefix=i/", "--dst-prefix=w/"),
        ("-U0",),
        ("--full-index", "-U10", "--patience"),
        ("-c", "core.quotePath=false"),
    ],
)
def test_every_kind_of_git_diff(repository: Path, options: tuple[str, ...]) -> None:
    _commit(repository, OLD)
    _commit(repository, NEW)
    config = options if options[:1] == ("-c",) else ()
    shown = () if config else options
    out = git(*config, "diff", "-M", *shown, "HEAD^", "HEAD", cwd=repository)
    assert _applied(parse_diff(out, "x.patch")) == _expected()


def test_format_patch_mails(repository: Path) -> None:
    _commit(repository, OLD)
    _commit(repository, NEW)
    mail = git("format-patch", "--stdout", "-1", cwd=repository)
    assert mail.startswith(b"From ")
    assert _applied(parse_diff(mail, "x.patch")) == _expected()


@pytest.mark.skipif(shutil.which("diff") is None, reason="no GNU diff")
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_gnu_diff_of_two_folders(tmp_path: Path, zone: str) -> None:
    for folder, content in (("vllm 0.14.1", OLD), ("vllm-new", OLD | NEW)):
        for name, data in content.items():
            if data is not None:
                (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / folder / name).write_bytes(data)
    done = subprocess.run(
        ["diff", "-ruN", "vllm 0.14.1", "vllm-new"],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"TZ": zone, "LC_ALL": "C"},
        check=False,
    )
    # GNU diff does not know empty files.
    expected = _expected() | {"gone empty": b""}
    del expected["fresh empty"]
    assert _applied(parse_diff(done.stdout, "x.patch")) == expected


def test_gnu_diff_without_n_is_refused_where_it_leaves_files_out() -> None:
    data = b"Only in new: fresh.py\n--- old/f\n+++ new/f\n" + HUNK
    with pytest.raises(BadFile, match=r"x\.patch:1: a file that exists on one side only") as caught:
        parse_diff(data, "x.patch")
    assert caught.value.hint == "use diff -ruN"


def test_mode_changes_and_modes_of_new_files() -> None:
    section = b"diff --git a/f b/f\nold mode 100644\nnew mode 100755\n"
    (change,) = parse_diff(section, "x")
    assert change == FileChange("f", "f", (), "100644", "100755")
    assert format_change(change) == section
    section = b"diff --git a/f b/f\nnew file mode 100755\nindex 0000000..e69de29\n"
    (change,) = parse_diff(section, "x")
    assert change == FileChange(None, "f", (), None, "100755")
    assert apply_change(change, None) == b""


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (b"a/src/f.c", b"b/src/f.c", "src/f.c"),
        (b"src/f.c", b"src/f.c", "src/f.c"),
        (b"src/f.c.orig", b"src/f.c", "src/f.c"),
        (b"f.c~", b"f.c", "f.c"),
        (b"vllm-0.14.1/src/f.c\t2026-01-01 10:00:00.000000000 +0100", b"vllm/src/f.c\t", "src/f.c"),
        (b'"a/caf\\303\\251"', b'"b/caf\\303\\251"', "caf\xe9"),
    ],
)
def test_names_of_plain_diffs(old: bytes, new: bytes, path: str) -> None:
    (change,) = parse_diff(b"--- %s\n+++ %s\n" % (old, new) + HUNK, "x")
    assert (change.old_path, change.new_path) == (path, path)


def test_short_counts_and_trimmed_context_lines() -> None:
    (change,) = parse_diff(b"--- f\n+++ f\n@@ -3,3 +3,3 @@ int f()\n\n-b\n+B\n\n", "x")
    assert change.hunks[0].lines == (b" \n", b"-b\n", b"+B\n", b" \n")
    (change,) = parse_diff(b"--- f\n+++ f\n@@ -1 +1 @@\n-b\n+B\n", "x")
    assert b"\n@@ -1 +1 @@\n" in format_change(change)


def test_translated_marker_of_a_missing_newline() -> None:
    data = b"--- f\n+++ f\n@@ -1 +1 @@\n-b\n\\ Kein Zeilenumbruch am Dateiende.\n+b\n"
    (change,) = parse_diff(data, "x")
    assert apply_change(change, b"b") == b"b\n"
    assert b"-b\n\\ No newline at end of file\n+b\n" in format_change(change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.patch: no change found"),
        (b"hello\nworld\n", "x.patch: no change found"),
        (b"\x89PNG\r\n\x1a\n\0\0", "x.patch: no change found"),
        (
            b"diff --git a/f b/f\nindex 1..2 100644\nGIT binary patch\nliteral 3\n",
            "x.patch:3: binary change",
        ),
        (
            b"diff --git a/f b/f\nindex 1..2 100644\nBinary files a/f and b/f differ\n",
            "x.patch:3: binary change",
        ),
        (b"Binary files old/f and new/f differ\n", "x.patch:1: binary change"),
        (
            b"diff --git a/f b/g\nsimilarity index 100%\ncopy from f\ncopy to g\n",
            "x.patch:1: copied file",
        ),
        (
            b"diff --git a/f b/f\nnew file mode 120000\n--- /dev/null\n+++ b/f\n"
            b"@@ -0,0 +1 @@\n+a\n",
            "x.patch:1: symbolic link",
        ),
        (b"diff --git a/f b/f\nnew file mode 160000\n", "x.patch:1: submodule"),
        (b"diff --git a/f b/f\nnew file mode 100600\n", "x.patch:1: unknown file mode '100600'"),
        (
            b"diff --cc f\n--- a/f\n+++ b/f\n@@@ -1 -1 +1 @@@\n",
            "x.patch:1: combined diff of a merge",
        ),
        (b"diff --git a/f b/f\n", "x.patch:1: this file's section changes nothing"),
        (b"diff --git a/f b/g\n", "x.patch:1: cannot tell which file this section changes"),
        (b"text\n" + HUNK, "x.patch:2: hunk without a file header"),
        (b"--- a/f\n+++ b/f\ntext\n", "x.patch:3: no hunk follows the file's header"),
        (b"--- a/f\n+++ b/g\n" + HUNK, "x.patch:1: the `---` and `+++` lines name different files"),
        (
            b"diff --git a/f b/f\n--- a/g\n+++ b/g\n" + HUNK,
            "x.patch:1: `diff --git` and the `---`/`+++` lines name different files",
        ),
        (b"--- a/f\n+++ b/f\n@@ -1,3 @@\n", "x.patch:3: malformed hunk header"),
        (b"--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n-a\n", "x.patch:4: the patch ends inside a hunk"),
        (b"--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n-a\noops\n", "x.patch:5: not a line of a hunk"),
        (
            b"--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-a\n-b\n-c\n+d\n",
            "x.patch:3: the hunk's counts do not",
        ),
        (b"--- a/f\n+++ b/f\n" + HUNK + b" d\n", "x.patch:8: more lines than the hunk header says"),
        (
            b"--- a/f\n+++ b/f\n" + HUNK + b"\n+d\n",
            "x.patch:9: more lines than the hunk header says",
        ),
        (b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n a\n", "x.patch:3: hunk changes nothing"),
        (
            b"--- a/f\n+++ b/f\n@@ -0 +1 @@\n-a\n+b\n",
            "x.patch:3: line numbers of a hunk begin at 1",
        ),
        (b"--- a/f\n+++ b/f\n" + HUNK + HUNK, "x.patch:8: hunk overlaps the one before it"),
        (
            b"--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n-a\n\\ No newline at end of file\n b\n",
            "x.patch:3: a line without newline is not the last one of its file",
        ),
        (
            b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n"
            b"@@ -9 +9 @@\n-a\n+b\n",
            "x.patch:7: hunk after the end of the file",
        ),
        (CHANGE.replace(b"\n", b"\r\n"), "x.patch:1: the lines of the diff itself end in CRLF"),
        (b"--- a/../f\n+++ b/../f\n" + HUNK, "x.patch:1: path '../f' leaves its folder"),
        (b"--- /etc/f\n+++ /etc/f\n" + HUNK, "x.patch:1: path '/etc/f' is absolute"),
        (b"--- a/.git/f\n+++ b/.git/f\n" + HUNK, "x.patch:1: path '.git/f' is inside .git"),
        (b"--- /dev/null\n+++ b/f\n" + HUNK, "x.patch:1: a new file cannot have old lines"),
        (b"--- a/f\n+++ /dev/null\n" + HUNK, "x.patch:1: a deleted file cannot keep lines"),
        (b"--- /dev/null\n+++ /dev/null\n" + HUNK, "x.patch:1: both sides are /dev/null"),
    ],
)
def test_what_cannot_be_carried_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadFile) as caught:
        parse_diff(data, "x.patch")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("csrc/core/math.hpp", True),
        ("with space/caf\xe9.py", True),
        ("a/.gitignore", True),
        ("", False),
        ("/a", False),
        ("C:/a", False),
        ("a//b", False),
        ("a/./b", False),
        ("..\\a", False),
        ("a/.GIT/config", False),
        ("a\nb", False),
    ],
)
def test_unsafe_paths(path: str, safe: bool) -> None:
    assert (unsafe_path(path) == "") is safe


# one patch of the series


def test_header_is_kept_byte_for_byte() -> None:
    patch = parse_patch("runtime/f.py.patch", HEADER + b"\n" + CHANGE)
    assert patch.header == HEADER
    assert (patch.path, patch.group) == ("f.py", "runtime")
    assert format_patch(patch) == HEADER + b"\n" + CHANGE


def test_canonical_form_drops_what_churns() -> None:
    noisy = (
        HEADER
        + b"\n\n\ndiff --git a/f.py b/f.py\nindex 1234567..89abcde 100644\n--- a/f.py\n+++ b/f.py\n"
        + b"@@ -10,3 +99,3 @@ def f():\n a\n-b\n+B\n c\n\n"
    )
    patch = parse_patch("runtime/f.py.patch", noisy)
    written = format_patch(patch)
    assert written == HEADER + b"\n" + CHANGE.replace(b"-1,3 +1,3", b"-10,3 +10,3")
    assert parse_patch(patch.name, written) == canonical(patch)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "patch_series/f.patch: no change found"),
        (HEADER, "patch_series/f.patch: no change found"),
        (HEADER + b"\n" + HUNK, "patch_series/f.patch:5: hunk without a file header"),
        (CHANGE + CHANGE, "patch_series/f.patch:9: changes a second file"),
        (CHANGE + b"-- \n2.39.5\n", "patch_series/f.patch:9: text after the change"),
        (HEADER + b"\n" + CHANGE + b"bye\n", "patch_series/f.patch:13: text after the change"),
        (HEADER + b"\n" + CHANGE[:-4], "patch_series/f.patch:11: not a line of a hunk"),
        (b"diff --cc f\n", "patch_series/f.patch:1: combined diff of a merge"),
    ],
)
def test_malformed_patches(data: bytes, message: str) -> None:
    with pytest.raises(BadFile) as caught:
        parse_patch("f.patch", data)
    assert caught.value.message == message


def test_a_header_that_reads_as_a_diff_is_never_written() -> None:
    patch = parse_patch("f.patch", CHANGE)
    with pytest.raises(BadInput, match="the header holds the beginning of a diff"):
        format_patch(Patch("f.patch", b"Description: x\n" + CHANGE, patch.change))


headers = st.lists(
    st.sampled_from([b"Description: x\n", b" y\n", b"caf\xe9\r\n", b"--- \n", b"\n"])
)


@settings(max_examples=60, deadline=None)
@given(names, files, files, headers)
def test_round_trip_of_any_patch(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    base: bytes,
    new: bytes,
    header: list[bytes],
) -> None:
    if base == new:
        return
    if unsafe_path(name):
        name = "f"
    folder = tmp_path_factory.mktemp("diff")
    (folder / "old").write_bytes(base)
    (folder / "new").write_bytes(new)
    shown = git("diff", "--no-index", "--text", "old", "new", cwd=folder, ok=(1,))
    shown = shown.replace(b" a/old b/new\n", b" a/f b/f\n", 1)
    shown = shown.replace(b"--- a/old\n+++ b/new\n", b"--- a/f\n+++ b/f\n", 1)
    (change,) = parse_diff(shown, "x")
    assert apply_change(change, base) == new
    assert apply_change(reverse(change), new) == base
    _agrees_with_unidiff(shown, change)

    named = FileChange(name, name, change.hunks)
    patch = canonical(Patch("x.patch", b"".join(header), named))
    written = format_patch(patch)
    again = parse_patch("x.patch", written)
    assert again == patch
    assert again.header == b"".join(header).rstrip(b"\n") + b"\n" * bool(again.header)
    assert format_patch(again) == written


def _agrees_with_unidiff(data: bytes, change: FileChange) -> None:
    (parsed,) = PatchSet(StringIO(data.decode("latin-1"), newline="\n"))
    for theirs, ours in zip(parsed, change.hunks, strict=True):
        assert theirs.source_start == ours.old_start and theirs.target_start == ours.new_start
        shown = b"".join(
            line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
            for line in ours.lines
        )
        assert "".join(str(line) for line in theirs).encode("latin-1") == shown


@settings(max_examples=30, deadline=None)
@given(names.filter(lambda name: not unsafe_path(name)), files)
def test_git_takes_new_deleted_and_renamed_files(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("apply")
    env = {"GIT_CEILING_DIRECTORIES": str(folder)}
    new = change_between(name, None, content)
    renamed = FileChange(name, "renamed to.py", (), "100644", "100755")
    gone = reverse(change_between("renamed to.py", None, content))
    for change in (new, renamed):
        git("apply", "-", cwd=folder, stdin=format_change(change), env=env)
    assert [file.name for file in folder.iterdir()] == ["renamed to.py"]
    assert (folder / "renamed to.py").read_bytes() == content
    both = format_change(new) + format_change(renamed)
    assert parse_diff(both, "x") == (canonical_change(new), renamed)
    git("apply", "-", cwd=folder, stdin=format_change(gone), env=env)
    assert not list(folder.iterdir())


@settings(deadline=None)
@given(st.data())
def test_damaged_diffs_are_refused_or_read_as_what_they_say(data: st.DataObject) -> None:
    lines = (HEADER + b"\n" + CHANGE + CHANGE.replace(b"f.py", b"g.py")).splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        other = data.draw(st.sampled_from(lines))
        cut = data.draw(st.integers(0, len(lines[at])))
        lines[at : at + 1] = data.draw(
            st.sampled_from([[], [other], [lines[at], other], [lines[at][:cut]], [lines[at]] * 2])
        )
    damaged = b"".join(lines)
    try:
        changes = parse_diff(damaged, "x")
    except BadFile:
        return
    written = b"".join(format_change(change) for change in changes)
    assert parse_diff(written, "x") == tuple(canonical_change(change) for change in changes)


def test_names_that_are_not_utf8_survive() -> None:
    name = path_from_bytes(b"\xff\xe9.py")
    change = change_between(name, b"a\n", b"b\n")
    assert b'"a/\\377\\351.py"' in format_change(change)
    assert parse_diff(format_change(change), "x") == (change,)


def test_a_whole_upstream_release_step_survives(
    store: Store, obtain_tag: Callable[[str], Source]
) -> None:
    old, new = obtain_tag("v0.14.1").tree, obtain_tag("v0.16.0").tree
    listed = store.git("diff", "--no-renames", "--numstat", "-z", old, new).split(b"\0")
    binary = [line[4:].decode() for line in listed if line.startswith(b"-\t-\t")]
    text_only = [f":(exclude,literal){path}" for path in binary]
    changes = parse_diff(store.git("diff", "-M", old, new, "--", ".", *text_only), "step.patch")
    assert len(changes) > 1000
    before, after = store.files(old), store.files(new)
    for change in changes:
        base = store.read(before[change.old_path].oid) if change.old_path is not None else None
        result = store.read(after[change.new_path].oid) if change.new_path is not None else None
        assert apply_change(change, base) == result
        assert apply_change(reverse(change), result) == base
        if base is not None and result is not None:
            again = hunks_from_edits(split_lines(base), edits_of(change))
            assert again == canonical_change(change).hunks  # git's own hunks
    written = b"".join(format_change(change) for change in changes)
    assert parse_diff(written, "x") == tuple(canonical_change(change) for change in changes)
