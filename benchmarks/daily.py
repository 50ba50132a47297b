"""Time of the daily commands: every one that reads, and `push -a` beside quilt and StGit.

    python benchmarks/daily.py --repeat 7 --markdown daily.md --json daily.json

Every time is of a whole process, start-up included, in a scratch copy of the repository.  Work
trees hold the files that the patches touch, for every tool; what a tool needs before its first
push, and the pops in between, are outside the timed part.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks import synthetic
from benchmarks.inputs import ROOT, Shipped, Upstream
from benchmarks.peers import run, versions
from benchmarks.report import described, machine, table
from portkit.face.console import run as run_command
from portkit.model import Patch, Pin
from portkit.patches import pin, series
from portkit.patches.apply import apply_change
from portkit.patches.patchfile import format_patch
from portkit.patches.series import Entry, Series
from portkit.port.rebase import Snapshot
from portkit.upstream.git import Store, TreeEntry

SIZES = (100, 300, 1000)
READ_LIMIT, PUSH_LIMIT = 0.3, 0.5  # seconds the shipped series may take
OURS = "series.py push -a"
READING = (
    "top", "next", "applied", "status", "show {path}", "diff {path}", "diff", "log",
    "header {path}", "files", "annotate {path}", "why {path}:1", "graph", "list",
    "list --archs 12.0 --diagnostic C1061", "lint", "oplog",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Seconds of each run of `what`."""

    what: str
    tool: str
    patches: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Work:
    """The patches of a stack, on the pinned upstream."""

    title: str
    store: Store
    base: Snapshot
    pin: Pin
    patches: Sequence[Patch]

    def files(self) -> dict[str, bytes]:
        """What upstream has of the files that the patches touch."""
        paths = [p.change.old_path for p in self.patches if p.change.old_path is not None]
        data = self.store.read_many([self.base.files[path].oid for path in paths])
        return dict(zip(paths, data, strict=True))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def check(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    ran = run(*command, cwd=cwd, env=env)
    if ran.code:
        raise RuntimeError(f"{' '.join(command)}: {ran.said}")
    return ran.said


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


# the three stacks: each yields what pushes all, and pops all before that


Stage = Callable[[Work, Path], Iterator[tuple[Callable[[], object], Callable[[], object]]]]


def ours(work: Work, folder: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    write_repository(work, folder)
    command = (sys.executable, "tools/series.py")
    yield (
        partial(check, *command, "pop", "-a", cwd=folder),
        partial(check, *command, "push", "-a", cwd=folder),
    )


def write_repository(work: Work, folder: Path) -> None:
    """A repository like ours with these patches, every one pushed."""
    files = series.render(Series(tuple(Entry(patch) for patch in work.patches)))
    write(folder, {**files, pin.PIN_FILE: pin.render(work.pin)})
    for name in ("tools", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    check(sys.executable, "tools/series.py", "push", "-a", cwd=folder)


def quilt(work: Work, folder: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    files = {f"patches/{p.name}": format_patch(p) for p in work.patches}
    names = "".join(f"{patch.name}\n" for patch in work.patches)
    write(folder, {**work.files(), **files, "patches/series": names.encode()})
    command = ("quilt", "--quiltrc", "-")
    env = {"QUILT_PATCHES": "patches"}
    check(*command, "push", "-a", cwd=folder, env=env)
    yield (
        partial(check, *command, "pop", "-a", cwd=folder, env=env),
        partial(check, *command, "push", "-a", cwd=folder, env=env),
    )


def stgit(work: Work, folder: Path) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """What is pushed back as it was: StGit takes the commits that are there."""
    write_stack(work, folder)
    yield (
        partial(check, "stg", "pop", "-a", cwd=folder),
        partial(check, "stg", "push", "-a", cwd=folder),
    )


def stgit_moved(
    work: Work, folder: Path
) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """What is pushed to another base, so that StGit has to apply it, as the others always do."""
    base, other = write_stack(work, folder)

    def move() -> None:
        nonlocal base, other
        base, other = other, base
        check("stg", "rebase", "--nopush", base, cwd=folder)

    yield move, partial(check, "stg", "push", "-a", cwd=folder)


def write_stack(work: Work, folder: Path) -> tuple[str, str]:
    """The patches as StGit's, all pushed; gives the base's commit, and one to move them to."""
    base = write_branch(work, folder)
    check("stg", "init", cwd=folder)
    check("stg", "uncommit", f"--number={len(work.patches)}", cwd=folder)
    with Store(folder / ".git") as store:
        (oid,) = store.write_blobs([b"moved\n"])
        tree = store.edit_tree(f"{base}^{{tree}}", {"moved": TreeEntry("100644", oid)})
        return base, store.commit(tree, [base], message="moved")


def write_branch(work: Work, folder: Path) -> str:
    """A git branch, checked out, with one commit per patch; gives the commit below them."""
    check("git", "init", "--quiet", "--template=", ".", cwd=folder)
    files = work.files()
    with Store(folder / ".git") as store:
        oids = store.write_blobs([*files.values()])
        entries: dict[str, TreeEntry | None] = {
            path: TreeEntry(work.base.files[path].mode, oid)
            for path, oid in zip(files, oids, strict=True)
        }
        tree = store.edit_tree(None, entries)
        base = tip = store.commit(tree, message="base")
        after = [apply_change(p.change, files.get(p.change.old_path or "")) for p in work.patches]
        oids = store.write_blobs([data or b"" for data in after])
        for patch, data, oid in zip(work.patches, after, oids, strict=True):
            mode = work.base.files[patch.path].mode if patch.path in files else "100644"
            entry = None if data is None else TreeEntry(mode, oid)
            tree = store.edit_tree(tree, {patch.path: entry})
            tip = store.commit(tree, [tip], message=patch.name)
        store.git("update-ref", "HEAD", tip)
    check("git", "reset", "--quiet", "--hard", cwd=folder)
    return base


STAGES: dict[str, tuple[str, Stage]] = {
    "portkit": (OURS, ours),
    "quilt": ("quilt push -a", quilt),
    "stg": ("stg push -a", stgit),
    "stg, moved": ("stg push -a, base moved", stgit_moved),
}


def time_push(work: Work, tool: str, repeat: int) -> Timing:
    title, stage = STAGES[tool]
    print(f"{work.title}: {title}", file=sys.stderr)
    seconds: list[float] = []
    with TemporaryDirectory() as name:
        for pop, push in stage(work, Path(name).resolve()):
            for _ in range(repeat):
                pop()
                seconds.append(timed(push))
    return Timing(work.title, title, len(work.patches), tuple(seconds))


# reading


def time_reading(work: Work, repeat: int) -> list[Timing]:
    """Every command that reads, all patches but one being pushed, and Python's own start."""
    path = "csrc/quantization/utils.cuh"
    if path not in {patch.path for patch in work.patches}:
        path = work.patches[0].path
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_repository(work, folder)
        check(sys.executable, "tools/series.py", "pop", cwd=folder)
        commands = {"python -c pass": [sys.executable, "-c", "pass"]}
        for command in READING:
            words = command.format(path=path).split()
            commands[f"series.py {' '.join(words)}"] = [sys.executable, "tools/series.py", *words]
        found: list[Timing] = []
        for title, words in commands.items():
            print(title, file=sys.stderr)
            action = partial(check, *words, cwd=folder)
            action()
            seconds = tuple(timed(action) for _ in range(repeat))
            found.append(Timing("reading", title, len(work.patches), seconds))
    return found


# the face


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    shipped = Shipped.load(options.root)
    upstream = Upstream()
    base = upstream.snapshot(shipped.pin.tag)
    work = partial(Work, store=upstream.store, base=base, pin=shipped.pin)
    stack = work(title="the series", patches=shipped.patches)
    reading = time_reading(stack, options.repeat)
    missing = [program for program in ("quilt", "stg") if shutil.which(program) is None]
    tools = [tool for tool in STAGES if not tool.startswith(tuple(missing))]
    pushes = [time_push(stack, tool, options.repeat) for tool in tools]
    for size in options.sizes:
        patches = synthetic.series(upstream.store, base, size)
        one = work(title=f"{size} synthetic", patches=patches)
        some = tools if size <= options.peers_to else ["portkit"]
        pushes += [time_push(one, tool, max(1, options.repeat // 2)) for tool in some]
    facts = machine() | versions()
    if "stg" in tools:
        facts["stg"] = check("stg", "--version", cwd=Path.cwd()).splitlines()[0]
    if missing:
        facts["left out, not installed"] = ", ".join(missing)
    text = _markdown(facts, reading, pushes)
    if options.markdown:
        options.markdown.write_text(text, "utf-8", newline="\n")
    else:
        print(text, end="")
    if options.json:
        timings = [asdict(one) for one in (*reading, *pushes)]
        found = {"machine": facts, "timings": timings}
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _markdown(facts: dict[str, str], reading: Sequence[Timing], pushes: Sequence[Timing]) -> str:
    limit = f"under {READ_LIMIT} s"
    read_head = ("command", "median s", "min s", "max s", limit)
    read_rows = [
        [f"`{t.tool}`", *_seconds(t), "yes" if t.median < READ_LIMIT else "no"] for t in reading
    ]
    fastest = {t.what: t.median for t in pushes if t.tool == OURS}
    push_head = ("stack", "tool", "patches", "median s", "min s", "max s", "of ours", "ms a patch")
    push_rows = [
        [
            *(t.what, f"`{t.tool}`", t.patches, *_seconds(t)),
            f"{t.median / fastest[t.what]:.1f}x",
            f"{1000 * t.median / t.patches:.1f}",
        ]
        for t in pushes
    ]
    goal = f"`push -a` of the series has {PUSH_LIMIT} s.\n"
    return (
        f"{described(facts)}\n{table(read_head, read_rows)}\n{goal}\n{table(push_head, push_rows)}"
    )


def _seconds(timing: Timing) -> list[str]:
    return [f"{t:.3f}" for t in (timing.median, min(timing.seconds), max(timing.seconds))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, metavar="N")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), metavar="PATCHES")
    parser.add_argument("--peers-to", type=int, default=300, metavar="PATCHES",
                        help="largest synthetic series for the other tools")  # fmt: skip
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository with the series")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
