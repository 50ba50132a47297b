"""Review where tools put changes: fill `reviewed.toml` with what is pending, show it, answer it.

python benchmarks/review.py fill --step        note every landing of carry.py's runs
python benchmarks/review.py show [KEY ...]     the pending ones, pin and new tag side by side
python benchmarks/review.py answer right KEY [KEY ...] --note "same branch of the switch"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks.inputs import ROOT, TAGS, Shipped, Upstream, direct, step_by_step
from benchmarks.peers import TOOLS, available, ours
from benchmarks.reviews import AROUND, Opinion, Place, Reviews, dropped, places
from benchmarks.task import Attempt, Task
from portkit.errors import BadInput
from portkit.face.console import run
from portkit.model import Edit, Patch
from portkit.patches.apply import diffs
from portkit.text.sides import Text
from portkit.upstream.source import normalise

WIDTH = 88  # columns of one side
SHOWN = AROUND  # lines of context: all that an opinion depends on


@dataclass(frozen=True)
class Question:
    """A landing or a drop to review, with what shows it."""

    key: str
    shows: str
    tool: str
    picture: str


def questions(task: Task, attempt: Attempt) -> Iterator[Question]:
    """What an attempt asks of a reviewer."""
    for place in places(task, attempt):
        yield Question(place.key, place.shows, attempt.tool, _picture(task, attempt, place))
    patches = {patch.name: patch for patch in task.patches}
    for key, hunk in dropped(task, attempt).items():
        patch = patches[hunk.patch]
        shows = f"{patch.path}: hunk {hunk.number} dropped at {task.target.tag}"
        yield Question(key, shows, attempt.tool, _hunk(patch, hunk.number))


def _hunk(patch: Patch, number: int) -> str:
    lines = patch.change.hunks[number - 1].lines
    return b"".join(lines).decode("utf-8", "replace").rstrip()


def _picture(task: Task, attempt: Attempt, place: Place) -> str:
    """The patch's edit nearest in content at the pin, beside the landing."""
    left: list[str] = ["(not in this patch)"]
    found = _origin(task, attempt, place)
    if found is not None:
        left = _view(*found)
    right = _view(place.theirs, place.edit)
    return "\n".join(
        f"{a[:WIDTH]:<{WIDTH}} | {b[:WIDTH]}" for a, b in zip_longest(left, right, fillvalue="")
    )


def _origin(task: Task, attempt: Attempt, place: Place) -> tuple[Text, Edit] | None:
    """The old file and the edit of the patch that a landing looks most like.

    Of equal edits the one in the same functions, and of those the nearest.
    """
    hunks = {h.patch for one in attempt.landings if one.path == place.theirs.path
             for h in one.hunks}  # fmt: skip
    there = place.edit
    old = set(place.theirs.lines[there.start : there.end])
    scopes = _scopes(place.theirs, there)
    found: list[tuple[tuple[int, bool, int], Text, Edit]] = []
    for patch in (p for p in task.patches if p.name in hunks):
        base = Text(patch.path, task.before(patch))
        for edit in diffs([(base.data, task.ours(patch))])[0]:
            shared = 2 * len(set(edit.lines) & set(there.lines))
            shared += len(old & set(base.lines[edit.start : edit.end]))
            rank = (shared, _scopes(base, edit) == scopes, -abs(edit.start - there.start))
            found.append((rank, base, edit))
    return max(found, key=lambda one: one[0])[1:] if found else None


def _scopes(text: Text, edit: Edit) -> str:
    return " > ".join(scope.name for scope in text.outline.chain(edit.start, edit.end))


def _view(text: Text, edit: Edit) -> list[str]:
    scopes = _scopes(text, edit)
    branch = " > ".join(text.outline.branch(edit.start, edit.end))
    made = [
        f"{text.path}:{edit.start + 1}",
        f"in {scopes or 'the file'} {branch and f'[{branch}]'}",
    ]

    def add(mark: str, lines: Sequence[bytes]) -> None:
        made.extend(mark + line.decode("utf-8", "replace").rstrip().expandtabs() for line in lines)

    add("  ", text.lines[max(0, edit.start - SHOWN) : edit.start])
    add("- ", text.lines[edit.start : edit.end])
    add("+ ", edit.lines)
    add("  ", text.lines[edit.end : edit.end + SHOWN])
    return made


def attempts(options: argparse.Namespace) -> Iterator[tuple[Task, Attempt]]:
    """Every run that carry.py makes, with the tools that were asked for."""
    shipped, upstream = Shipped.load(options.root), Upstream()
    tools, _ = available()
    tools["portkit"] = partial(ours, resolutions=shipped.resolutions)
    if options.tools:
        tools = {name: tool for name, tool in tools.items() if name in options.tools}
    tasks = [direct(upstream, shipped, tag) for tag in options.tags]
    if options.step:
        steps = upstream.steps(shipped.pin.tag, options.tags[-1])
        tasks += step_by_step(upstream, shipped, steps)
    for task in tasks:
        for tool in tools.values():
            yield task, tool(task)


def fill(options: argparse.Namespace) -> None:
    reviews = Reviews.load()
    for task, attempt in attempts(options):
        for question in questions(task, attempt):
            reviews.ask(question.key, question.shows)
    reviews.save()


def show(options: argparse.Namespace) -> None:
    reviews = Reviews.load()
    seen: dict[str, list[str]] = {}
    pictures: dict[str, Question] = {}
    for task, attempt in attempts(options):
        for question in questions(task, attempt):
            seen.setdefault(question.key, []).append(f"{attempt.tool} ({task.base.tag})")
            pictures.setdefault(question.key, question)
    for key, question in pictures.items():
        wanted = key in options.keys if options.keys else reviews.opinion(key) is Opinion.PENDING
        if wanted:
            print(f"{'=' * 2 * WIDTH}\n{key}  {reviews.opinion(key).value}  {question.shows}")
            print(f"by {', '.join(dict.fromkeys(seen[key]))}\n{question.picture}\n")


def answer(options: argparse.Namespace) -> None:
    reviews = Reviews.load()
    known = {review.key for review in reviews}
    for key in options.keys:
        if key not in known:
            raise BadInput(f"{key} is no key of reviewed.toml", hint="review.py show lists them")
        reviews.answer(key, Opinion(options.opinion), options.note)
    reviews.save()


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if "tags" in options:
        options.tags = [normalise(tag) for tag in options.tags]
    options.act(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    acts = parser.add_subparsers(required=True)
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--tags", nargs="+", default=list(TAGS), metavar="TAG")
    runs.add_argument("--step", action="store_true", help="also release by release")
    runs.add_argument("--tools", nargs="+", choices=list(TOOLS), metavar="TOOL", help="these alone")
    runs.add_argument("--root", type=Path, default=ROOT, help="the repository with the series")
    acts.add_parser("fill", parents=[runs]).set_defaults(act=fill)
    shown = acts.add_parser("show", parents=[runs])
    shown.add_argument("keys", nargs="*", metavar="KEY", help="these, not all that is pending")
    shown.set_defaults(act=show)
    answered = acts.add_parser("answer")
    answered.add_argument("opinion", choices=[o.value for o in Opinion])
    answered.add_argument("keys", nargs="+", metavar="KEY")
    answered.add_argument("--note", required=True, help="why, in a few words")
    answered.set_defaults(act=answer)
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
