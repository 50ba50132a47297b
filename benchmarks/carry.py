"""How much of the shipped series each tool carries to later releases, and where it puts it.

python benchmarks/carry.py --step --markdown carry.md --json carry.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks.inputs import ROOT, TAGS, Shipped, Upstream, direct, step_by_step
from benchmarks.outcome import table_of_traps
from benchmarks.peers import Tool, available, ours, versions
from benchmarks.report import described, machine, table
from benchmarks.reviews import Judgement, Reviews
from benchmarks.task import Attempt, Task, Verdict
from portkit.face.console import run
from portkit.port.rebase import carry_series
from portkit.upstream.source import normalise


@dataclass(frozen=True)
class Score:
    """One tool over one task, or over several steps."""

    files: int
    whole_files: int
    hunks: int
    carried: int
    dropped: int
    conflicts: int
    judged: Judgement

    def __add__(self, other: Score) -> Score:
        return Score(
            self.files + other.files,
            self.whole_files + other.whole_files,
            self.hunks + other.hunks,
            self.carried + other.carried,
            self.dropped + other.dropped,
            self.conflicts + other.conflicts,
            self.judged + other.judged,
        )


def score(task: Task, attempt: Attempt, reviews: Reviews) -> Score:
    assert len(attempt.verdicts) == task.hunks, f"{attempt.tool} left a hunk without a verdict"
    return Score(
        len(task.patches),
        attempt.whole_files(),
        task.hunks,
        attempt.count(Verdict.CARRIED),
        attempt.count(Verdict.DROPPED),
        attempt.count(Verdict.CONFLICT),
        reviews.judge(task, attempt),
    )


Scores = dict[str, dict[str, Score]]  # by target, then by tool


def measure(tasks: Sequence[Task], tools: dict[str, Tool], reviews: Reviews) -> Scores:
    found: Scores = {}
    for task in tasks:
        print(f"{task.base.tag} -> {task.target.tag}", file=sys.stderr)
        found[task.target.tag] = {
            name: score(task, tool(task), reviews) for name, tool in tools.items()
        }
    return found


def sums(steps: Scores, tags: Sequence[str]) -> Scores:
    """All steps up to each of `tags` together."""
    total: dict[str, Score] = {}
    found: Scores = {}
    for tag, scores in steps.items():
        for name, one in scores.items():
            total[name] = total[name] + one if name in total else one
        if tag in tags:
            found[tag] = dict(total)
    return found


_HEAD = (
    *("to", "tool", "files whole", "hunks carried", "dropped", "conflicts"),
    *("of which misplaced", "unreviewed"),
)


def rows(scores: Scores) -> list[list[object]]:
    return [
        [
            *(tag, name, f"{s.whole_files} of {s.files}", f"{s.carried} of {s.hunks}"),
            *(s.dropped, s.conflicts, s.judged.misplaced),
            s.judged.unknown + s.judged.drops_unknown,
        ]
        for tag, by_tool in scores.items()
        for name, s in by_tool.items()
    ]


def journeys(upstream: Upstream, shipped: Shipped, tags: Sequence[str]) -> list[list[object]]:
    """What waits for a person at the end: straight, and release by release."""
    found: list[list[object]] = []
    for tag in tags:
        waiting: list[object] = []
        for steps in ([shipped.pin.tag, tag], upstream.steps(shipped.pin.tag, tag)):
            snapshots = [upstream.snapshot(step) for step in steps]
            carried = carry_series(
                upstream.store, shipped.patches, snapshots, resolutions=shipped.resolutions
            )
            waiting.append(len(carried.conflicts))
        found.append([tag, *waiting])
    return found


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    shipped, upstream, reviews = Shipped.load(options.root), Upstream(), Reviews.load()
    tools, missing = available()
    tools["portkit"] = partial(ours, resolutions=shipped.resolutions)
    tags = [normalise(tag) for tag in options.tags]
    facts = (
        machine()
        | versions()
        | ({"left out, not installed": ", ".join(missing)} if missing else {})
    )
    start = shipped.pin.tag
    text = f"Carrying {len(shipped.patches)} patches from {start}.\n\n{described(facts)}"
    result: dict[str, object] = {"machine": facts, "from": start}

    straight = measure([direct(upstream, shipped, tag) for tag in tags], tools, reviews)
    text += f"\n## Straight to a release\n\n{table(_HEAD, rows(straight))}"
    result["direct"] = _plain(straight)
    if options.step:
        released = upstream.steps(start, tags[-1])
        steps = measure(step_by_step(upstream, shipped, released), tools, reviews)
        together = table(_HEAD, rows(sums(steps, tags)))
        text += f"\n## Release by release, all steps together\n\n{together}"
        text += f"\n## Each step\n\n{table(_HEAD, rows(steps))}"
        waiting = journeys(upstream, shipped, tags)
        text += "\n## What waits for a person at the end\n\n"
        text += table(("to", "straight", "with --step"), waiting)
        result |= {"steps": _plain(steps), "waiting": waiting}
    traps, counts = table_of_traps()
    text += f"\n## Traps\n\n{traps}"
    result["traps"] = counts

    _deliver(text, options.markdown)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


def _plain(scores: Scores) -> dict[str, object]:
    return {tag: {n: asdict(s) for n, s in by_tool.items()} for tag, by_tool in scores.items()}


def _deliver(text: str, path: Path | None) -> None:
    if path:
        path.write_text(text, "utf-8", newline="\n")
    else:
        print(text, end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", nargs="+", default=list(TAGS), metavar="TAG")
    parser.add_argument("--step", action="store_true", help="also release by release")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository with the series")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
