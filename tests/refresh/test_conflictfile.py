"""Conflicts as files to edit: what stands in them, and what is read back."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from portkit.carrying.decision import Conflict, Region
from portkit.model import Edit
from portkit.port.conflictfile import Labels, Marked, leftovers, mark
from portkit.text.sides import Lines, Text, split_lines

LABELS = Labels("ours (a.patch)", "pin (v1.0.0)", "upstream (v1.1.0)")
THEIRS = b"one\ntwo\nthree\nfour\nfive\nsix\n"


def conflict(
    theirs: bytes, start: int, end: int, base: bytes = b"b\n", ours: bytes = b"o\n"
) -> Conflict:
    sides = split_lines(base), split_lines(ours), split_lines(theirs)[start:end]
    return Conflict("reason", Region("a.txt", start, end, *sides), ())


def marked(theirs: bytes, *conflicts: Conflict, edits: tuple[Edit, ...] = ()) -> Marked:
    return mark(Text("a.txt", theirs), edits, conflicts, LABELS)


def settle(file: Marked, *texts: bytes) -> bytes:
    """The file with each conflict, markers and all, replaced by one of `texts`."""
    pieces = [file.between[0]]
    for text, between in zip(texts, file.between[1:], strict=True):
        pieces += [text, between]
    return b"".join(pieces)


def test_the_sides_are_named_and_upstreams_comes_last() -> None:
    file = marked(THEIRS, conflict(THEIRS, 2, 3, b"old\n", b"mine\n"))
    assert file.data == (
        b"one\ntwo\n"
        b"<<<<<<< ours (a.patch)\nmine\n"
        b"||||||| pin (v1.0.0)\nold\n"
        b"=======\nthree\n"
        b">>>>>>> upstream (v1.1.0)\n"
        b"four\nfive\nsix\n"
    )
    assert leftovers(file.data) == [3, 5, 7, 9]


def test_what_was_carried_is_made_around_the_conflicts() -> None:
    edits = (Edit(0, 1, (b"ONE\n",)), Edit(2, 2, (b"added\n",)), Edit(5, 6, ()))
    file = marked(THEIRS, conflict(THEIRS, 3, 4), edits=edits)
    assert file.between == (b"ONE\ntwo\nadded\nthree\n", b"five\n")


def test_what_was_carried_within_a_conflict_stands_on_upstreams_side() -> None:
    file = marked(THEIRS, conflict(THEIRS, 1, 4), edits=(Edit(2, 3, (b"THREE\n",)),))
    assert b"=======\ntwo\nTHREE\nfour\n>>>>>>>" in file.data


def test_an_insertion_at_the_place_of_an_empty_conflict_is_made_once() -> None:
    file = marked(THEIRS, conflict(THEIRS, 2, 2, b""), edits=(Edit(2, 2, (b"added\n",)),))
    assert file.data.count(b"added\n") == 1


def test_an_edit_across_the_border_of_a_conflict_widens_it() -> None:
    file = marked(THEIRS, conflict(THEIRS, 2, 4), edits=(Edit(1, 3, (b"2+3\n",)),))
    assert file.between == (b"one\n", b"five\nsix\n")
    assert b"=======\n2+3\nfour\n>>>>>>>" in file.data
    assert file.regions[0].theirs == (b"two\n", b"three\n", b"four\n")


def test_overlapping_conflicts_are_one() -> None:
    one, other = conflict(THEIRS, 1, 3, b"b1\n", b"o1\n"), conflict(THEIRS, 2, 4, b"b2\n", b"o2\n")
    file = marked(THEIRS, other, one)
    assert len(file.regions) == 1
    assert file.regions[0].ours == (b"o1\n", b"o2\n")
    assert file.data.count(b"<<<<<<<") == 1


def test_the_same_conflict_of_two_hunks_is_one() -> None:
    file = marked(THEIRS, conflict(THEIRS, 1, 3), conflict(THEIRS, 1, 3))
    assert len(file.regions) == 1
    assert file.data.count(b"\no\n") == 1


def test_several_conflicts_are_read_back_in_order() -> None:
    file = marked(THEIRS, conflict(THEIRS, 4, 5), conflict(THEIRS, 1, 2))
    edited = settle(file, b"first\n", b"")
    assert edited == b"one\nfirst\nthree\nfour\nsix\n"
    assert file.settled(edited) == ((b"first\n",), ())


def test_crlf_and_no_final_newline_survive() -> None:
    theirs = b"one\r\ntwo\r\nthree"
    file = marked(theirs, conflict(theirs, 2, 3, b"b", b"o\r\n"))
    assert b"=======\nthree\n>>>>>>>" in file.data
    assert b"<<<<<<< ours (a.patch)\no\r\n||||||| pin (v1.0.0)\nb\n=======" in file.data
    edited = settle(file, b"mine\r\nlast")
    assert edited == b"one\r\ntwo\r\nmine\r\nlast"
    assert file.settled(edited) == ((b"mine\r\n", b"last"),)


def test_an_edit_around_a_conflict_cannot_be_told_from_its_answer() -> None:
    file = marked(THEIRS, conflict(THEIRS, 2, 3))
    assert file.settled(settle(file, b"x\n").replace(b"one\n", b"ONE\n")) is None
    assert file.settled(settle(file, b"x\n").replace(b"six\n", b"")) is None


def test_text_between_two_conflicts_that_is_found_twice_tells_nothing() -> None:
    file = marked(THEIRS, conflict(THEIRS, 1, 2), conflict(THEIRS, 3, 4))
    assert file.settled(settle(file, b"x\n", b"y\n")) == ((b"x\n",), (b"y\n",))
    assert file.settled(settle(file, b"three\nx\n", b"y\n")) is None
    assert file.settled(settle(file, b"x\n", b"y\nthree\n")) is None


def test_a_file_that_lost_more_than_the_conflict_is_not_read() -> None:
    theirs = b"a\na\n"
    file = marked(theirs, conflict(theirs, 1, 1, b""))
    assert file.settled(b"a\n") is None


def test_marker_lines_are_found_and_headings_are_not() -> None:
    assert leftovers(b"a\n>>>>>>> theirs\n") == [2]
    assert leftovers(b"<<<<<<< a\r\nx\n=======\r\n") == [1, 3]
    assert leftovers(b"Example\n=======\n") == []
    assert leftovers(b"x <<<<<<< y\n<<<<<<<< 8\n#|||||||\n") == []


def test_a_separator_alone_is_a_leftover_unless_a_side_has_one() -> None:
    file = marked(THEIRS, conflict(THEIRS, 2, 3))
    assert file.unsettled(settle(file, b"mine\n=======\nthree\n")) == [4]
    assert file.unsettled(settle(file, b"mine\n")) == []
    theirs = b"Example\n=======\ntwo\n"
    file = marked(theirs, conflict(theirs, 2, 3))
    assert file.unsettled(settle(file, b"mine\n")) == []


line = st.sampled_from([b"a\n", b"b\n", b"a\r\n", b"\n", b"c\x0c\n", b"\xff\n", b"<<<<<<<\n"])
text = st.builds(b"".join, st.lists(line, max_size=5))
last = st.sampled_from([b"", b"", b"end", b"\r"])


@st.composite
def conflicted(draw: st.DrawFn) -> tuple[Marked, list[Lines]]:
    """A file with some conflicts and edits, and a text for each conflict."""
    theirs = draw(text) + draw(text) + draw(last)
    count = len(split_lines(theirs))
    spots = st.tuples(st.integers(0, count), st.integers(0, count)).map(sorted)
    regions = draw(st.lists(spots, min_size=1, max_size=3))
    conflicts = [conflict(theirs, start, end, draw(text), draw(text)) for start, end in regions]
    gaps = sorted(draw(st.sets(st.integers(0, count), max_size=4)))
    edits = tuple(
        Edit(a, b, split_lines(draw(text))) for a, b in zip(gaps[::2], gaps[1::2], strict=False)
    )
    file = marked(theirs, *conflicts, edits=edits)
    return file, [split_lines(draw(text)) for _ in file.regions]


@given(conflicted())
def test_what_is_read_back_is_what_was_written(case: tuple[Marked, list[Lines]]) -> None:
    file, answers = case
    found = file.settled(settle(file, *(b"".join(answer) for answer in answers)))
    assert found in (None, tuple(answers))
    if len(answers) == 1:
        assert found is not None


@given(conflicted())
def test_every_byte_of_upstream_is_there_once(case: tuple[Marked, list[Lines]]) -> None:
    """Upstream's side of each conflict and the text between make the file with its edits."""
    file, _ = case
    assume(b"<<<<<<<" not in b"".join(file.between))
    sides: list[bytes] = []
    rest = file.data
    for between in file.between[:-1]:
        assert rest.startswith(between + b"<<<<<<< ours")
        block, _, rest = rest[len(between) :].partition(b">>>>>>> upstream (v1.1.0)\n")
        sides.append(block.rpartition(b"=======\n")[2])
    assert rest == file.between[-1]
    assert len(sides) == len(file.regions)
