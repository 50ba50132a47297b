"""Time and peak memory of the carrying stage, against `git rebase` and `quilt push -a`.

    python benchmarks/speed.py --repeat 5 --markdown speed.md --json speed.json

Sources are cached and work trees are set up outside the timed part.  What is timed: for us reading
the patches, carrying, and making the new patches; for git the rebase with its skips; for quilt the
pushes, a failing patch being deleted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks import synthetic
from benchmarks.inputs import ROOT, Shipped, Upstream, step_by_step
from benchmarks.peers import (
    Clone,
    available,
    metered,
    prepare_rebase,
    push_all,
    rebase_all,
    run,
    versions,
    write_quilt,
)
from benchmarks.report import described, machine, table
from benchmarks.task import Task
from portkit.face.console import run as run_command
from portkit.patches.patchfile import format_patch
from portkit.upstream.source import normalise

STEPS = ("v0.17.0", "v0.23.0")  # an ordinary release, and one that moved a lot
SIZES = (100, 300, 1000)
OURS = "portkit, a process"
INSIDE = "portkit, within one"  # that has its parsers loaded
CARRY_ONCE = str(Path(__file__).with_name("carry_once.py"))


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, and the peak memory of the largest process in MiB (None: unknown)."""

    what: str
    tool: str
    patches: int
    seconds: tuple[float, ...]
    memory: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


Carry = Callable[[int], list[float]]


@contextmanager
def our_stage(task: Task) -> Iterator[Carry]:
    """Runs a process that carries the task so many times, and gives the seconds of each."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for patch in task.patches:
            file = folder / patch.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(format_patch(patch))
        (folder / "series").write_text("".join(f"{p.name}\n" for p in task.patches), "utf-8")
        arguments = (str(folder), str(task.store.path), task.base.tree, task.target.tree)

        def carry(times: int) -> list[float]:
            ran = run(sys.executable, CARRY_ONCE, *arguments, str(times), cwd=folder)
            if ran.code:
                raise RuntimeError(ran.said)
            return [float(line.split()[0]) for line in ran.said.splitlines()]

        yield carry


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _peak(action: Callable[[], object]) -> float | None:
    """The peak memory in MiB of the largest process that `action` runs, None where unknown."""
    with TemporaryDirectory() as name:
        file = Path(name).resolve() / "peak"
        with metered(file):
            action()
        return max(map(float, file.read_text().split())) if file.exists() else None


Stage = Callable[[Task], Iterator[Callable[[], object]]]


def rebase_stage(task: Task) -> Iterator[Callable[[], object]]:
    with TemporaryDirectory() as name:
        clone = Clone(task, Path(name).resolve())
        base, target = prepare_rebase(task, clone)
        clone.git("update-index", "-q", "--refresh")
        yield lambda: rebase_all(clone, base, target)
        clone.store.close()


def quilt_stage(task: Task) -> Iterator[Callable[[], object]]:
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_quilt(task, folder)
        yield lambda: push_all(folder)


PEERS: dict[str, tuple[str, Stage]] = {
    "git rebase": ("git rebase", rebase_stage),
    "quilt push": ("quilt push -a", quilt_stage),
}


def measure(what: str, task: Task, repeat: int, peers: Sequence[str]) -> list[Timing]:
    """Time everyone in turns, so that a machine that is busy for a while is so for all."""
    print(what, file=sys.stderr)
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, float | None] = {}
    with our_stage(task) as carry:
        memory[OURS] = _peak(partial(carry, 1))
        for _ in range(repeat):
            seconds[OURS].append(_seconds(partial(carry, 1)))
            seconds[INSIDE].append(carry(2)[-1])
            for name in peers:
                title, stage = PEERS[name]
                seconds[title] += [_seconds(action) for action in stage(task)]
    for name in peers:
        title, stage = PEERS[name]
        (memory[title],) = [_peak(action) for action in stage(task)]
    count = len(task.patches)
    return [Timing(what, t, count, tuple(found), memory.get(t)) for t, found in seconds.items()]


def shipped_steps(root: Path, upstream: Upstream, tags: Sequence[str]) -> list[Task]:
    """The last step to each of `tags`, with the series as it reached the tag before."""
    shipped = Shipped.load(root)
    last = max(tags, key=lambda tag: len(upstream.steps(shipped.pin.tag, tag)))
    tasks = step_by_step(upstream, shipped, upstream.steps(shipped.pin.tag, last))
    return [task for task in tasks if task.target.tag in tags]


def rows(timings: Sequence[Timing]) -> list[list[object]]:
    fastest = {t.what: min(t.seconds) for t in timings if t.tool == INSIDE}
    return [
        [
            *(t.what, t.tool, t.patches, f"{t.median:.2f}", f"{min(t.seconds):.2f}"),
            f"{min(t.seconds) / fastest[t.what]:.1f}x",
            "" if t.memory is None else f"{t.memory:.0f}",
        ]
        for t in timings
    ]


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    upstream = Upstream()
    installed = available()[0]
    peers = [name for name in PEERS if name in installed]
    timings: list[Timing] = []
    for task in shipped_steps(options.root, upstream, [normalise(tag) for tag in options.steps]):
        what = f"{task.base.tag} to {task.target.tag}"
        timings += measure(what, task, options.repeat, peers)
    base, target = upstream.snapshot("v0.16.0"), upstream.snapshot("v0.17.0")
    for size in options.sizes:
        patches = synthetic.series(upstream.store, base, size)
        task = Task(upstream.store, patches, base, target)
        some = peers if size <= options.peers_to else []
        timings += measure(f"{size} synthetic", task, max(1, options.repeat // 2), some)
    facts = machine() | versions()
    missing = [name for name in PEERS if name not in installed]
    if missing:
        facts["left out, not installed"] = ", ".join(missing)
    head = ("what", "tool", "patches", "median s", "min s", "min of ours", "peak MiB")
    text = f"{described(facts)}\n{table(head, rows(timings))}"
    if options.markdown:
        options.markdown.write_text(text, "utf-8", newline="\n")
    else:
        print(text, end="")
    if options.json:
        found = {"machine": facts, "timings": [asdict(t) for t in timings]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), metavar="TAG", help="to TAG")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), metavar="PATCHES")
    parser.add_argument("--peers-to", type=int, default=100, metavar="PATCHES",
                        help="largest synthetic series for the slower tools")  # fmt: skip
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository with the series")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
