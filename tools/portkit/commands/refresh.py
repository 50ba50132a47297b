"""`tools/refresh.py`: carry the series from the pin to another upstream release.

Starting, going on and giving up are one state machine: every call decides everything anew from
the series, the sources and the person's answers, and either leaves what waits in `work/refresh/`
or switches the series and the pin in one step.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portkit.carrying.decision import Rung
from portkit.change.journal import Journal, fingerprint
from portkit.change.managed import sentence_of
from portkit.errors import BadInput, Busy, Exit, IntegrityError
from portkit.face import console
from portkit.port import porting
from portkit.port.conflictfile import leftovers
from portkit.port.facts import facts
from portkit.port.porting import Answers, Plan, Start
from portkit.port.rebase import Story
from portkit.port.session import WORK_FOLDER, Session, State, now
from portkit.report import report
from portkit.report.model import ScanReport
from portkit.report.report import Report
from portkit.upstream import git
from portkit.upstream.cache import Cache
from portkit.upstream.source import released_tags
from portkit.upstream.tags import normalise

if TYPE_CHECKING:
    from portkit.audit.carried import Audited

REPORTS_FOLDER = "work/reports"

_EXAMPLE = """\
examples:
  tools/refresh.py --to v0.17.1 --dry-run    what would happen
  tools/refresh.py --to latest --step        release by release to the newest one
  tools/refresh.py --status                  what waits for you
  tools/refresh.py --continue                after editing the files in work/refresh/
"""
_GO_ON = "then: tools/refresh.py --continue (or --skip PATCH, --abort)"


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Run the command on the repository at `root` and give its exit code."""
    given = _parse(arguments)
    if given.status or given.dry_run:
        console.settle(root)
        command = _Command(root, given, Journal(root))
        return command.status() if given.status else command.start()
    with console.repository(root) as journal:
        command = _Command(root, given, journal)
        command.forget_finished()
        if given.undo:
            return command.undo()
        if given.abort:
            return command.abort()
        return command.go_on() if given.to is None else command.start()


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
    parser.add_argument(
        "--no-scan", action="store_true", help="leave the portability scan out of the report"
    )
    parser.add_argument(
        "--audit", action="store_true", help="let the report say what the audit's level 1 finds"
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="where the report goes")
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)
    if (given.step or given.dry_run) and given.to is None:
        parser.error("--step and --dry-run go with --to")
    if given.report is not None and given.report.exists() and not given.report.is_dir():
        raise BadInput(f"--report {given.report} is not a folder")
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

    def __init__(self, root: Path, given: argparse.Namespace, journal: Journal) -> None:
        self.root = root
        self.given = given
        self.journal = journal
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
            return self._tell(f"the series is at {to_tag} already")
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
        found = fingerprint(self.root)
        changed = {p for p, _ in found.items() ^ state.fingerprint.items()}
        if changed:
            raise BadInput(
                f"{sentence_of(changed)} changed since this refresh began",
                hint="put back what was there, or --abort and start again",
            )
        start = porting.read(self.root)
        if self.given.skip:
            names = [_find(start, text) for text in self.given.skip]
            _refuse_idle(names, (*state.waiting, *state.skipped), "is in conflict")
            skipped = tuple(dict.fromkeys((*state.skipped, *names)))
            state = state.model_copy(update={"skipped": skipped})
        if self.given.move:
            name, path = _find(start, self.given.move[0]), self.given.move[1]
            _refuse_idle([name], (*state.waiting, *state.homeless, *state.moved), "waits")
            moved = {**state.moved, name: path.replace("\\", "/").removeprefix("./")}
            state = state.model_copy(update={"moved": moved})
        if self.given.upstream:
            state = state.model_copy(update={"upstream": str(self.given.upstream.absolute())})
        accepted = state.drops_accepted or self.given.accept_drops
        return self._decide(start, state.model_copy(update={"drops_accepted": accepted}))

    def forget_finished(self) -> None:
        """Forget a refresh that was killed after its switch, before it could forget itself."""
        try:
            state = self.session.load()
        except IntegrityError:
            return  # the call itself says so
        if state is None or fingerprint(self.root) == state.fingerprint:
            return
        done = [e for e in self.journal.log() if not e.undone][-1:]
        if any(e.message == state.message and e.time >= state.started for e in done):
            self.session.end()

    def abort(self) -> int:
        try:
            state = self.session.load()
        except IntegrityError:
            self.session.end()
            return self._tell("the unreadable state of the refresh is removed")
        self.session.end()
        if state is None:
            return self._tell("no refresh is under way")
        tag = porting.read(self.root).pin.tag
        return self._tell(f"the refresh to {state.to_tag} is forgotten; the series is at {tag}")

    def undo(self) -> int:
        if self.session.load() is not None:
            raise Busy("a refresh is under way", hint="--abort it first")
        return self._tell(f"undone: {self.journal.undo().message}")

    def status(self) -> int:
        state = self.session.load()
        if self.given.json:
            waiting = None if state is None else self._status(state)
            code = Exit.OK if state is None else Exit.WAITING
            console.print_json("refresh", {"exit": int(code), "waiting": waiting})
            return code
        if state is None:
            print(f"no refresh is under way; the series is at {porting.read(self.root).pin.tag}")
            return Exit.OK
        print(f"carrying {state.from_tag} to {state.to_tag}, since {state.started}")
        for path in state.written:
            lines = leftovers(self.session.read(path) or b"")
            print(f"  {self._state_of(path):<9} {_place(path, lines)}")
        for name in state.homeless:
            print(f"  {'homeless':<9} {name}: --move {name} FILE, or --skip {name}")
        for name in state.drops:
            how = "accepted" if state.drops_accepted else "confirm with --accept-drops"
            print(f"  {'drop':<9} {name}: {how}")
        for name in state.skipped:
            print(f"  {'skipped':<9} {name}")
        print(_GO_ON)
        return Exit.WAITING

    def _tell(self, sentence: str) -> int:
        if self.given.json:
            console.print_json("refresh", {"exit": int(Exit.OK), "message": sentence})
        else:
            print(sentence)
        return Exit.OK

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
        waits = bool(plan.marked.keys() - edited.keys() or plan.homeless)
        if plan.drops and not state.drops_accepted and not waits and self._confirmed(plan):
            state = state.model_copy(update={"drops_accepted": True})
        waits = waits or bool(plan.drops and not state.drops_accepted)
        made = self._report(plan, state)
        folder = self._write_report(made, state)
        if self.given.dry_run:
            said: tuple[str, ...] = (f"nothing was written{' but the report' if folder else ''}",)
            return self._end(_Outcome(plan, made, folder, Exit(int(waits)), said))
        if waits:
            files = {path: marked.data for path, marked in plan.marked.items()}
            state = self.session.save(_with_questions(state, plan), files, edited.keys())
            said = tuple(self._next_steps(plan, state, edited.keys()))
            return self._end(_Outcome(plan, made, folder, Exit.WAITING, said))
        result = porting.finish(plan, edited, cache=self.cache)
        self.journal.switch(result.files, message=state.message, expect=state.fingerprint)
        self.session.end()
        said = (f"the series is at {state.to_tag} now (--undo puts {state.from_tag} back)",)
        return self._end(_Outcome(plan, made, folder, Exit.OK, said))

    def _edited(self, plan: Plan, state: State) -> dict[str, bytes]:
        """The files in which a person has settled every conflict."""
        if self.given.to is not None:
            return {}
        found: dict[str, bytes] = {}
        for path in sorted(plan.marked.keys() & state.written.keys()):
            data = self.session.read(path)
            if data is not None and not plan.marked[path].unsettled(data):
                found[path] = data
        return found

    def _confirmed(self, plan: Plan) -> bool:
        """Ask on a terminal whether the drops are right."""
        if self.given.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            return False
        for story in plan.carried.stories:
            for drop in story.drops:
                print(f"  {story.patch.name}: {drop.why.value}: {drop.evidence}")
        try:
            return input("drop these? [y/N] ").strip().lower() in {"y", "yes"}
        except EOFError:
            return False

    def _next_steps(self, plan: Plan, state: State, settled: Set[str]) -> list[str]:
        said: list[str] = []
        for path in sorted(plan.marked.keys() - settled):
            lines = plan.marked[path].unsettled(self.session.read(path) or b"")
            said.append(f"settle {_place(path, lines)}")
        for name in state.homeless:
            reasons = dict.fromkeys(c.reason for patch, c in plan.homeless if patch.name == name)
            said.append(f"{name}: {'; '.join(reasons)}")
            said.append(f"  --move {name} FILE puts it there to edit, --skip {name} gives it up")
        if plan.drops and not state.drops_accepted:
            count = len(plan.drops)
            lose = "1 patch loses a piece" if count == 1 else f"{count} patches lose pieces"
            said.append(f"{lose}: confirm with --accept-drops")
        return [*said, _GO_ON]

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
        return report.build(
            plan.start.pin, plan.carried, known, run, plan.stale,
            scan=self._scan(plan), audit=self._audited(plan),
        )  # fmt: skip

    def _audited(self, plan: Plan) -> tuple[Audited, ...]:
        """What level 1 of the audit says of the carried files, where it was asked for."""
        if not self.given.audit:
            return ()
        from portkit.audit.carried import audited  # noqa: PLC0415  (slow to import)

        return audited(self.cache.store, plan.carried)

    def _scan(self, plan: Plan) -> ScanReport | None:
        """What the new tag brings that Windows will not take; None where it is not looked for."""
        if self.given.no_scan:
            return None
        from portkit.scan import porting as scan_porting  # noqa: PLC0415  (slow to import)

        with console.progress(quiet=self.given.json) as events:
            return scan_porting.difference(self.root, plan, self.cache, events)

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
        for line in [*_summary(outcome.plan), *_audit(outcome.report)]:
            print(f"  {line}")
        if outcome.report.scan is not None and outcome.report.scan.found:
            print(f"  {_scan_line(outcome.report.scan)}")
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
        files = {f"{WORK_FOLDER}/{path}": self._state_of(path) for path in state.written}
        return {
            "from": state.from_tag,
            "tags": list(state.tags),
            "started": state.started,
            "files": files,
            "conflicts": list(state.waiting),
            "homeless": list(state.homeless),
            "drops": list(state.drops),
            "drops_accepted": state.drops_accepted,
            "skipped": list(state.skipped),
        }

    def _state_of(self, path: str) -> str:
        data = self.session.read(path)
        if data is None:
            return "missing"
        return "waiting" if leftovers(data) else "settled"


def _place(path: str, lines: Sequence[int]) -> str:
    """The file to edit, with the line of its first conflict."""
    return f"{WORK_FOLDER}/{path}" + (f":{lines[0]}" if lines else "")


def _with_questions(state: State, plan: Plan) -> State:
    """The state with what waits, so that --status knows it and answers can be checked."""
    waiting = [patch.name for patch, _ in plan.carried.conflicts]
    homeless = [patch.name for patch, _ in plan.homeless]
    questions = {"waiting": waiting, "homeless": homeless, "drops": plan.drops}
    return state.model_copy(
        update={name: tuple(dict.fromkeys(found)) for name, found in questions.items()}
    )


def _find(start: Start, text: str) -> str:
    """The name of the patch a person means by its name, its path or its file's path."""
    wanted = text.replace("\\", "/").removeprefix("patch_series/")
    for patch in start.patches:
        if wanted in {patch.name, patch.path, patch.name.removesuffix(".patch")}:
            return patch.name
    raise BadInput(f"there is no patch {text}", hint="patch_series/series lists them")


def _refuse_idle(names: Sequence[str], known: Collection[str], what: str) -> None:
    """Refuse an answer about a patch that asks nothing."""
    for name in names:
        if name not in known:
            raise BadInput(f"nothing of {name} {what}", hint="see --status for what waits")


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
    how = f" ({', '.join(order)})" if order else ""
    lines += [
        f"{'look at':<9} {use.path}:{use.line}: uses {use.name} as it was before {use.patch}"
        for use in plan.stale
    ]
    return [f"{'carried':<9} {_count(plain, 'patch', 'patches')} whole{how}", *lines]


def _scan_line(scan: ScanReport) -> str:
    certain = sum(one.tier == "certain" for one in scan.found)
    new = _count(len(scan.found), "new entry", "new entries")
    return f"{'scan':<9} {new} of what Windows will not take, {certain} certain (see the report)"


def _audit(made: Report) -> list[str]:
    if not made.audit:
        return []
    same = sum(one.identical for one in made.audit)
    return [f"{'audit':<9} {same} of {len(made.audit)} files are upstream's outside of Windows"]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


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
