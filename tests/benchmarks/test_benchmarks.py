"""The benchmarks count what they say they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peers, synthetic
from benchmarks.outcome import patches_of_trap, tree_of
from benchmarks.reviews import Judgement, Opinion, Place, Reviews, places
from benchmarks.task import Task, Verdict
from benchmarks.traps import TRAPS, Expect, Trap
from portkit.errors import BadFile
from portkit.patches.apply import apply_change
from portkit.port.rebase import Snapshot
from portkit.upstream.git import Store

OLD = "".join(f"value_{number} = {number}\n" for number in range(40))
PATCHED = OLD.replace("value_5 = 5\n", "value_5 = 50\n").replace("value_30 = 30\n", "")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("benchmarks") / "objects.git") as store:
        yield store


def task_to(store: Store, theirs: str | None) -> Task:
    """A patch of two hunks on one file, and the file as upstream left it."""
    path = "vllm/values.py"
    others = {"vllm/other.py": "pass\n"}
    files = others if theirs is None else others | {path: theirs}
    trap = Trap("", "", Expect.SAFE, {path: OLD}, {path: PATCHED}, files, None)
    base = Snapshot.of(store, "v1.0.0", tree_of(store, trap.base))
    target = Snapshot.of(store, "v1.1.0", tree_of(store, trap.theirs))
    return Task(store, patches_of_trap(trap), base, target)


@pytest.mark.parametrize("name", peers.TOOLS)
def test_every_tool_has_a_verdict_for_every_hunk(objects: Store, name: str) -> None:
    tools, missing = peers.available()
    if name in missing:
        pytest.skip(f"{name} is not installed")
    tool = tools[name]
    kept = tool(task_to(objects, "# new\n" + OLD))
    assert list(kept.verdicts.values()) == [Verdict.CARRIED] * 2
    assert {landing.result.decode() for landing in kept.landings if len(landing.hunks) == 2} <= {
        "# new\n" + PATCHED
    }
    half = tool(task_to(objects, OLD.replace("value_5 = 5\n", "value_5 = compute()\n")))
    assert half.count(Verdict.CONFLICT) in (1, 2), "the line was rewritten"
    assert half.count(Verdict.CARRIED) == 2 - half.count(Verdict.CONFLICT)
    assert half.whole_files() == 0
    gone = tool(task_to(objects, None))
    assert gone.count(Verdict.CARRIED) == 0 and not gone.landings


def test_what_nobody_reviewed_is_never_right(objects: Store, tmp_path: Path) -> None:
    task = task_to(objects, "# new\n" + OLD)
    attempt = peers.git_apply(task)
    reviews = Reviews({})
    assert reviews.judge(task, attempt) == Judgement(unknown=2)
    for place in places(task, attempt):
        reviews.ask(place.key, place.shows)
    assert reviews.judge(task, attempt) == Judgement(unknown=2), "pending is not right"
    first, second = places(task, attempt)
    reviews.answer(first.key, Opinion.RIGHT, "same neighbours")
    reviews.answer(second.key, Opinion.WRONG, 'a "twin"')
    reviews.save(tmp_path / "reviewed.toml")
    again = Reviews.load(tmp_path / "reviewed.toml")
    assert again.judge(task, attempt) == Judgement(right=1, misplaced=1)


def test_a_file_that_upstream_left_alone_needs_no_review(objects: Store) -> None:
    task = task_to(objects, OLD)
    assert Reviews({}).judge(task, peers.git_apply(task)) == Judgement(right=2)


def test_an_opinion_holds_only_where_the_surroundings_are_the_same_and_unique(
    objects: Store,
) -> None:
    def landings(theirs: str) -> list[Place]:
        task = task_to(objects, theirs)
        return places(task, peers.git_apply(task))

    near, far = landings("# new\n" + OLD)
    near_too, far_too = landings("# a\n# b\n" + OLD)
    assert far.key == far_too.key
    assert near.key != near_too.key, "one of the ten lines above is another"
    assert far.key != replace(far, edit=replace(far.edit, lines=(b"other\n",))).key
    twice = replace(far.theirs, data=far.theirs.data * 3)
    one, other = Place("v1.1.0", twice, far.edit), Place("v1.2.0", twice, far.edit)
    assert one.key != other.key, "the lines occur twice, so each tag is asked anew"


def test_reviews_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "reviewed.toml"
    file.write_text('[[review]]\nkey = "a"\nshows = "b"\nopinion = "perhaps"\n')
    with pytest.raises(BadFile, match=r"reviewed\.toml"):
        Reviews.load(file)


def test_synthetic_series_are_reproducible(objects: Store) -> None:
    files = {f"vllm/m{n}.py": f"import os\n\n\ndef f{n}():\n    return os\n" for n in range(9)}
    base = Snapshot.of(objects, "v1.0.0", tree_of(objects, files))
    short, long = (synthetic.series(objects, base, count) for count in (3, 6))
    assert long[:3] == short and len({patch.path for patch in long}) == 6
    for patch in long:
        compile(apply_change(patch.change, files[patch.path].encode()) or b"", patch.path, "exec")


def test_trap_names_are_unique() -> None:
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)
