"""The stages of a build: their order, where their things lie, and what is known of each.

A stage that was done with the same inputs is not done again.  What was done is in `state.json` of
the work folder, written after each stage, so that a build stops and goes on at any point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from portkit.change import durable
from portkit.errors import BadInput

STATE_FILE = "state.json"


class Stage(str, Enum):
    """In order."""

    DOCTOR = "doctor"
    SOURCE = "source"
    DEPS = "deps"
    CONFIGURE = "configure"
    COMPILE = "compile"
    POST_BUILD = "post-build"
    WHEEL = "wheel"
    VERIFY = "verify"


STAGES = tuple(Stage)
WHAT = {
    Stage.DOCTOR: "look at the machine and choose",
    Stage.SOURCE: "write the patched source of the pin",
    Stage.DEPS: "fetch and patch third-party sources",
    Stage.CONFIGURE: "configure with CMake",
    Stage.COMPILE: "compile with Ninja",
    Stage.POST_BUILD: "install modules and third-party Python files",
    Stage.WHEEL: "make the wheel",
    Stage.VERIFY: "check the wheel and import it in a clean environment",
}


@dataclass(frozen=True)
class Places:
    """The folders of a build below its work folder."""

    work: Path

    @property
    def source(self) -> Path:
        return self.work / "source"

    @property
    def deps(self) -> Path:
        return self.work / "deps"

    @property
    def fetched(self) -> Path:
        """What CMake fetches by itself; nothing, unless a release fetches in a new way."""
        return self.work / "fetched"

    @property
    def dist(self) -> Path:
        return self.work / "dist"

    @property
    def trial(self) -> Path:
        """The clean environment of the last stage."""
        return self.work / "trial"

    def log(self, stage: Stage) -> Path:
        return self.work / "logs" / f"{STAGES.index(stage) + 1}-{stage.value}.log"


@dataclass
class State:
    """What was done: stage to the key of its inputs; what a stage left for later ones."""

    path: Path
    done: dict[str, str] = field(default_factory=dict)
    left: dict[str, object] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """The recorded state; none, or one of another form, is nothing done."""
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, dict(read["done"]), dict(read["left"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def is_done(self, stage: Stage, key: str) -> bool:
        return self.done.get(stage.value) == key

    def finish(self, stage: Stage, key: str) -> None:
        """Record a stage; those behind it were done with something older and count no more."""
        later = {one.value for one in STAGES[STAGES.index(stage) + 1 :]}
        if self.done.get(stage.value) != key:
            self.done = {name: value for name, value in self.done.items() if name not in later}
        self.done[stage.value] = key
        self.save()

    def forget(self, stages: Sequence[Stage]) -> None:
        for one in stages:
            self.done.pop(one.value, None)
        self.save()

    def save(self) -> None:
        text = json.dumps({"done": self.done, "left": self.left}, indent=1)
        durable.put(self.path, text.encode())


@dataclass(frozen=True)
class Range:
    """Which stages a person asked for; `forced` ones run though they are done."""

    stages: tuple[Stage, ...]
    forced: frozenset[Stage]


def asked(first: str | None, last: str | None, only: str | None) -> Range:
    """`--from`, `--to` and `--only` as stages; raises `BadInput` where they contradict."""
    if only is not None:
        if first is not None or last is not None:
            raise BadInput("--only names one stage; --from and --to go without it")
        # The machine is always looked at: later stages need what it found.
        stages = tuple(dict.fromkeys((Stage.DOCTOR, Stage(only))))
        return Range(stages, frozenset({Stage(only)}))
    start = STAGES.index(Stage(first)) if first is not None else 0
    end = STAGES.index(Stage(last)) + 1 if last is not None else len(STAGES)
    if start >= end:
        raise BadInput(f"--from {first} comes after --to {last}")
    forced = frozenset(STAGES[start:end]) if first is not None else frozenset()
    return Range(tuple(dict.fromkeys((Stage.DOCTOR, *STAGES[start:end]))), forced)


def key_of(*inputs: object) -> str:
    """A digest of what a stage depends on."""
    return hashlib.sha256(repr(inputs).encode("utf-8", "surrogateescape")).hexdigest()[:16]
