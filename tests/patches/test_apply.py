"""Exact application, reversal, hunks from edits and git's diff, checked against git itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portkit.errors import BadInput
from portkit.model import Edit, FileChange, Hunk, split_lines
from portkit.patches.apply import (
    DoesNotApply,
    apply_change,
    apply_edits,
    change_between,
    diff,
    diffs,
    edits_of,
    hunks_from_edits,
    reverse,
)
from portkit.patches.patchfile import canonical_change, format_change
from portkit.upstream.git import git

ENDINGS = [b"\n", b"\r\n", b"\r\r\n", b"\f\n", b"\x85\n", b"\xff\n"]
WORDS = [b"", b"a", b"b", b"}", b"@@ -1 +1 @@", b"-- a", b"++ b", b"\\ No", b"diff --git a/x b/x"]
lines = st.builds(bytes.__add__, st.sampled_from(WORDS), st.sampled_from(ENDINGS))
tails = st.sampled_from([b"", b"", b"end", b"\r", b"\f"])
files = st.builds(lambda body, tail: b"".join(body) + tail, st.lists(lines, max_size=30), tails)


@st.composite
def edited(draw: st.DrawFn) -> tuple[list[bytes], list[Edit]]:
    """A file and edits in order, as a carrying rung would make them."""
    base = [b"%d\n" % n if n % 4 else b"}\n" for n in range(draw(st.integers(0, 60)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(base)), max_size=10)))
    added = st.lists(st.sampled_from([b"x\n", b"}\r\n", b"\n"]), max_size=4)
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return base, [Edit(start, end, tuple(draw(added))) for start, end in pairs]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(files, files), min_size=1, max_size=12))
def test_git_diff_applied_gives_the_new_file_and_reversed_the_old(
    pairs: list[tuple[bytes, bytes]],
) -> None:
    for (base, new), edits in zip(pairs, diffs(pairs), strict=True):
        hunks = hunks_from_edits(split_lines(base), edits)
        change = FileChange("x", "x", hunks)
        assert apply_change(change, base) == new
        assert apply_change(reverse(change), new) == base
        assert reverse(reverse(change)) == change
        assert b"".join(apply_edits(split_lines(base), edits_of(change))) == new
        assert edits_of(change) == edits


@settings(max_examples=40, deadline=None)
@given(edited())
def test_git_accepts_hunks_made_from_edits_and_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[list[bytes], list[Edit]]
) -> None:
    base, edits = case
    hunks = hunks_from_edits(base, edits)
    expected = b"".join(apply_edits(base, edits))
    change = FileChange("x", "x", hunks)
    assert apply_change(change, b"".join(base)) == expected
    if not hunks:
        assert expected == b"".join(base)
        return
    folder = tmp_path_factory.mktemp("apply")
    (folder / "x").write_bytes(b"".join(base))
    (folder / "p").write_bytes(format_change(change))
    git("apply", "--unidiff-zero", "p", cwd=folder, env={"GIT_CEILING_DIRECTORIES": str(folder)})
    assert (folder / "x").read_bytes() == expected


def test_hunks_are_those_of_git_diff(tmp_path: Path) -> None:
    base = b"".join(b"%d\n" % n for n in range(100))
    new = (
        base.replace(b"\n10\n", b"\nten\n")
        .replace(b"\n17\n", b"\n")
        .replace(b"\n60\n", b"\na\nb\n")
    )
    (tmp_path / "a").write_bytes(base)
    (tmp_path / "b").write_bytes(new)
    shown = git("diff", "--no-index", "a", "b", cwd=tmp_path, ok=(1,))
    ours = format_change(change_between("x", base, new))
    heads = [line.split(b" @@")[0] for line in shown.splitlines() if line.startswith(b"@@")]
    assert [line[:-3] for line in ours.splitlines() if line.startswith(b"@@")] == heads
    assert len(heads) == 2  # 10 and 17 are six lines apart: one hunk


def test_contexts_one_line_apart_stay_two_hunks() -> None:
    base = [b"%d\n" % n for n in range(30)]
    assert len(hunks_from_edits(base, [Edit(5, 6, ()), Edit(12, 13, ())])) == 1
    assert len(hunks_from_edits(base, [Edit(5, 6, ()), Edit(13, 14, ())])) == 2


def test_edits_that_touch_become_one_run() -> None:
    (hunk,) = hunks_from_edits([b"a\n", b"b\n"], [Edit(0, 1, (b"A\n",)), Edit(1, 2, (b"B\n",))])
    assert hunk.lines == (b"-a\n", b"-b\n", b"+A\n", b"+B\n")


@pytest.mark.parametrize(
    "edits",
    [
        [Edit(1, 2, ()), Edit(0, 1, ())],
        [Edit(0, 2, ()), Edit(1, 2, ())],
        [Edit(0, 9, ())],
        [Edit(2, 2, (b"after the last line\n",))],
    ],
)
def test_edits_that_cannot_be_a_diff_are_refused(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="edit"):
        hunks_from_edits([b"a\n", b"b"], edits)


def _change(*lines: bytes, start: int = 1) -> FileChange:
    old = sum(line[:1] != b"+" for line in lines)
    new = sum(line[:1] != b"-" for line in lines)
    return FileChange("f.py", "f.py", (Hunk(start, old, start, new, lines),))


@pytest.mark.parametrize(
    ("change", "base", "message", "line"),
    [
        (
            _change(b" a\n", b"-b\n", start=3),
            b"x\na\nb\n",
            "f.py: hunk 1 does not apply at line 3: expected 'a\\n', found 'b\\n'",
            3,
        ),
        (
            _change(b" a\n", b"-b\n"),
            b"a\nb",
            "f.py: hunk 1 does not apply at line 2: expected 'b\\n', found 'b'",
            2,
        ),
        (
            _change(b" a\n", b"-b\n"),
            b"a\n",
            "f.py: hunk 1 does not apply at line 2: expected 'b\\n', found the end of the file",
            2,
        ),
        (
            _change(b" a\n", b"+b"),
            b"a\nc\n",
            "f.py: a line without newline ends up inside, at line 2",
            0,
        ),
        (
            FileChange("f.py", "f.py", (Hunk(9, 0, 10, 1, (b"+a\n",)),)),
            b"a\n",
            "f.py: hunk 1 is at line 9, the file has 1",
            9,
        ),
        (_change(b"-a\n"), None, "f.py: there is no file f.py", 0),
        (FileChange(None, "f.py"), b"", "f.py: the new file exists already", 0),
        (
            FileChange("f.py", None, (Hunk(1, 1, 0, 0, (b"-a\n",)),)),
            b"a\nb\n",
            "f.py: the deleted file has lines that the patch does not know",
            0,
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    change: FileChange, base: bytes | None, message: str, line: int
) -> None:
    with pytest.raises(DoesNotApply) as caught:
        apply_change(change, base)
    assert caught.value.message == message
    assert caught.value.line == line


def test_a_lookalike_elsewhere_is_never_taken() -> None:
    change = _change(b" def f():\n", b"-    old\n", b"+    new\n", start=4)
    moved = b"# one line more\n\n\n\ndef f():\n    old\n"
    with pytest.raises(DoesNotApply):
        apply_change(change, moved)


def test_new_deleted_renamed_and_mode_only() -> None:
    new = change_between("f", None, b"a\nb")
    assert apply_change(new, None) == b"a\nb"
    assert apply_change(reverse(new), b"a\nb") is None
    assert apply_change(FileChange(None, "f"), None) == b""
    assert apply_change(FileChange("f", None), b"") is None
    renamed = change_between("new", b"a\n", b"a\n", old_path="old")
    assert (renamed.old_path, renamed.new_path, renamed.hunks) == ("old", "new", ())
    assert apply_change(renamed, b"a\n") == b"a\n"
    mode = change_between("f", b"a\n", b"a\n", old_mode="100644", new_mode="100755")
    assert canonical_change(mode) == mode


def test_diff_is_blind_to_encodings_and_attributes(tmp_path: Path) -> None:
    base = b"\xef\xbb\xbfcaf\xe9\r\nkeep\r\nlast"
    new = b"\xef\xbb\xbfcaf\xe9\nkeep\r\nlast\n"
    assert diff(base, new) == [Edit(0, 1, (b"\xef\xbb\xbfcaf\xe9\n",)), Edit(2, 3, (b"last\n",))]


def test_nul_bytes_are_refused() -> None:
    with pytest.raises(BadInput, match="a file with NUL bytes is not text"):
        diff(b"a\0", b"b")
