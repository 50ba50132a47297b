"""Recorded resolutions: every byte of a conflict comes back, and a damaged file is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.carrying.resolutions import SUFFIX, Resolution, Resolutions, key_of, resolution
from portkit.errors import BadFile
from portkit.text.sides import split_lines

data = st.binary(max_size=30) | st.builds(
    b"".join,
    st.lists(
        st.sampled_from(
            [b"a\n", b"a\r\n", b"\n", b"\r", b"--- ours 3\n", b"\x0c\n", b"\xff", b"end"]
        ),
        max_size=6,
    ),
)
sides = data.map(split_lines)
said = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)
resolved = st.builds(resolution, sides, sides, sides, sides, said)

EXAMPLE = resolution((b"b\n",), (b"o\n",), (b"t\n",), (b"s\n",), "v1 to v2 in a.py")


@given(st.lists(resolved, max_size=4))
def test_what_is_written_is_read_back(items: list[Resolution]) -> None:
    known = Resolutions().adding(*items)
    files = known.render()
    again = Resolutions.parse({f"patch_series/resolutions/{n}": d for n, d in files.items()})
    assert again.render() == files
    by_key = {item.key: item for item in items}
    assert len(again) == len(by_key)
    for item in by_key.values():
        assert again.lookup(item.base, item.ours, item.theirs) == item


@given(resolved, st.data())
def test_a_damaged_file_is_never_taken_for_another_conflict(
    item: Resolution, draw: st.DataObject
) -> None:
    """A byte changed in one of the sides, a file cut short: refused, or only the answer differs."""
    ((name, text),) = Resolutions().adding(item).render().items()
    place = draw.draw(st.integers(0, len(text) - 1))
    damaged = draw.draw(
        st.sampled_from([text[:place], text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]])
    )
    try:
        known = Resolutions.parse({name: damaged})
    except BadFile:
        return
    found = known.lookup(item.base, item.ours, item.theirs)
    assert found is not None
    assert found.key == item.key


def test_a_conflict_is_known_by_its_three_sides_alone() -> None:
    known = Resolutions().adding(EXAMPLE)
    assert known.lookup((b"b\n",), (b"o\n",), (b"t\n",)) is EXAMPLE
    assert known.lookup((b"o\n",), (b"b\n",), (b"t\n",)) is None
    assert known.lookup((b"b\n",), (b"o\n", b"t\n"), ()) is None
    assert key_of([b"a\n", b"b\n"], [], []) == key_of([b"a\nb\n"], [], [])
    assert key_of([b"a\n"], [b"b\n"], []) != key_of([b"a\n", b"b\n"], [], [])


def test_the_later_answer_to_a_conflict_counts() -> None:
    later = resolution(EXAMPLE.base, EXAMPLE.ours, EXAMPLE.theirs, (b"new\n",), "later")
    known = Resolutions().adding(EXAMPLE).adding(later)
    assert len(known) == 1
    found = known.lookup(EXAMPLE.base, EXAMPLE.ours, EXAMPLE.theirs)
    assert found is not None and found.lines == (b"new\n",)


NAME = f"patch_series/resolutions/{EXAMPLE.key}{SUFFIX}"
TEXT = Resolutions().adding(EXAMPLE).render()[EXAMPLE.key + SUFFIX]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", ":1: not a resolution file"),
        (b"hello\n", ":1: not a resolution file"),
        (TEXT.replace(b"resolution 1", b"resolution 2"), ":1: not a resolution file"),
        (TEXT.replace(b"recorded: ", b"noted: "), ":1: not a resolution file"),
        (TEXT.replace(b"--- ours 2", b"--- ours two"), "expected the part 'ours'"),
        (TEXT.replace(b"--- base 2", b"--- base 90"), "part 'base' is cut short"),
        (TEXT[: TEXT.index(b"--- theirs")], "expected the part 'theirs'"),
        (TEXT.replace(b"\no\n", b"\nO\n"), ": the content does not match the key in its name"),
        (TEXT + b"more\n", ": something follows its last part"),
        (TEXT.replace(b"\n", b"\r\n"), ":1: not a resolution file"),
    ],
)
def test_a_damaged_file_is_named(damaged: bytes, message: str) -> None:
    with pytest.raises(BadFile) as caught:
        Resolutions.parse({NAME: damaged})
    assert NAME in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint
