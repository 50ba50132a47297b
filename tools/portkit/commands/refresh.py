"""`tools/refresh.py`: carry the series from the pin to another upstream release.

Starting, going on and giving up are one state machine: every call decides everything anew from
the series, the sources and the person's answers, and either leaves what waits in `work/refresh/`
or switches the series and the pin in one step.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from portkit import console, git, porting, report
from portkit.cache import Cache
from portkit.conflictfile import leftovers
from portkit.decision import Rung
from portkit.errors import BadInput, Busy, Exit
from portkit.facts import facts
from portkit.journal import Journal, fingerprint
from portkit.porting import Answers, Plan, Start
from portkit.rebase import Story
from portkit.report import Report
from portkit.session import WORK_FOLDER, Session, State, now
from portkit.tags import normalise
from portkit.upstream import released_tags

REPORTS_FOLDER = "work/reports"

_EXAMPLE = """\
examples:
  tools/refresh.py --to v0.17.1 --dry-run    what would happen
  tools/refresh.py --to latest --step        release by release to the newest one
  tools/refresh.py --status                  what waits for you
  tools/refresh.py --continue                after editing the files in work/refresh/
"""


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Run the command on the repository at `root` and give its exit code."""
    given = _parse(arguments)
    command = _Command(root, given)
    if given.status:
        return command.status()
    with command.journal.lock() as recovered:
        if recovered:
            print(recovered, file=sys.stderr)
        if given.undo:
            return command.undo()
        if given.abort:
            return command.abort()
        return command.start() if given.to else command.go_on()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = console.parser(
        "Carry the patch series from the pinned upstream release to another one.",
        prog="refresh.py",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{_EXAMPLE}\n{parser.epilog}"
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", metavar="TAG", help="the release to carry to, or `latest`")
    what.add_argument(
        "--continue", dest="go_on", action="store_true", help="take the edited files and go on"
    )
    what.add_argument("--skip", nargs="+", metavar="PATCH", help="give up what waits of patches")
    what.add_argument(
        "--move", nargs=2, metavar=("PATCH", "FILE"), help="put a homeless piece into FILE to edit"
    )
    what.add_argument("--abort", action="store_true", help="forget the refresh; nothing changed")
    what.add_argument("--status", action="store_true", help="what waits for a person")
    what.add_argument("--undo", action="store_true", help="put the last switch back")
    parser.add_argument("--step", action="store_true", help="go release by release")
    parser.add_argument("--dry-run", action="store_true", help="decide and show; write nothing")
    parser.add_argument(
        "--accept-drops", action="store_true", help="drop what the report says is not needed"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="where the report goes")
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)
    if (given.step or given.dry_run) and not given.to:
        parser.error("--step and --dry-run go with --to")
    return given


@dataclass(frozen=True)
class _Outcome:
    """What a call ends with: the report, where it was written, and what still waits."""

    plan: Plan
    report: Report
    folder: Path | None
    code: Exit
    said: tuple[str, ...]


class _Command:
    """One call of the command."""

    def __init__(self, root: Path, given: argparse.Namespace) -> None:
        self.root = root
        self.given = given
        self.journal = Journal(root)
        self.session = Session(root)
        self.cache = Cache.default()

    # the calls

    def start(self) -> int:
        waiting = self.session.load()
        if waiting is not None and not self.given.dry_run:
            raise Busy(
                f"a refresh to {waiting.to_tag} is under way since {waiting.started}",
                hint="see --status; then --continue, --skip PATCH or --abort",
            )
        git.check_version()
        seen = fingerprint(self.root)
        start = porting.read(self.root)
        to_tag = self._target()
        if to_tag == start.pin.tag:
            print(f"the series is at {to_tag} already")
            return Exit.OK
        tags = porting.route(
            start, to_tag, step=self.given.step, upstream=self.given.upstream, cache=self.cache
        )
        state = State(
            started=now(),
            from_tag=start.pin.tag,
            tags=tags,
            upstream=str(self.given.upstream.absolute()) if self.given.upstream else None,
            fingerprint=seen,
            drops_accepted=self.given.accept_drops,
        )
        return self._decide(start, state)

    def go_on(self) -> int:
        state = self.session.required()
        if fingerprint(self.root) != state.fingerprint:
            raise BadInput(
                "patch_series/ or the pin changed since this refresh began",
                hint="put them back, or --abort and start again",
            )
        start = porting.read(self.root)
        if self.given.skip:
            names = [_find(start, text) for text in self.given.skip]
            skipped = tuple(dict.fromkeys((*state.skipped, *names)))
            state = state.model_copy(update={"skipped": skipped})
        if self.given.move:
            name, path = _find(start, self.given.move[0]), self.given.move[1]
            moved = {**state.moved, name: path.replace("\\", "/")}
            state = state.model_copy(update={"moved": moved})
        accepted = state.drops_accepted or self.given.accept_drops
        return self._decide(start, state.model_copy(update={"drops_accepted": accepted}))

    def abort(self) -> int:
        state = self.session.load() if not self._unreadable() else None
        self.session.end()
        if state is None:
            print("no refresh is under way")
        else:
            print(f"the refresh to {state.to_tag} is forgotten; the series is at {state.from_tag}")
        return Exit.OK

    def undo(self) -> int:
        if self.session.load() is not None:
            raise Busy("a refresh is under way", hint="--abort it first")
        entry = self.journal.undo()
        print(f"undone: {entry.message}")
        return Exit.OK

    def status(self) -> int:
        state = self.session.load()
        if self.given.json:
            waiting = None if state is None else self._status(state)
            console.print_json("refresh", {"waiting": waiting})
            return Exit.OK if state is None else Exit.WAITING
        if state is None:
            print(f"no refresh is under way; the series is at {porting.read(self.root).pin.tag}")
            return Exit.OK
        print(f"carrying {state.from_tag} to {state.to_tag}, since {state.started}")
        for path in state.written:
            print(f"  {self._state_of(state, path):>8}  {WORK_FOLDER}/{path}")
        for name in state.skipped:
            print(f"  {'skipped':>8}  {name}")
        return Exit.WAITING

    # deciding

    def _target(self) -> str:
        if self.given.to != "latest":
            return normalise(self.given.to)
        return released_tags(cache=self.cache, upstream=self.given.upstream)[-1]

    def _decide(self, start: Start, state: State) -> int:
        moved = {n: p for n, p in state.moved.items() if n not in state.skipped}
        answers = Answers(frozenset(state.skipped), moved)
        upstream = Path(state.upstream) if state.upstream else None
        with console.progress(quiet=self.given.json) as events:
            plan = porting.plan(
                start, state.tags, answers, upstream=upstream, cache=self.cache, events=events
            )
        edited = self._edited(plan, state)
        open_files = sorted(plan.marked.keys() - edited.keys())
        waits = bool(open_files or plan.homeless)
        if plan.drops and not state.drops_accepted and not waits and self._confirmed(plan):
            state = state.model_copy(update={"drops_accepted": True})
        waits = waits or bool(plan.drops and not state.drops_accepted)
        made = self._report(plan, state)
        folder = self._write_report(made, state)
        if self.given.dry_run:
            said: tuple[str, ...] = ("nothing was written",)
            return self._end(_Outcome(plan, made, folder, Exit(int(waits)), said))
        if waits:
            files = {path: marked.data for path, marked in plan.marked.items()}
            state = self.session.save(state, files, edited.keys())
            said = tuple(self._next_steps(plan, state, open_files))
            return self._end(_Outcome(plan, made, folder, Exit.WAITING, said))
        result = porting.finish(plan, edited, cache=self.cache)
        message = f"carry the series from {state.from_tag} to {state.to_tag}"
        self.journal.switch(result.files, message=message, expect=state.fingerprint)
        self.session.end()
        said = (f"the series is at {state.to_tag} now (--undo puts {state.from_tag} back)",)
        return self._end(_Outcome(plan, made, folder, Exit.OK, said))

    def _edited(self, plan: Plan, state: State) -> dict[str, bytes]:
        """The files in which a person has settled every conflict."""
        if self.given.to:
            return {}
        found: dict[str, bytes] = {}
        for path in plan.marked.keys() & state.written.keys():
            data = self.session.read(path)
            if not leftovers(data):
                found[path] = data
        return found

    def _confirmed(self, plan: Plan) -> bool:
        """Ask on a terminal whether the drops are right."""
        if self.given.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            return False
        for story in plan.carried.stories:
            for drop in story.drops:
                print(f"  {story.patch.name}: {drop.why.value}: {drop.evidence}")
        return input("drop these? [y/N] ").strip().lower() in {"y", "yes"}

    def _next_steps(self, plan: Plan, state: State, open_files: Sequence[str]) -> list[str]:
        said = [f"settle {WORK_FOLDER}/{path}" for path in open_files]
        for patch, conflict in plan.homeless:
            said.append(f"{patch.name}: {conflict.reason}")
            said.append(f"  --move {patch.name} FILE to place it by hand, or --skip {patch.name}")
        if plan.drops and not state.drops_accepted:
            said.append(f"{len(plan.drops)} patches lose pieces: confirm with --accept-drops")
        said.append("then: tools/refresh.py --continue (or --skip PATCH, --abort)")
        return said

    # showing

    def _report(self, plan: Plan, state: State) -> Report:
        run = report.Run(
            tags=state.tags,
            seconds=plan.seconds,
            command=" ".join(["tools/refresh.py", "--to", state.to_tag]
                             + ["--step"] * (len(state.tags) > 2)),
            versions=_versions(),
            skipped=state.skipped,
            drops_accepted=state.drops_accepted,
        )  # fmt: skip
        known = facts(self.cache.store, plan.snapshots[0], plan.target)
        return report.build(plan.start.pin, plan.carried, known, run)

    def _write_report(self, made: Report, state: State) -> Path | None:
        folder: Path | None = self.given.report
        if folder is None:
            if self.given.dry_run:
                return None
            folder = self.root / REPORTS_FOLDER / f"{state.from_tag}-{state.to_tag}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(report.markdown(made), encoding="utf-8", newline="\n")
        (folder / "report.html").write_text(report.html(made), encoding="utf-8", newline="\n")
        return folder

    def _end(self, outcome: _Outcome) -> int:
        if self.given.json:
            console.print_json("refresh", self._json(outcome))
            return outcome.code
        totals = outcome.report.totals
        tags = outcome.report.run.tags
        print(f"vLLM {tags[0]} to {tags[-1]}: {totals.patches} patches, {totals.hunks} hunks, "
              f"{len(tags) - 1} {'step' if len(tags) == 2 else 'steps'}, "
              f"{outcome.plan.seconds:.1f} s")  # fmt: skip
        for line in _summary(outcome.plan):
            print(f"  {line}")
        if outcome.folder is not None:
            print(f"report: {outcome.folder / 'report.html'}")
            print(f"        {outcome.folder / 'report.md'}")
        for line in outcome.said:
            print(line)
        return outcome.code

    def _json(self, outcome: _Outcome) -> dict[str, Any]:
        folder = outcome.folder
        return {
            "exit": int(outcome.code),
            "files": sorted(outcome.plan.marked),
            "report": None if folder is None else str(folder),
            "next": list(outcome.said),
            **{"result": report.to_json(outcome.report)},
        }

    def _status(self, state: State) -> dict[str, Any]:
        files = {f"{WORK_FOLDER}/{p}": self._state_of(state, p) for p in state.written}
        return {
            "from": state.from_tag,
            "tags": list(state.tags),
            "started": state.started,
            "files": files,
            "skipped": list(state.skipped),
            "drops_accepted": state.drops_accepted,
        }

    def _state_of(self, state: State, path: str) -> str:
        if not (self.session.work / path).exists():
            return "missing"
        return "waiting" if leftovers(self.session.read(path)) else "settled"

    def _unreadable(self) -> bool:
        try:
            self.session.load()
        except Exception:
            return True
        return False


def _find(start: Start, text: str) -> str:
    """The name of the patch a person means by its name, its path or its file's path."""
    wanted = text.replace("\\", "/").removeprefix("patch_series/")
    for patch in start.patches:
        if wanted in {patch.name, patch.path, patch.name.removesuffix(".patch")}:
            return patch.name
    raise BadInput(f"there is no patch {text}", hint="patch_series/series lists them")


def _summary(plan: Plan) -> list[str]:
    """A line per patch that was not simply carried, and one that counts the others."""
    lines: list[str] = []
    plain = 0
    for story in plan.carried.stories:
        said = _said(story)
        lines += [f"{state:<9} {story.patch.name}: {text}" for state, text in said]
        plain += not said
    rungs = {
        r.rung.value for s in plan.carried.stories for t in s.steps for r in t.results if r.rung
    }
    order = [rung for rung in (r.value for r in Rung) if rung in rungs]
    return [f"{'carried':<9} {plain} patches whole ({', '.join(order)})", *lines]


def _said(story: Story) -> list[tuple[str, str]]:
    drops = [("drop", f"{d.why.value}: {d.evidence}") for d in story.drops]
    return drops + [("conflict", c.reason) for c in story.conflicts]


def _versions() -> tuple[tuple[str, str], ...]:
    said = git.git("--version").decode().split()[2]
    return (
        ("git", said),
        ("Python", platform.python_version()),
        ("tree-sitter", version("tree-sitter")),
    )
