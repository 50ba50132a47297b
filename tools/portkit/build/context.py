"""What the stages of a build share: the machine, the pin, what was found and done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from portkit.build import (
    cmakereply,
    environment,
    examine,
    failure,
    manifest,
    running,
    thirdparty,
    units,
    wheels,
)  # fmt: skip
from portkit.build.examine import Findings, Wanted
from portkit.build.failure import Failure
from portkit.build.machine import Machine
from portkit.build.manifest import Manifest
from portkit.build.pinned import Pinned
from portkit.build.plan import STAGES, STATE_FILE, Places, Range, Stage, State, key_of
from portkit.build.running import Peaks
from portkit.build.setupscript import CMakeSteps, Step
from portkit.build.thirdparty import Provided
from portkit.build.words import Check, failed
from portkit.errors import BadInput, BuildFailed, IntegrityError
from portkit.model import Event, Events, Patch, Pin, silent
from portkit.patches import patched
from portkit.patches.series import Series
from portkit.text import archlists
from portkit.upstream.git import Store

# What changes a configured build, beside the commands of setup.py themselves.
_CONFIGURING = (
    "CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "VLLM_VERSION_OVERRIDE", "CMAKE_ARGS", "CMAKE_BUILD_TYPE",
    "CUDAHOSTCXX", "CXX", "CC", "NVCC_THREADS", "VCToolsVersion",
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


@dataclass
class Context:
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
        self.state = State.load(self.wanted.work / STATE_FILE)
        self.tree = patched.verified_tree(self.store, self.pin, self.series.upstream)
        self.pinned = Pinned.of(self.store, self.pin, self.tree)

    @property
    def version(self) -> str:
        """The version of the wheel: `0.14.1+cu126.sm86.win`."""
        torch = self.found.target.torch if self.found.target is not None else None
        if torch is None or torch.cuda is None:
            raise BadInput("there is no torch with CUDA to build for", hint="tools/doctor.py")
        cuda, archs = torch.cuda, self.found.archs
        every = archlists.supported(self.pinned.archs, torch.cuda_release or ())
        if every and set(every) <= set(archs):
            archs = ()
        return wheels.local_version(self.pinned.version, cuda, archs, windows=self.machine.windows)

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

    def environ(self) -> Mapping[str, str]:
        added = self.environment()
        known = {name.upper() for name in added} if self.machine.windows else set(added)
        kept = {n: v for n, v in self.machine.environ.items()
                if (n.upper() if self.machine.windows else n) not in known}  # fmt: skip
        return {**kept, **added}

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

    def is_fresh(self, stage: Stage, asked: Range) -> bool:
        """Whether a stage was done with what it depends on, and nobody asks for it again."""
        if stage is Stage.DOCTOR or stage in asked.forced or self.is_partial(stage):
            return False
        return self.state.is_done(stage, self.key(stage))

    def key(self, stage: Stage) -> str:
        """A digest of what a stage depends on; each depends on the one before it."""
        if stage is Stage.SOURCE:
            return key_of(self.tree)
        before = self.key(STAGES[STAGES.index(stage) - 1])
        return key_of(before, *self._inputs(stage))

    def _inputs(self, stage: Stage) -> tuple[object, ...]:
        """What a stage depends on beside the stage before it."""
        if stage is Stage.DEPS:
            recipes = [(one, self.patches_of(one.name)) for one in self.pinned.dependencies]
            named = [self.machine.environ.get(one.variable) for one in self.pinned.dependencies]
            return recipes, named, self.options.deps
        if stage is Stage.CONFIGURE:
            known = self.environ()
            # Computed jobs follow free memory, which must not configure a build again.
            asked = self.wanted.jobs, self.machine.environ.get("MAX_JOBS")
            contents = [one.content for one in self.provided]
            return contents, self.python, asked, [known.get(name) for name in _CONFIGURING]
        if stage is Stage.POST_BUILD:
            return (self.state.left.get("compiled"),)
        if stage is Stage.VERIFY:
            return (self.state.left.get("wheel"),)
        return ()

    def is_partial(self, stage: Stage) -> bool:
        """Whether this run compiles some units only, which is never the whole stage."""
        return stage is Stage.COMPILE and bool(self.options.affected or self.options.units)

    def provide(self) -> tuple[Provided, ...]:
        return tuple(
            thirdparty.provide(
                one,
                self.places.deps,
                patches=self.patches_of(one.name),
                offline=self.options.deps,
                environ=self.machine.environ,
                events=self.events,
            )
            for one in self.pinned.dependencies
        )

    def know_deps(self) -> None:
        """What an earlier run brought; without it, later stages have nothing to name."""
        if self.state.done.get(Stage.DEPS.value) is not None:
            self.provided = self.provide()

    def patches_of(self, name: str) -> tuple[Patch, ...]:
        return thirdparty.patches_of(self.series.patches, name)

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

    @property
    def python(self) -> Path:
        assert self.found.target is not None
        return self.found.target.executable

    def wheel_step(self) -> Step:
        """What makes upstream's wheel; its CMake part finds everything done."""
        command = (
            str(self.python), "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
            "--disable-pip-version-check", "--wheel-dir", str(self.places.dist.absolute() / "raw"),
            "--config-settings=--build-option=--py-limited-api=cp38",
        )  # fmt: skip
        return Step(command, self.places.source)

    def going(self) -> tuple[str, ...]:
        return ("--", "-k", "0") if self.options.keep_going else ()

    @property
    def jobs(self) -> int:
        return self.found.jobs.count if self.found.jobs is not None else 1

    def need(self, stage: Stage) -> None:
        """Raise `BadInput` when a stage before this one was never done."""
        if self.state.done.get(stage.value) is None:
            raise BadInput(
                f"the stage {stage.value} was not done yet",
                hint=f"tools/build.py --from {stage.value}",
            )

    def do(self, step: Step, environ: Mapping[str, str], log: IO[bytes], stage: Stage) -> Peaks:
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

    def manifest(self) -> Manifest:
        """What CMake said this very build has, with what is recorded of the pin."""
        exact = manifest.of_build(cmakereply.read(self.steps().folder), self.pin.tag)
        try:
            recorded = manifest.load(self.pin.tag)
        except BadInput:
            return exact
        payload = tuple(sorted({*exact.payload, *recorded.payload}))
        return Manifest(self.pin.tag, exact.modules, payload, recorded.generated)


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


def _below(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()
