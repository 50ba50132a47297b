"""What becomes of a trap: by `carry_series`, and by any tool's result."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers import Tool, available
from benchmarks.report import table
from benchmarks.task import Task, Verdict
from benchmarks.traps import TRAPS, Files, Trap
from portkit.carrying.decision import Conflict, Dropped, Landed
from portkit.model import Patch
from portkit.patches.apply import change_between
from portkit.port.rebase import Carried, Snapshot, carry_series
from portkit.upstream.git import Store, TreeEntry


class Outcome(Enum):
    """The verdict on one tool and one trap."""

    RIGHT = "right"
    CONFLICT = "conflict"
    DROPPED = "dropped"
    WRONG = "WRONG"


def tree_of(store: Store, files: Files) -> str:
    """Store `files` and return their tree."""
    oids = store.write_blobs([text.encode() for text in files.values()])
    entries = {path: TreeEntry("100644", oid) for path, oid in zip(files, oids, strict=True)}
    return store.edit_tree(None, entries)


def patches_of_trap(trap: Trap) -> list[Patch]:
    changes = [
        change_between(path, trap.base[path].encode(), new.encode())
        for path, new in trap.ours.items()
    ]
    return [Patch(f"kernels/{change.path}.patch", b"", change) for change in changes]


def carry_trap(store: Store, trap: Trap) -> tuple[Outcome, str]:
    """Carry a trap's patch, and tell what became of it in words."""
    snapshots = [
        Snapshot.of(store, "v1.0.0", tree_of(store, trap.base)),
        Snapshot.of(store, "v1.1.0", tree_of(store, trap.theirs)),
    ]
    carried = carry_series(store, patches_of_trap(trap), snapshots)
    results = {path: file.result for path, file in carried.files.items()}
    stopped = None
    if carried.conflicts:
        stopped = Outcome.CONFLICT
    elif not carried.files:
        stopped = Outcome.DROPPED
    return judge_trap(trap, results, stopped), describe(carried)


def judge_trap(trap: Trap, results: Mapping[str, bytes], stopped: Outcome | None) -> Outcome:
    """The verdict on the files a tool changed; `stopped` is what it said instead of carrying."""
    answers = [answer for answer in (trap.right, trap.also_right) if answer is not None]
    for path, result in results.items():
        if result not in [answer.get(path, "").encode() for answer in (trap.theirs, *answers)]:
            return Outcome.WRONG
    if stopped is not None:
        return stopped
    final = dict(trap.theirs) | {path: data.decode() for path, data in results.items()}
    return Outcome.RIGHT if final in answers else Outcome.WRONG


def describe(carried: Carried) -> str:
    """Every outcome of a carried series, one a line, then the files it would change."""
    lines: list[str] = []
    for story in carried.stories:
        for step in story.steps:
            for result in step.results:
                for outcome in result.outcomes:
                    lines.append(f"@{result.hunk.old_start}: {_say(outcome)}")
    for path, file in carried.files.items():
        lines += [f"--- {path}", file.result.decode("utf-8", "replace")]
    return "\n".join(lines)


def _say(outcome: Landed | Dropped | Conflict) -> str:
    if isinstance(outcome, Landed):
        place = f"{outcome.path}:{outcome.edits[0].start + 1}"
        return f"{outcome.rung.value} -> {place} ({outcome.evidence})"
    if isinstance(outcome, Dropped):
        return f"dropped, {outcome.why.value} ({outcome.evidence})"
    return f"conflict ({outcome.reason})"


def try_tool(tool: Tool, store: Store, trap: Trap) -> Outcome:
    """What a peer makes of a trap."""
    base = Snapshot.of(store, "v1.0.0", tree_of(store, trap.base))
    target = Snapshot.of(store, "v1.1.0", tree_of(store, trap.theirs))
    attempt = tool(Task(store, patches_of_trap(trap), base, target))
    results = {landing.path: landing.result for landing in attempt.landings}
    stopped = None
    if attempt.count(Verdict.CONFLICT):
        stopped = Outcome.CONFLICT
    elif attempt.count(Verdict.DROPPED):
        stopped = Outcome.DROPPED
    return judge_trap(trap, results, stopped)


TRAP_TOOLS = ("portkit", "GNU patch", "git apply --3way", "ort, hunk by hunk")


def table_of_traps() -> tuple[str, dict[str, dict[str, str]]]:
    """Every trap and what becomes of it, as Markdown and by name."""
    tools = {name: tool for name, tool in available()[0].items() if name in TRAP_TOOLS}
    found: dict[str, dict[str, str]] = {}
    with TemporaryDirectory() as folder, Store.create(Path(folder, "objects.git")) as store:
        for trap in TRAPS:
            found[trap.name] = {n: try_tool(t, store, trap).value for n, t in tools.items()}
    rows = [[name, *said.values()] for name, said in found.items()]
    totals = [
        f"{sum(said[n] == 'WRONG' for said in found.values())} wrong of {len(found)}" for n in tools
    ]
    return table(("trap", *tools), [*rows, ["**all**", *totals]]), found
