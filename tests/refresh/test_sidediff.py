"""Side by side: nothing lost, nothing twice, words marked where they differ."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from portkit.face.colours import colours, pieces
from portkit.report.sidediff import Row, three_sides, two_sides

LINES = st.lists(st.sampled_from(["", "a b", "a c", "int x = 1;", "int y = 1;", "}"]), max_size=12)


def column(rows: Sequence[Row], number: int) -> list[int]:
    return [cell.index for row in rows if (cell := row.cells[number]) is not None]


@given(LINES, LINES)
def test_two_sides_show_every_line_once_in_order(left: list[str], right: list[str]) -> None:
    rows = two_sides(left, right)
    assert column(rows, 0) == list(range(len(left)))
    assert column(rows, 1) == list(range(len(right)))
    for row in rows:
        old, new = row.cells
        same = old is not None and new is not None and left[old.index] == right[new.index]
        assert row.changed is not same


@given(LINES, LINES, LINES)
def test_three_sides_show_every_line_once_in_order(
    base: list[str], ours: list[str], theirs: list[str]
) -> None:
    rows = three_sides(base, ours, theirs)
    for number, side in enumerate((base, ours, theirs)):
        assert column(rows, number) == list(range(len(side)))


def test_a_changed_line_is_beside_what_it_was_with_the_words_marked() -> None:
    rows = two_sides(["keep", "torch==2.9.1; win", "gone"], ["keep", "new", "torch==2.10.0; win"])
    texts = [tuple(c.index if c else None for c in row.cells) for row in rows]
    assert texts == [(0, 0), (None, 1), (1, 2), (2, None)]
    _, _, changed, _ = rows
    old, new = changed.cells
    assert old is not None and new is not None
    assert [("torch==2.9.1; win"[a:b]) for a, b in old.marks] == ["9", "1"]
    assert [("torch==2.10.0; win"[a:b]) for a, b in new.marks] == ["10", "0"]


def test_only_the_side_that_changed_a_line_is_marked() -> None:
    (row,) = three_sides(["sock.bind(a)"], ["sock.bind(a)"], ["sock.bind(b)"])
    base, ours, theirs = row.cells
    assert base is not None and ours is not None and theirs is not None
    assert (base.changed, ours.changed, theirs.changed) == (True, False, True)


def test_large_and_long_inputs_end() -> None:
    many = [f"line {number} {number * 7919 % 1000}" for number in range(3000)]
    other = [f"line {number} {number * 104729 % 1000}" for number in range(3000)]
    assert column(two_sides(many, other), 1) == list(range(3000))
    (row,) = two_sides(["x = " + "1, " * 4000], ["x = " + "2, " * 4000])
    assert row.cells[0] is not None and row.cells[0].marks == ((0, 12004),)


@given(
    st.lists(st.text("ab1\"'#/* \\{}⟨\t", max_size=20), max_size=6),
    st.sampled_from(["a.py", "a.cu", "CMakeLists.txt", "a.txt", "a.unheard-of", None]),
)
def test_colours_never_change_the_text(lines: list[str], path: str | None) -> None:
    runs = colours(path, lines)
    assert len(runs) == len(lines)
    for line, found in zip(lines, runs, strict=True):
        assert "".join(text for text, _ in pieces(line, found, ((0, 2),))) == line


def test_colours_tell_a_comment_from_a_keyword() -> None:
    ((keyword,), (comment,)) = colours("a/b.cuh", ["return x;", "// return x;"])
    assert keyword == (0, 6, "k")
    assert comment == (0, 12, "c")
    assert list(pieces("return x;", (keyword,), ((7, 8),))) == [
        ("return", "k"), (" ", ""), ("x", "x"), (";", ""),
    ]  # fmt: skip
