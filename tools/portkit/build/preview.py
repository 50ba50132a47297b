"""The plan of a build before anything is done: every command and every variable."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from portkit.build import setupscript
from portkit.build.plan import Range, Stage
from portkit.build.setupscript import CMakeSteps, Step
from portkit.build.source import packaging_files
from portkit.build.stages import Builder

# What setup.py reads to say how it builds.
_READ = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "vllm/envs.py", "requirements/")


@dataclass(frozen=True)
class Planned:
    """One stage: whether it is up to date, its commands, and what it does without one."""

    stage: Stage
    fresh: bool
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """The variables that are set, and the stages in order."""

    environment: dict[str, str]
    stages: tuple[Planned, ...]


def preview(build: Builder, asked: Range) -> Preview:
    """What `build.run(asked)` would do; raises as its doctor stage does."""
    build.look()
    environment = build.environment()
    steps = _captured(build)
    places = build.places
    notes = {
        Stage.SOURCE: (
            f"vLLM {build.pin.tag} with {len(build.series.upstream)} patches, to {places.source}",
        ),
        Stage.DEPS: tuple(
            f"{one.name}: {one.repository} at {one.revision}, {environment[one.variable]}"
            for one in build.pinned.dependencies
        ),
        Stage.VERIFY: (
            "every check of tools/build.py verify, then an import in a clean environment",
        ),
    }
    commands = {
        Stage.CONFIGURE: (steps.configure,),
        Stage.COMPILE: (steps.build,),
        Stage.POST_BUILD: steps.installs,
        Stage.WHEEL: (build.wheel_step(),),
    }
    planned = [
        Planned(one, build.is_fresh(one, asked), commands.get(one, ()), notes.get(one, ()))
        for one in asked.stages
    ]
    return Preview(environment, tuple(planned))


def _captured(build: Builder) -> CMakeSteps:
    """The commands of setup.py, from a copy of the few files that it reads."""
    with tempfile.TemporaryDirectory(prefix="plan-") as temporary:
        folder = Path(temporary).resolve()
        for path in build.pinned.paths:
            if path.startswith(_READ):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(build.pinned.read(path))
        for path, data in packaging_files(build.pin, ()).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        steps = setupscript.capture(build.machine, build.python, folder, build.environ())
        here, there = folder.as_posix(), build.places.source.as_posix()
        return CMakeSteps(
            _moved(steps.configure, here, there),
            _moved(steps.build, here, there),
            tuple(_moved(one, here, there) for one in steps.installs),
        )


def _moved(step: Step, here: str, there: str) -> Step:
    folder = Path(step.folder.as_posix().replace(here, there))
    words = (
        word.replace(here, there).replace(str(Path(here)), str(Path(there)))
        for word in step.command
    )
    return replace(step, command=tuple(words), folder=folder)


def as_json(shown: Preview) -> dict[str, Any]:
    return {
        "environment": shown.environment,
        "stages": [
            {
                "stage": one.stage.value,
                "up-to-date": one.fresh,
                "commands": [
                    {"command": list(s.command), "folder": str(s.folder)} for s in one.steps
                ],
                "notes": list(one.notes),
            }
            for one in shown.stages
        ],
    }
