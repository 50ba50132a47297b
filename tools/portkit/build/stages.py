"""Doing the stages of a build, one after the other, each with its log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from portkit.build import (
    cmakereply,
    manifest,
    running,
    setupscript,
    source,
    trial,
    units,
    verify,
    wheels,
)  # fmt: skip
from portkit.build.context import Context
from portkit.build.manifest import Manifest
from portkit.build.pinned import package_files
from portkit.build.plan import Range, Stage
from portkit.build.setupscript import Step
from portkit.build.words import Check, failed
from portkit.errors import BuildFailed
from portkit.model import Event
from portkit.upstream.tree import long_path


@dataclass(frozen=True)
class Done:
    """How a stage ended: what it did in a line, or that it was up to date; seconds; its log."""

    stage: Stage
    said: str
    fresh: bool
    seconds: float
    log: Path
    checks: tuple[Check, ...] = ()


@dataclass
class Builder(Context):
    """The stages; each says in a line what it did."""

    def run(self, asked: Range) -> Iterator[Done]:
        """Do the stages; each is reported as it ends.  Raises `BuildFailed` for one that fails."""
        work = {
            Stage.SOURCE: self._source,
            Stage.DEPS: self._deps,
            Stage.CONFIGURE: self._configure,
            Stage.COMPILE: self._compile,
            Stage.POST_BUILD: self._post_build,
            Stage.WHEEL: self._wheel,
            Stage.VERIFY: self._verify,
        }
        yield self._doctor()
        if Stage.DEPS not in asked.stages:
            self.know_deps()
        for stage in asked.stages:
            if stage is Stage.DOCTOR:
                continue
            started = running.now()
            log = self.places.log(stage)
            if self.is_fresh(stage, asked):
                if stage is Stage.DEPS:
                    self.know_deps()
                yield Done(stage, "up to date", True, 0.0, log)
                continue
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as file:
                file.write(f"# {stage.value}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
                said, checks = work[stage](file)
            if not self.is_partial(stage):
                self.state.finish(stage, self.key(stage))
            yield Done(stage, said, False, running.now() - started, log, tuple(checks))

    def _doctor(self) -> Done:
        started = running.now()
        checks = self.look()
        log = self.places.log(Stage.DOCTOR)
        log.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{one.status.value:5} {one.name}: {one.said} {one.remedy}" for one in checks)
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        warned = sum(1 for one in checks if one.status.value == "warn")
        said = f"{len(checks)} checks, {warned} warnings" if warned else f"{len(checks)} checks"
        return Done(Stage.DOCTOR, said, False, running.now() - started, log, checks)

    def _source(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        written = source.bring(self.store, self.tree, self.pin, self.places.source, self.events)
        log.write(f"tree {self.tree}, {written} files written to {self.places.source}\n".encode())
        return (
            f"vLLM {self.pin.tag} with {len(self.series.upstream)} patches, {written} files "
            "written",
            (),
        )

    def _deps(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.provided = self.provide()
        for one in self.provided:
            patches = ", ".join(one.patches) or "no patches"
            log.write(
                f"{one.dependency.name} {one.dependency.revision}: {one.folder}, from "
                f"{one.origin}, {one.content}, {patches}\n".encode()
            )
        self.state.left["deps"] = {one.dependency.name: one.content for one in self.provided}
        names = (f"{one.dependency.name} {one.dependency.revision[:12]}" for one in self.provided)
        return ", ".join(names), ()

    def _configure(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.need(Stage.DEPS)
        self.events(Event("configuring"))
        environ = self.environ()
        steps = setupscript.capture(self.machine, self.python, self.places.source, environ)
        cmakereply.ask(steps.folder)
        self.do(steps.configure, environ, log, Stage.CONFIGURE)
        self.state.left["steps"] = [
            [list(one.command), str(one.folder)]
            for one in (steps.configure, steps.build, *steps.installs)
        ]
        self.state.save()
        reply = cmakereply.read(steps.folder)
        counts = units.counted(reply.units)
        told = ", ".join(f"{name or 'other'} {count}" for name, count in counts.items())
        return f"{len(reply.units)} translation units ({told})", ()

    def _compile(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.need(Stage.CONFIGURE)
        steps = self.steps()
        step = steps.build
        if self.is_partial(Stage.COMPILE):
            chosen = self.chosen_units()
            if not chosen:
                return "no unit to compile", ()
            step = Step(
                ("cmake", "--build", ".", f"-j={self.jobs}", *self.going(),
                 *(word for one in chosen for word in ("--target", one.object))),
                steps.folder,
            )  # fmt: skip
        elif self.options.keep_going:
            step = Step((*step.command, *self.going()), step.folder)
        peaks = self.do(step, self.environ(), log, Stage.COMPILE)
        self.state.left["compiled"] = time.time()
        self._record(peaks)
        said = (
            f"{len(self.chosen_units())} units" if self.is_partial(Stage.COMPILE) else "all modules"
        )
        if peaks.largest is not None:
            name, held = peaks.largest
            said += f"; the largest compile held {held / (1 << 30):.1f} GiB ({Path(name).name})"
        return said, ()

    def _post_build(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.need(Stage.COMPILE)
        steps = self.steps()
        for step in steps.installs:
            self.do(step, self.environ(), log, Stage.POST_BUILD)
        expected = manifest.of_build(cmakereply.read(steps.folder), self.pin.tag)
        assert steps.prefix is not None
        copied = self._copy_payload(steps.prefix, expected, log)
        missing = [name for name in expected.modules if not _module(steps.prefix, name)]
        if missing:
            raise BuildFailed(
                f"post-build: not installed: {', '.join(missing)}",
                hint=f"tools/build.py --from compile; see {self.places.log(Stage.POST_BUILD)}",
            )
        return f"{len(expected.modules)} modules, {copied} third-party Python files", ()

    def _copy_payload(self, prefix: Path, expected: Manifest, log: IO[bytes]) -> int:
        """Third-party Python files into the source too, as setup.py does for editable installs."""
        for place in expected.payload:
            installed = prefix / place
            if not installed.is_file():
                raise BuildFailed(
                    f"post-build: {place} was not installed with its module",
                    hint="tools/build.py --from deps, in case a third-party folder is incomplete",
                )
            target = self.places.source / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(long_path(installed), long_path(target))
            log.write(f"copied {place}\n".encode())
        return len(expected.payload)

    def _wheel(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.need(Stage.POST_BUILD)
        self.events(Event("making the wheel"))
        raw = self.places.dist / "raw"
        if raw.exists():
            shutil.rmtree(long_path(raw))
        self.do(self.wheel_step(), self.environ(), log, Stage.WHEEL)
        made = wheels.opened(next(iter(raw.glob("*.whl"))))
        wheel = self.finish_wheel(made)
        self.state.left["wheel"] = str(wheel)
        return f"{wheel} ({wheel.stat().st_size / 1e6:.1f} MB)", ()

    def finish_wheel(self, made: wheels.Wheel) -> Path:
        """The wheel of setup.py with the metadata that installs on Windows, in `dist`."""
        place = f"{made.info}/METADATA"
        torch = self.found.target.torch if self.found.target is not None else None
        changes: dict[str, bytes] = {}
        if made.windows:
            changes[place] = wheels.for_windows(made.read(place), torch.version if torch else None)
        finished = wheels.rewrite(made, self.places.dist, changes=changes)
        for one in (made, finished):
            one.close()
        return finished.path

    def _verify(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.need(Stage.WHEEL)
        wheel = wheels.opened(Path(str(self.state.left["wheel"])))
        expected = self.manifest()
        pinned = package_files(self.store, self.tree)
        checks = verify.verify(wheel, expected, pinned, archs=self.found.archs, events=self.events)
        if not failed(checks) and self.found.target is not None:
            self.events(Event("importing it in a clean environment"))
            python = trial.prepare(self.machine, self.found.target, self.places.trial, wheel.path)
            names = ["vllm", *(name.replace("/", ".") for name in expected.modules)]
            checks += trial.imports(self.machine, python, names)
        wheel.close()
        for one in checks:
            log.write(f"{one.status.value:5} {one.name}: {one.said}\n".encode())
        if failed(checks):
            first = failed(checks)[0]
            raise BuildFailed(
                f"verify: {first.name}: {first.said}", hint=first.remedy, checks=checks
            )
        return f"{wheel.path.name}: {len(checks)} checks", checks


def _module(prefix: Path, name: str) -> bool:
    folder, _, stem = name.rpartition("/")
    return any(manifest.is_compiled(path.name) for path in (prefix / folder).glob(f"{stem}.*"))
