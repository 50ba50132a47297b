"""The port report: true to what was decided, readable, and safe with any content."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import Element

import html5lib
import pytest

from portkit.carrying.decision import (
    Conflict,
    Dropped,
    HunkResult,
    Landed,
    Outcome,
    Region,
    Rung,
    Why,
)
from portkit.model import Edit, FileChange, Hunk, Patch, Pin
from portkit.patches import header, pin, series
from portkit.patches.apply import hunks_from_edits
from portkit.port.facts import Facts, facts
from portkit.port.rebase import Carried, NewFile, Snapshot, Step, Story, carry_series
from portkit.report import report
from portkit.report.model import LONGEST_LINE, State
from portkit.report.report import Report, Run, build, html, markdown, to_json
from portkit.text.sides import Text
from portkit.upstream.git import Files, Store
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]
HEADER = b"""Description: Bind without <Unix> parts
 `SO_REUSEPORT` is not there (AttributeError).
Author: a
Forwarded: no
Last-Update: 2026-01-01
Diagnostic: AttributeError, C1061
Test: tests/t.py::test_x
Archs: none

"""
PIN = Pin("https://example.org/vllm.git", "v1", "abcdef0", None, "0" * 40, "1" * 40)
NO_FACTS = Facts("v1", "v3", (), (), (), (), (), ())
BASE = tuple(b"line %d\n" % number for number in range(1, 21))


def edit(start: int, end: int, *lines: bytes) -> Edit:
    return Edit(start, end, lines)


def hunk_of(lines: Sequence[bytes], *edits: Edit) -> Hunk:
    (hunk,) = hunks_from_edits(lines, edits)
    return hunk


NO_FILES = cast(Files, {})  # of a snapshot that nothing is looked up in


def patch_of(path: str = "vllm/a.py", *hunks: Hunk, head: bytes = HEADER) -> Patch:
    return Patch(f"runtime/{path}.patch", head, FileChange(path, path, hunks))


def result(hunk: Hunk, *outcomes: Outcome, path: str = "vllm/a.py", tag: str = "v1") -> HunkResult:
    return HunkResult(hunk, path, tag, outcomes)


def carried(*stories: Story, files: dict[str, NewFile] | None = None, tag: str = "v3") -> Carried:
    return Carried(Snapshot(tag, "2" * 40, NO_FILES), files or {}, stories)


def made(
    *stories: Story,
    files: dict[str, NewFile] | None = None,
    run: Run | None = None,
) -> Report:
    return build(PIN, carried(*stories, files=files), NO_FACTS, run or Run(("v1", "v3"), 0.5))


def new_file(path: str, lines: Sequence[bytes], *edits: Edit) -> NewFile:
    return NewFile(path, Text(path, b"".join(lines)), edits, (f"runtime/{path}.patch",))


def parsed(page: str) -> Element:
    """The page's tree; it must be valid: any parse error fails the test."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document: Element = parser.parse(page)
    return document


INSERT = edit(9, 10, b"ours\n")
HUNK = hunk_of(BASE, INSERT)


def conflict(
    base: Sequence[bytes] = BASE[9:10],
    ours: Sequence[bytes] = (b"ours\n",),
    theirs: Sequence[bytes] = (b"theirs\n",),
    path: str | None = "vllm/a.py",
    reason: str = "upstream rewrote the lines that the patch changes",
) -> Conflict:
    region = Region(path, 9, 9 + len(theirs), tuple(base), tuple(ours), tuple(theirs))
    return Conflict(reason, region, (INSERT,))


def waiting(one: Conflict | None = None, patch: Patch | None = None) -> Story:
    patch = patch or patch_of("vllm/a.py", HUNK)
    return Story(patch, (Step("v1", "v3", (result(HUNK, one or conflict()),)),))


# what became of each patch


def test_states_and_totals() -> None:
    exact = Landed(Rung.EXACT, "vllm/b.py", (INSERT,), "same neighbours")
    moved = Landed(Rung.MOVED, "vllm/c.py", (INSERT,), "in f")
    gone = Dropped(Why.TARGET_GONE, "vllm/d.py is not in v3")
    stories = [waiting()]
    for path, outcome in (("vllm/b.py", exact), ("vllm/c.py", moved), ("vllm/d.py", gone)):
        step = Step("v1", "v3", (result(HUNK, outcome, path=path),))
        stories.append(Story(patch_of(path, HUNK), (step,)))
    files = {path: new_file(path, BASE, INSERT) for path in ("vllm/b.py", "vllm/c.py")}
    found = made(*stories, files=files)
    assert [patch.state for patch in found.patches] == [
        State.CONFLICT, State.CARRIED, State.CARRIED, State.DROPPED,
    ]  # fmt: skip
    totals = found.totals
    assert (totals.patches, totals.hunks, totals.conflicts, totals.drops) == (4, 4, 1, 1)
    assert totals.rungs == ((Rung.EXACT, 1), (Rung.MOVED, 1))
    assert totals.hunk_rungs == ((Rung.EXACT, 1), (Rung.MOVED, 1))
    assert (totals.hunks_waiting, totals.hunks_dropped) == (1, 1)
    assert [patch.exact for patch in found.patches] == [False, True, False, False]


def test_a_skipped_patch_says_so() -> None:
    story = Story(patch_of("vllm/a.py", HUNK), (Step("v1", "v3", (result(HUNK),)),))
    run = Run(("v1", "v3"), 0.5, skipped=("runtime/vllm/a.py.patch",))
    found = made(story, run=run)
    assert found.patches[0].state is State.SKIPPED
    assert "1 skipped" in markdown(found)


def test_the_least_certain_rung_of_all_steps_and_where_it_was() -> None:
    """v1 to v2 merges tokens, v2 to v3 is exact: the patch is as sure as the merge."""
    merged = edit(9, 10, b"ours merged\n")
    middle = tuple(line.replace(b"line 10", b"upstream 10") for line in BASE)
    later = hunk_of(middle, merged)
    story = Story(
        patch_of("vllm/a.py", HUNK),
        (
            Step("v1", "v2", (result(HUNK, Landed(Rung.TOKENS, "vllm/a.py", (merged,), "in f")),)),
            Step("v2", "v3", (result(later, Landed(Rung.EXACT, "vllm/a.py", (merged,), "same"),
                                     tag="v2"),)),
        ),
    )  # fmt: skip
    files = {"vllm/a.py": new_file("vllm/a.py", middle, merged)}
    (patch,) = made(story, files=files, run=Run(("v1", "v2", "v3"), 1.0)).patches
    assert patch.rung is Rung.TOKENS
    assert [(step.from_tag, step.to_tag) for step in patch.steps] == [("v1", "v2")]
    (hunk,) = patch.hunks
    assert hunk.old is not None and hunk.new is not None
    # The middle tag's file is known by the hunk that the next step began with.
    assert (hunk.old.label, hunk.new.label) == ("v1", "v2")
    assert [line.text for line in hunk.new.lines if line.ours] == ["ours merged"]


def test_a_piece_that_waited_and_then_landed_is_no_conflict() -> None:
    landed = Landed(Rung.THREE_WAY, "vllm/a.py", (INSERT,), "same neighbours")
    story = Story(
        patch_of("vllm/a.py", HUNK),
        (
            Step("v1", "v2", (result(HUNK, conflict()),)),
            Step("v1", "v3", (result(HUNK, landed),)),
        ),
    )
    files = {"vllm/a.py": new_file("vllm/a.py", BASE, INSERT)}
    found = made(story, files=files, run=Run(("v1", "v2", "v3"), 1.0))
    assert found.conflicts == ()
    assert [step.waiting for step in found.patches[0].steps] == [1, 0]
    assert "v2: 1 waiting, right for v1" in markdown(found)


# regions


def test_regions_number_upstream_lines_and_not_ours() -> None:
    shifted = (b"new first\n", *BASE)
    placed = edit(10, 11, b"ours\n")
    landed = Landed(Rung.THREE_WAY, "vllm/a.py", (placed,), "same neighbours")
    story = Story(patch_of("vllm/a.py", HUNK), (Step("v1", "v3", (result(HUNK, landed),)),))
    files = {"vllm/a.py": new_file("vllm/a.py", shifted, edit(0, 0, b"other hunk\n"), placed)}
    (hunk,) = made(story, files=files).patches[0].hunks
    assert hunk.old is not None and hunk.new is not None
    assert [line.number for line in hunk.old.lines] == [7, 8, 9, None, 11, 12, 13]
    assert [line.number for line in hunk.new.lines] == [8, 9, 10, None, 12, 13, 14]
    assert [line.text for line in hunk.old.lines] == [line.text for line in hunk.new.lines]
    assert hunk.line == 10


def test_edits_far_apart_show_a_gap() -> None:
    far = edit(17, 18, b"ours too\n")
    landed = Landed(Rung.TOKENS, "vllm/a.py", (INSERT, far), "in f")
    story = Story(patch_of("vllm/a.py", HUNK), (Step("v1", "v3", (result(HUNK, landed),)),))
    files = {"vllm/a.py": new_file("vllm/a.py", BASE, INSERT, far)}
    (hunk,) = made(story, files=files).patches[0].hunks
    assert hunk.new is not None
    assert [line.number for line in hunk.new.lines if not line.ours] == [
        7, 8, 9, 11, 12, 13, None, 15, 16, 17, 19, 20,
    ]  # fmt: skip
    assert [line.gap for line in hunk.new.lines].count(True) == 1


def test_same_lines_at_another_number_need_no_comparison() -> None:
    landed = Landed(Rung.OFFSET, "vllm/a.py", (edit(12, 13, b"ours\n"),), "same neighbours")
    story = Story(patch_of("vllm/a.py", HUNK), (Step("v1", "v3", (result(HUNK, landed),)),))
    found = made(story)
    (hunk,) = found.patches[0].hunks
    assert (hunk.old, hunk.new) == (None, None)
    assert "line 10 → 13" in html(found)


# conflicts


def test_a_conflict_has_three_labelled_sides_and_what_each_did() -> None:
    (one,) = made(waiting()).conflicts
    assert one.line == 10
    assert (one.pin.label, one.ours.label, one.theirs.label) == (
        "pin v1", "ours, on v1", "new tag v3",
    )  # fmt: skip
    assert [(line.number, line.text) for line in one.pin.lines] == [(10, "line 10")]
    assert [(line.number, line.text) for line in one.ours.lines] == [(None, "ours")]
    assert one.our_change == ("-line 10", "+ours")
    assert one.upstream_change == ("-line 10", "+theirs")


def test_a_conflict_shows_the_lines_around_it_where_both_files_are_known() -> None:
    theirs = (*BASE[:9], b"theirs\n", *BASE[10:])
    other = edit(0, 0, b"another hunk that landed\n")
    files = {"vllm/a.py": new_file("vllm/a.py", theirs, other)}
    (one,) = made(waiting(), files=files).conflicts
    assert [line.number for line in one.pin.lines] == [7, 8, 9, 10, 11, 12, 13]
    assert [line.text for line in one.theirs.lines][3] == "theirs"
    assert [line.number for line in one.theirs.lines] == [7, 8, 9, 10, 11, 12, 13]
    assert [line.number for line in one.ours.lines] == [7, 8, 9, None, 11, 12, 13]


def test_a_conflict_that_spans_hunks_is_told_once() -> None:
    shared = conflict()
    step = Step("v1", "v3", (result(HUNK, shared), result(HUNK, shared)))
    assert len(made(Story(patch_of("vllm/a.py", HUNK, HUNK), (step,))).conflicts) == 1


def test_a_conflict_without_a_file_says_that() -> None:
    found = made(waiting(conflict(theirs=(), path=None, reason="vllm/a.py is not in v3")))
    assert found.conflicts[0].theirs.path is None
    for page in (markdown(found), html(found)):
        assert "the file is not there" in page
        assert "vllm/a.py is not in v3." in page


# Markdown


def test_markdown_tells_everything_a_reviewer_needs() -> None:
    drop = Dropped(Why.CONSTRUCT_GONE, "`fcntl` no longer occurs in vllm/d.py")
    dropping = Story(
        patch_of("vllm/d.py", HUNK), (Step("v1", "v3", (result(HUNK, drop, path="vllm/d.py"),)),)
    )
    found = made(waiting(), dropping, run=Run(("v1", "v2", "v3"), 1.26, "refresh.py --to v3"))
    text = markdown(found)
    assert "2 patches: 0 carried, 1 patch waits for a person (1 piece), 1 no longer needed." in text
    assert "Bind without &lt;Unix&gt; parts (`AttributeError`, `C1061`)" in text
    assert "**pin v1**: `vllm/a.py`, lines 10–10" in text
    assert "the construct it cures is gone. `fcntl` no longer occurs in vllm/d.py." in text
    assert "| `runtime/vllm/a.py.patch` | 1 | **1 conflict** |" in text
    assert "v1 → v2 → v3, 1.3 s." in text and "`refresh.py --to v3`" in text


def test_code_cannot_break_out_of_markdown() -> None:
    evil = (b"```\n", b"````` <!-- @everyone | x\n", b"</details>\n")
    text = markdown(made(waiting(conflict(theirs=evil, reason="odd `a|b` | <b>name</b>"))))
    fences = re.findall(r"^(`{3,})(\w*)$", text, re.MULTILINE)
    assert ("``````", "diff") in fences
    assert [mark for mark, _ in fences].count("``````") == 4  # the diff and their side
    assert "odd `a\\|b` \\| &lt;b&gt;name&lt;/b&gt;" in text.lower()


def test_markdown_fits_a_pull_request_and_names_what_is_left_out() -> None:
    stories = [
        waiting(
            conflict(theirs=[b"upstream %d %d\n" % (n, i) for i in range(50)]),
            patch_of(f"vllm/f{n}.py", HUNK),
        )
        for n in range(300)
    ]
    text = markdown(made(*stories))
    assert len(text) < 65_536
    assert "Left out to fit a pull request" in text
    assert re.search(r"conflict \d+, vllm/a.py:10; and \d+ more\.", text)
    assert "300 patches wait for a person (300 pieces)" in text


# HTML


def assert_self_contained(page: str) -> None:
    document = parsed(page)
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in document.iter("a"):
        assert element.get("href", "").startswith("#")
        assert element.get("href", "")[1:] in ids
    assert not [e for e in document.iter() if e.get("src") or e.tag in ("link", "img", "iframe")]
    assert not re.search(r"url\(|@import", "".join(e.text or "" for e in document.iter("style")))
    (script,) = document.iter("script")
    digest = base64.b64encode(hashlib.sha256((script.text or "").encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page  # or the page's own policy would block its script


def test_the_page_is_valid_and_self_contained() -> None:
    assert_self_contained(html(made(waiting())))


@pytest.mark.parametrize(
    "line",
    [
        b"</pre></td><script>alert(1)</script><img src=x onerror=alert(1)>\n",
        b"\xff\xfe caf\xe9 \x00 \x1b[31m \x0c \x7f\n",
        "\u202eright to left\u2066 \u200bhidden\ufeff\n".encode(),
        b"crlf\r\n",
        b"{{ 7 * 7 }} {% raw %} &amp; &#0;\n",
        b"no newline",
        b"x" * 300_000 + b"\n",
        b"1, " * 100_000 + b"\n",
    ],
    ids=["markup", "bytes", "bidi", "crlf", "template", "no-newline", "long", "many-words"],
)
def test_hostile_lines_stay_text(line: bytes) -> None:
    path = "vllm/<b>&\"'\udcff x.py"
    one = conflict(ours=(line,), theirs=(line, b"theirs\n"), path=path, reason=f"see {path}")
    head = HEADER.replace(b"Bind", b"</summary><script>Bind \xff")
    merged = Landed(Rung.TOKENS, path, (edit(9, 10, line),), "<i>in</i> f")
    gone = Dropped(Why.UPSTREAMED, "<script>")
    hunk = hunk_of((*BASE, line), edit(19, 20, b"ours\n"))
    story = Story(
        patch_of(path, HUNK, HUNK, hunk, head=head),
        (Step("v1", "v3", (result(HUNK, one), result(HUNK, merged, gone), result(hunk, merged))),),
    )
    found = made(story, files={path: new_file(path, BASE, edit(9, 10, line))})
    page = html(found)
    assert_self_contained(page)
    for face in (page, markdown(found), json.dumps(to_json(found))):
        face.encode()  # no lone surrogates
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u202e\u2066\ufeff]", page)
    assert len(page) < 400_000


def test_unusual_signs_are_made_visible() -> None:
    line = "a\u202eb\r\n".encode() + b""
    (one,) = made(waiting(conflict(theirs=(line, b"\xe9 end")))).conflicts
    assert [line.text for line in one.theirs.lines] == [
        "a⟨right-to-left override⟩b␍",
        "\\xe9 end ⟨no newline at end of file⟩",
    ]
    (long,) = made(waiting(conflict(theirs=(b"x" * 2100 + b"\n",)))).conflicts
    assert long.theirs.lines[0].text == "x" * LONGEST_LINE + " ⟨100 more characters⟩"


def test_three_hundred_hunks() -> None:
    lines = tuple(b"value_%d = compute(%d)\n" % (n, n) for n in range(3000))
    edits = [edit(n, n + 1, b"value_%d = ours(%d)\n" % (n, n)) for n in range(5, 3000, 10)]
    hunks = hunks_from_edits(lines, edits)
    results = [
        result(hunk, Landed(Rung.THREE_WAY, "vllm/a.py", (one,), "same neighbours"))
        for hunk, one in zip(hunks, edits, strict=True)
    ]
    story = Story(patch_of("vllm/a.py", *hunks), (Step("v1", "v3", tuple(results)),))
    found = made(story, files={"vllm/a.py": new_file("vllm/a.py", lines, *edits)})
    assert len(found.patches[0].hunks) == 300
    document = parsed(html(found))
    assert len(list(document.iter("figure"))) == 300


def test_filters_count_and_mark_patches() -> None:
    exact = Landed(Rung.EXACT, "vllm/b.py", (INSERT,), "same neighbours")
    other = Story(
        patch_of("vllm/b.py", HUNK), (Step("v1", "v3", (result(HUNK, exact, path="vllm/b.py"),)),)
    )
    found = made(waiting(), other, files={"vllm/b.py": new_file("vllm/b.py", BASE, INSERT)})
    document = parsed(html(found))
    kinds = [e.get("data-kinds") for e in document.iter("details") if e.get("class") == "patch"]
    assert kinds == ["conflict inexact", ""]
    buttons = {e.get("data-filter"): (e.text or "").split()[-1] for e in document.iter("button")}
    assert buttons["conflict"] == "1" and buttons["inexact"] == "1" and buttons["drop"] == "0"


# JSON


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {k for item in value.values() for k in keys(item)}
    if isinstance(value, list):
        return {k for item in value for k in keys(item)}
    return set()


def test_json_is_versioned_and_documented() -> None:
    landed = Landed(Rung.TOKENS, "vllm/a.py", (INSERT,), "in f")
    gone = Dropped(Why.UPSTREAMED, "there")
    story = Story(
        patch_of("vllm/a.py", HUNK),
        (Step("v1", "v3", (result(HUNK, conflict(), landed, gone),)),),
    )
    found = to_json(made(story, files={"vllm/a.py": new_file("vllm/a.py", BASE, INSERT)}))
    assert found["version"] == 1
    assert json.loads(json.dumps(found)) == found
    assert found["patches"][0]["hunks"][0]["landings"][0]["rung"] == "token merge"
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/report-schema.md").read_text("utf-8")))
    assert keys(found) <= documented


# the real thing


@pytest.fixture(scope="session")
def real(store: Store, obtain_tag: Callable[[str], Source]) -> Report:
    """The shipped series, carried from its pin to v0.16.0."""
    loaded, pinned = series.load(ROOT), pin.read(ROOT / "upstream_pin.txt")
    tags = (pinned.tag, "v0.16.0")
    snapshots = [Snapshot.of(store, tag, obtain_tag(tag).tree) for tag in tags]
    done = carry_series(store, loaded.upstream, snapshots)
    run = Run(tags, 0.6, "tools/refresh.py --to v0.16.0", (("portkit", "0.1.0"),))
    return report.build(pinned, done, facts(store, *snapshots), run)


def test_every_patch_of_the_series_is_told(real: Report) -> None:
    shipped = series.load(ROOT).upstream
    assert [patch.name for patch in real.patches] == [patch.name for patch in shipped]
    assert real.totals.hunks == sum(len(patch.change.hunks) for patch in shipped)
    for patch, told in zip(shipped, real.patches, strict=True):
        assert told.summary == header.parse(patch.header).summary
    counted = sum(n for _, n in real.totals.hunk_rungs)
    assert counted + real.totals.hunks_waiting + real.totals.hunks_dropped == real.totals.hunks


def test_every_merged_hunk_of_the_series_shows_the_patch_on_both_sides(real: Report) -> None:
    merged = [hunk for patch in real.patches for hunk in patch.hunks if hunk.old is not None]
    assert merged
    for hunk in merged:
        assert hunk.old is not None and hunk.new is not None
        assert any(line.ours for line in hunk.new.lines)


def test_the_real_page_and_its_markdown(real: Report) -> None:
    page, text = html(real), markdown(real)
    assert_self_contained(page)
    assert len(page) < 1_000_000 and len(text) < 65_536
    for patch in real.patches:
        assert f"`{patch.name}`" in text
        assert f'id="{patch.name}"' in page
    json.dumps(to_json(real))
