"""Doing the stages of a build, one after the other, each with its log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from portkit import patched
from portkit.build import (
    cmakereply,
    environment,
    examine,
    failure,
    manifest,
    running,
    setupscript,
    source,
    thirdparty,
    trial,
    units,
    verify,
    wheels,
)  # fmt: skip
from portkit.build.examine import Findings, Wanted
from portkit.build.failure import Failure
from portkit.build.machine import Machine
from portkit.build.manifest import Manifest
from portkit.build.pinned import Pinned, package_files
from portkit.build.plan import Places, Range, Stage, State, key_of
from portkit.build.running import Peaks
from portkit.build.setupscript import CMakeSteps, Step
from portkit.build.thirdparty import Provided
from portkit.build.words import Check, failed
from portkit.errors import BadInput, BuildFailed, IntegrityError
from portkit.git import Store
from portkit.model import Event, Events, Patch, Pin, silent
from portkit.series import Series
from portkit.tree import long_path

# What changes a configured build, beside the commands of setup.py themselves.
_CONFIGURING = (
    "CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "VLLM_VERSION_OVERRIDE", "CMAKE_ARGS", "CMAKE_BUILD_TYPE",
    "CUDAHOSTCXX", "CXX", "CC", "NVCC_THREADS", "MAX_JOBS", "VCToolsVersion",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What a person asked of a build, beside what is in `Wanted`.

    `units` are patterns of sources to compile alone; `affected` those that a patch touches.
    """

    deps: Path | None = None
    affected: bool = False
    units: tuple[str, ...] = ()
    keep_going: bool = False


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
class Builder:
    """A build of the pin of one repository in one work folder."""

    machine: Machine
    store: Store
    pin: Pin
    series: Series
    wanted: Wanted
    options: Options
    events: Events = silent
    found: Findings = field(default_factory=Findings)
    provided: tuple[Provided, ...] = ()

    def __post_init__(self) -> None:
        self.places = Places(self.wanted.work)
        self.state = State.load(self.wanted.work / "state.json")
        self.tree = patched.verified_tree(self.store, self.pin, self.series.upstream)
        self.pinned = Pinned.of(self.store, self.pin, self.tree)

    # what is known before anything is done

    @property
    def version(self) -> str:
        """The version of the wheel: `0.14.1+cu126.win`."""
        torch = self.found.target.torch if self.found.target is not None else None
        if torch is None or torch.cuda is None:
            raise BadInput("there is no torch with CUDA to build for", hint="tools/doctor.py")
        return wheels.local_version(self.pinned.version, torch.cuda, windows=self.machine.windows)

    def environment(self) -> dict[str, str]:
        """The variables the build sets; third-party folders where they are or will be."""
        deps = dict(one.setting for one in self.provided) or {
            one.variable: self._expected(one).as_posix() for one in self.pinned.dependencies
        }
        return environment.environment(
            self.machine, self.found, version=self.version, deps=deps, fetched=self.places.fetched
        )

    def _expected(self, dependency: thirdparty.Dependency) -> Path:
        named = self.machine.environ.get(dependency.variable)
        if named:
            return Path(named)
        home = self.options.deps if self.options.deps is not None else self.places.deps
        return home.absolute() / dependency.name / dependency.inside

    # running

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
            self._know_deps()
        for stage in asked.stages:
            if stage is Stage.DOCTOR:
                continue
            started = running.now()
            log = self.places.log(stage)
            if self.is_fresh(stage, asked):
                if stage is Stage.DEPS:
                    self._know_deps()
                yield Done(stage, "up to date", True, 0.0, log)
                continue
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as file:
                file.write(f"# {stage.value}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
                said, checks = work[stage](file)
            if not self._partial(stage):
                self.state.finish(stage, self._key(stage))
            yield Done(stage, said, False, running.now() - started, log, tuple(checks))

    def is_fresh(self, stage: Stage, asked: Range) -> bool:
        """Whether a stage was done with what it depends on, and nobody asks for it again."""
        if stage is Stage.DOCTOR or stage in asked.forced or self._partial(stage):
            return False
        return self.state.is_done(stage, self._key(stage))

    def look(self) -> tuple[Check, ...]:
        """Examine the machine; raises `BadInput` with the first thing a build cannot do without."""
        self.events(Event("looking at the machine"))
        self.found = examine.examine(self.machine, self.wanted, self.pinned)
        checks = tuple(self.found.checks)
        bad = failed(checks)
        if bad:
            first = bad[0]
            more = f" (and {len(bad) - 1} more: tools/doctor.py)" if len(bad) > 1 else ""
            raise BadInput(f"{first.name}: {first.said}{more}", hint=first.remedy)
        return checks

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

    def _key(self, stage: Stage) -> str:
        """What a stage depends on; each on the one before it."""
        keys: dict[Stage, str] = {Stage.SOURCE: key_of(self.tree)}
        recipes = [(one, self._patches(one.name)) for one in self.pinned.dependencies]
        settings = [self.machine.environ.get(one.variable, "") for one in self.pinned.dependencies]
        keys[Stage.DEPS] = key_of(keys[Stage.SOURCE], recipes, settings, self.options.deps)
        added = self.environment() if stage not in (Stage.SOURCE, Stage.DEPS) else {}
        known = {**self.machine.environ, **added}
        contents = [one.content for one in self.provided]
        python = self.found.target.executable if self.found.target is not None else None
        keys[Stage.CONFIGURE] = key_of(
            keys[Stage.DEPS], contents, python, [known.get(name) for name in _CONFIGURING]
        )
        compiled = self.state.left.get("compiled", "")
        keys[Stage.COMPILE] = key_of(keys[Stage.CONFIGURE])
        keys[Stage.POST_BUILD] = key_of(keys[Stage.COMPILE], compiled)
        keys[Stage.WHEEL] = key_of(keys[Stage.POST_BUILD])
        keys[Stage.VERIFY] = key_of(keys[Stage.WHEEL], self.state.left.get("wheel", ""))
        return keys[stage]

    def _partial(self, stage: Stage) -> bool:
        """Whether this run compiles some units only, which is never the whole stage."""
        return stage is Stage.COMPILE and bool(self.options.affected or self.options.units)

    # the stages

    def _source(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        written = source.bring(self.store, self.tree, self.pin, self.places.source, self.events)
        log.write(f"tree {self.tree}, {written} files written to {self.places.source}\n".encode())
        return (
            f"vLLM {self.pin.tag} with {len(self.series.upstream)} patches, {written} files "
            "written",
            (),
        )

    def _deps(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self.provided = self._provide()
        for one in self.provided:
            patches = ", ".join(one.patches) or "no patches"
            log.write(
                f"{one.dependency.name} {one.dependency.revision}: {one.folder}, from "
                f"{one.origin}, {one.content}, {patches}\n".encode()
            )
        self.state.left["deps"] = {one.dependency.name: one.content for one in self.provided}
        names = (f"{one.dependency.name} {one.dependency.revision[:12]}" for one in self.provided)
        return ", ".join(names), ()

    def _provide(self) -> tuple[Provided, ...]:
        return tuple(
            thirdparty.provide(
                one,
                self.places.deps,
                patches=self._patches(one.name),
                offline=self.options.deps,
                environ=self.machine.environ,
                events=self.events,
            )
            for one in self.pinned.dependencies
        )

    def _know_deps(self) -> None:
        """What an earlier run brought; without it, later stages have nothing to name."""
        if self.state.done.get(Stage.DEPS.value) is not None:
            self.provided = self._provide()

    def _patches(self, name: str) -> tuple[Patch, ...]:
        return thirdparty.patches_of(self.series.patches, name)

    def _configure(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self._needs(Stage.DEPS)
        self.events(Event("configuring"))
        environ = self.environ()
        steps = setupscript.capture(self.machine, self.python, self.places.source, environ)
        cmakereply.ask(steps.folder)
        self._do(steps.configure, environ, log, Stage.CONFIGURE)
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
        self._needs(Stage.CONFIGURE)
        steps = self.steps()
        step = steps.build
        if self._partial(Stage.COMPILE):
            chosen = self.chosen_units()
            if not chosen:
                return "no unit to compile", ()
            step = Step(
                ("cmake", "--build", ".", f"-j={self._jobs}", *self._going(),
                 *(word for one in chosen for word in ("--target", one.object))),
                steps.folder,
            )  # fmt: skip
        elif self.options.keep_going:
            step = Step((*step.command, *self._going()), step.folder)
        peaks = self._do(step, self.environ(), log, Stage.COMPILE)
        self.state.left["compiled"] = time.time()
        self._record(peaks)
        said = (
            f"{len(self.chosen_units())} units" if self._partial(Stage.COMPILE) else "all modules"
        )
        if peaks.largest is not None:
            name, held = peaks.largest
            said += f"; the largest compile held {held / (1 << 30):.1f} GiB ({Path(name).name})"
        return said, ()

    def _post_build(self, log: IO[bytes]) -> tuple[str, Sequence[Check]]:
        self._needs(Stage.COMPILE)
        steps = self.steps()
        for step in steps.installs:
            self._do(step, self.environ(), log, Stage.POST_BUILD)
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
        self._needs(Stage.POST_BUILD)
        self.events(Event("making the wheel"))
        raw = self.places.dist / "raw"
        if raw.exists():
            shutil.rmtree(long_path(raw))
        self._do(self.wheel_step(), self.environ(), log, Stage.WHEEL)
        made = wheels.opened(next(iter(raw.glob("*.whl"))))
        wheel = self.finish_wheel(made)
        self.state.left["wheel"] = str(wheel)
        return f"{wheel} ({wheel.stat().st_size / 1e6:.1f} MB)", ()

    def wheel_step(self) -> Step:
        """What makes upstream's wheel; its CMake part finds everything done."""
        command = (
            str(self.python), "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
            "--disable-pip-version-check", "--wheel-dir", str(self.places.dist.absolute() / "raw"),
            "--config-settings=--build-option=--py-limited-api=cp38",
        )  # fmt: skip
        return Step(command, self.places.source)

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
        self._needs(Stage.WHEEL)
        wheel = wheels.opened(Path(str(self.state.left["wheel"])))
        expected = self._manifest()
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

    def _manifest(self) -> Manifest:
        """What CMake said this very build has, with what is recorded of the pin."""
        exact = manifest.of_build(cmakereply.read(self.steps().folder), self.pin.tag)
        try:
            recorded = manifest.load(self.pin.tag)
        except BadInput:
            return exact
        payload = tuple(sorted({*exact.payload, *recorded.payload}))
        return Manifest(self.pin.tag, exact.modules, payload, recorded.generated)

    # helpers

    def steps(self) -> CMakeSteps:
        """The commands that the last configure captured; raises `IntegrityError` without one."""
        left = self.state.left.get("steps")
        if not isinstance(left, list) or len(left) < 2:
            raise IntegrityError(
                "nothing is configured yet", hint="tools/build.py --from configure"
            )
        first, second, *rest = (Step(tuple(one[0]), Path(one[1])) for one in left)
        return CMakeSteps(first, second, tuple(rest))

    def chosen_units(self) -> list[cmakereply.Unit]:
        """The units that `--affected` and `--units` name."""
        reply = cmakereply.read(self.steps().folder)
        chosen = list(reply.units)
        if self.options.affected:
            changed = [one.path for one in self.series.upstream]
            names = dict.fromkeys(self.pinned.paths)
            chosen = [one.unit for one in units.affected(reply, changed, names)]
        if self.options.units:
            chosen = [
                one
                for one in chosen
                if any(
                    fnmatch(_below(one.source, reply.source), f"*{p}*") for p in self.options.units
                )
            ]
            if not chosen:
                raise BadInput(
                    f"no unit matches {' '.join(self.options.units)}",
                    hint="tools/build.py units lists them",
                )
        return chosen

    def _going(self) -> tuple[str, ...]:
        return ("--", "-k", "0") if self.options.keep_going else ()

    @property
    def _jobs(self) -> int:
        return self.found.jobs.count if self.found.jobs is not None else 1

    @property
    def python(self) -> Path:
        assert self.found.target is not None
        return self.found.target.executable

    def environ(self) -> Mapping[str, str]:
        added = self.environment()
        known = {name.upper() for name in added} if self.machine.windows else set(added)
        kept = {n: v for n, v in self.machine.environ.items()
                if (n.upper() if self.machine.windows else n) not in known}  # fmt: skip
        return {**kept, **added}

    def _needs(self, stage: Stage) -> None:
        """Raise `BadInput` when a stage before this one was never done."""
        if self.state.done.get(stage.value) is None:
            raise BadInput(
                f"the stage {stage.value} was not done yet",
                hint=f"tools/build.py --from {stage.value}",
            )

    def _do(self, step: Step, environ: Mapping[str, str], log: IO[bytes], stage: Stage) -> Peaks:
        code, peaks = running.run(step, environ, log, f"{stage.value}", self.events)
        if code != 0:
            self._record(peaks)
            path = self.places.log(stage)
            text = path.read_text(encoding="utf-8", errors="replace")
            found = failure.failures(text, self._sources() if stage is Stage.COMPILE else {})
            raise stage_failure(stage, found, path, code)
        return peaks

    def _sources(self) -> dict[str, str]:
        """The source of each object file."""
        reply = cmakereply.read(self.steps().folder)
        return {one.object: str(one.source) for one in reply.units}

    def _record(self, peaks: Peaks) -> None:
        """Keep the most memory seen of each unit, for the next choice of `MAX_JOBS` by a person."""
        before = self.state.left.get("memory")
        known = dict(before) if isinstance(before, dict) else {}
        for name, held in peaks.bytes.items():
            known[name] = max(held, int(known.get(name, 0)))
        self.state.left["memory"] = known
        self.state.save()


def stage_failure(stage: Stage, found: Sequence[Failure], log: Path, code: int) -> BuildFailed:
    """The error of a failed stage: the source, the first error, what is known of it."""
    if not found:
        return BuildFailed(
            f"{stage.value} ended with {code} and named no error",
            hint=f"the end of {log} may say more; tools/doctor.py {log} knows common failures",
        )
    first = found[0]
    source_name = f"{first.source}: " if first.source and first.source not in first.error else ""
    more = f" (and {len(found) - 1} more failed)" if len(found) > 1 else ""
    hint = f"{log}:{first.line} has the rest"
    if first.known is not None:
        hint = f"{first.known.cause} {first.known.remedy} ({hint})"
    return BuildFailed(
        f"{stage.value}: {source_name}{first.error}{more}", hint=hint, failures=found
    )


def _module(prefix: Path, name: str) -> bool:
    folder, _, stem = name.rpartition("/")
    return any(manifest.is_compiled(path.name) for path in (prefix / folder).glob(f"{stem}.*"))


def _below(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
