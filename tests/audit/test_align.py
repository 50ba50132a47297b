"""Blank lines that give equal code equal line numbers, and change nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from portkit.audit import align
from portkit.audit.ctokens import logical_lines
from portkit.cuda.includes import Closure

LINES = st.lists(st.sampled_from(["a;", "b(c);", "#define M \\", "  x \\", "y", "", "// z"]))


@given(before=LINES, after=LINES)
def test_only_blank_lines_are_added(before: list[str], after: list[str]) -> None:
    one, other = (("\n".join(lines) + "\nend;\n").encode() for lines in (before, after))
    left, right = align.texts(one, other)
    assert list(logical_lines(left)) == list(logical_lines(one))
    assert list(logical_lines(right)) == list(logical_lines(other))
    assert left.count(b"\n") == right.count(b"\n")


def test_equal_code_gets_equal_numbers() -> None:
    upstream = b"first;\nCHECK(x);\nlast;\n"
    patched = b"first;\n#ifdef _MSC_VER\nusing uint = unsigned;\n#endif\nCHECK(x);\n"
    one, other = (text.split(b"\n") for text in align.texts(upstream, patched))
    assert one.index(b"CHECK(x);") == other.index(b"CHECK(x);") == 4
    assert len(one) == len(other)


def test_a_raw_string_is_left_alone() -> None:
    upstream = b'x = R"(\n)";\n'
    assert align.texts(upstream, b"y;\n" + upstream) == (upstream, b"y;\n" + upstream)


def test_files_that_are_equal_stay_as_they_are() -> None:
    same = {"a.h": b"a\n"}
    left, right = align.closures(
        Closure("u", {**same, "u": b"x\n"}), Closure("u", {**same, "u": b"y\nx\n"})
    )
    assert left.files["a.h"] == right.files["a.h"] == b"a\n"
    assert left.files["u"] == b"\nx\n"
