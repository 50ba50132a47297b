"""Which patch made a line, and which patch needs which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.errors import BadInput
from portkit.model import Edit, FileChange, Patch
from portkit.patches import series
from portkit.patches.apply import hunks_from_edits, split_lines
from portkit.patches.patchfile import canonical_change, format_patch, parse_patch
from portkit.stack import blame

ROOT = Path(__file__).resolve().parents[2]


def patch(name: str, path: str, base: bytes | None, *edits: Edit, old: str | None = None) -> Patch:
    lines = split_lines(base or b"")
    before = None if base is None else old or path
    return Patch(
        name, b"", canonical_change(FileChange(before, path, hunks_from_edits(lines, edits)))
    )


@dataclass
class Model:
    """A file as lines with their maker, changed by hand."""

    lines: list[tuple[bytes, str | None, int | None]]
    patches: list[Patch] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return b"".join(line for line, _, _ in self.lines)

    def change(self, edits: list[tuple[int, int, int]]) -> None:
        """`(start, removed, added)`, in order, apart from each other."""
        name = f"p{len(self.patches)}"
        made = [
            Edit(
                start,
                start + removed,
                tuple(b"%s %d %d\n" % (name.encode(), start, n) for n in range(added)),
            )
            for start, removed, added in edits
        ]
        one = patch(name, "f", self.data, *made)
        self.patches.append(one)
        for edit in reversed(made):
            self.lines[edit.start : edit.end] = [(line, name, None) for line in edit.lines]


def _lines(name: str, start: int, count: int) -> Iterator[bytes]:
    return (b"%s %d %d\n" % (name.encode(), start, number) for number in range(count))


@st.composite
def histories(draw: st.DrawFn) -> tuple[bytes, Model]:
    count = draw(st.integers(1, 25))
    base = b"".join(b"line %d\n" % n for n in range(count))
    model = Model([(line, None, n) for n, line in enumerate(split_lines(base))])
    for _ in range(draw(st.integers(1, 4))):
        edits: list[tuple[int, int, int]] = []
        at = 0
        while at <= len(model.lines) and len(edits) < 4:
            start = draw(st.integers(at, len(model.lines)))
            removed = draw(st.integers(0, min(3, len(model.lines) - start)))
            added = draw(st.integers(0 if removed else 1, 3))
            edits.append((start, removed, added))
            at = start + removed + 1
            if draw(st.booleans()):
                break
        model.change(edits)
    return base, model


@given(histories())
def test_every_line_is_its_makers(history: tuple[bytes, Model]) -> None:
    base, model = history
    file = blame.annotate("f", base, model.patches)
    found = [(line, o.patch, o.line) for line, o in zip(file.lines, file.origins, strict=True)]
    assert found == model.lines
    for line, origin in zip(file.lines, file.origins, strict=True):
        if origin.patch is not None:
            hunk, at = origin.added
            (maker,) = (one for one in model.patches if one.name == origin.patch)
            assert maker.change.hunks[hunk].lines[at] == b"+" + line


@given(histories())
def test_a_patch_that_needs_none_applies_without_the_others(history: tuple[bytes, Model]) -> None:
    """The last patch, moved over all it does not need, still finds its context."""
    base, model = history
    *others, last = model.patches
    needed = {d.needs for d in blame.dependencies(model.patches) if d.patch == last.name}
    if needed or not others:
        return
    lines = split_lines(base)
    for hunk in last.change.hunks:
        wanted = list(hunk.before)
        places = range(len(lines) - len(wanted) + 1)
        assert any(lines[at : at + len(wanted)] == wanted for at in places)


def test_a_file_is_followed_through_a_rename_and_a_new_one_has_no_past() -> None:
    base = b"a\nb\n"
    patches = [
        patch("one", "old", base, Edit(0, 1, (b"A\n",))),
        patch("two", "new", b"A\nb\n", Edit(1, 1, (b"x\n",)), old="old"),
        patch("three", "made", None, Edit(0, 0, (b"m\n",))),
    ]
    assert blame.history(patches, "new") == ("old", (patches[0], patches[1]))
    assert blame.history(patches, "made") == (None, (patches[2],))
    assert blame.history(patches, "other") == ("other", ())
    file = blame.annotate("new", base, patches[:2])
    assert [origin.patch for origin in file.origins] == ["one", "two", None]
    needs = [(d.patch, d.needs, d.by) for d in blame.dependencies(patches)]
    assert needs == [("two", "one", "lines")]


def test_what_was_removed_is_told_of_the_line_below() -> None:
    base = b"a\nb\nc\nd\n"
    one = patch("one", "f", base, Edit(1, 3, ()))
    file = blame.annotate("f", base, [one])
    assert [(o.line, o.cut) for o in file.origins] == [(0, None), (3, "one")]
    there = patch("two", "f", b"a\nd\n", Edit(1, 1, (b"x\n",)))
    assert [d.needs for d in blame.dependencies([one, there])] == ["one"]


def test_a_deleted_file_has_no_lines_to_annotate() -> None:
    gone = Patch("gone", b"", FileChange("f", None, hunks_from_edits([b"a\n"], [Edit(0, 1, ())])))
    with pytest.raises(BadInput, match="gone deletes f"):
        blame.annotate("f", b"a\n", [gone])


def names(*changes: tuple[str, bytes, bytes]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Dependencies by names of patches, each changing one line."""
    patches = [
        patch(path, path, old, Edit(0, len(split_lines(old)), tuple(split_lines(new))))
        for path, old, new in changes
    ]
    return [(d.patch, d.needs, d.what) for d in blame.dependencies(patches) if d.by == "names"]


def test_a_use_needs_the_patch_that_defines_anew() -> None:
    header = (
        "a.cuh",
        b"static constexpr T top = 1;\n",
        b"static constexpr T top() { return 1; }\n",
    )
    use = ("b.cu", b"  x = top<int>;\n", b"  x = top<int>();\n")
    assert names(header, use) == [("b.cu", "a.cuh", ("top",))]
    assert names(use, header) == [("b.cu", "a.cuh", ("top",))]  # wherever they stand
    local = ("c.cu", *header[1:])
    assert names(local, use) == []  # nobody includes a source file
    python = ("d.py", b"def top():\n", b"def top(x):\n")
    assert names(python, use) == []  # another language
    assert names(python, ("e.py", b"top()\n", b"top(1)\n")) == [("e.py", "d.py", ("top",))]
    assert names(header, ("f.cu", b"  y = 1;\n", b"  y = 2;\n")) == []


def test_the_shipped_series_is_tied_by_quant_type_max() -> None:
    found = blame.dependencies(series.load(ROOT).patches)
    users = {
        "fused_kernels/layernorm_utils.cuh", "fused_kernels/quant_conversions.cuh",
        "w8a8/fp8/common.cu", "w8a8/fp8/common.cuh",
    }  # fmt: skip
    folder = "kernels/csrc/quantization"
    assert {(d.patch, d.needs, d.what) for d in found} == {
        (f"{folder}/{user}.patch", f"{folder}/utils.cuh.patch", ("quant_type_max_v",))
        for user in users
    }


@pytest.mark.parametrize("one", series.load(ROOT).patches, ids=lambda p: p.name)
def test_lines_are_printed_where_we_say(one: Patch) -> None:
    data = format_patch(one)
    lines = split_lines(data)
    for hunk, numbers in zip(one.change.hunks, blame.printed_at(data, one.change), strict=True):
        assert [lines[n - 1].rstrip(b"\n") for n in numbers] == [
            line.rstrip(b"\n") for line in hunk.lines
        ]


def test_lines_are_printed_where_we_say_without_newline() -> None:
    data = (
        b"Subject: x\n\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n"
        b"+b\n\\ No newline at end of file\n"
    )
    one = parse_patch("f.patch", data)
    assert blame.printed_at(data, one.change) == [[6, 8]]
