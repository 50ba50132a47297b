"""The journal's memory, `.port/journal/`: steps, and every version of a file they need.

`objects/` holds bytes under their sha256; `log.json` names the steps and the one the files stand
at; `staged/` holds what is about to be put in place, and lies there only while something is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from portkit.change import durable
from portkit.change.managed import EXECUTABLE, Executable, digest_of
from portkit.errors import IntegrityError

KEPT_STEPS = 50
_VERSION = 1

Changes = Mapping[str, tuple[str | None, str | None]]
"""For each path the digest it has before and after; None is no file."""


@dataclass(frozen=True)
class Entry:
    """A step as a person sees it; `time` is UTC in ISO 8601, `undone` says it is not in effect."""

    number: int
    time: str
    message: str
    undone: bool


@dataclass(frozen=True)
class Step:
    """A step in the log: `parent` is the step it was made on, `changes` the id of its object."""

    number: int
    parent: int
    time: str
    message: str
    changes: str


@dataclass(frozen=True)
class Moving:
    """A committed move of files that may be half done: to the later side of `changes` or back."""

    what: str
    changes: str
    forward: bool


@dataclass(frozen=True)
class Log:
    """The steps, oldest first, and `head`, the number of the last one in effect."""

    head: int = 0
    steps: tuple[Step, ...] = ()
    moving: Moving | None = None

    @property
    def current(self) -> Step | None:
        """The last step in effect: what `undo` undoes."""
        return next((step for step in self.steps if step.number == self.head), None)

    @property
    def following(self) -> Step | None:
        """The newest step made on the current one: what `redo` redoes."""
        return next((step for step in reversed(self.steps) if step.parent == self.head), None)

    @property
    def entries(self) -> list[Entry]:
        """The steps as a person sees them: in effect are the head and what it was made on."""
        entries: list[Entry] = []
        effective = self.head
        for step in reversed(self.steps):
            undone = step.number != effective
            entries.append(Entry(step.number, step.time, step.message, undone))
            if not undone:
                effective = step.parent
        return entries[::-1]

    def entry(self, number: int) -> Entry:
        return next(entry for entry in self.entries if entry.number == number)

    def adding(self, message: str, changes: str) -> Log:
        """The log with a new step in effect, and without the oldest if there are too many."""
        number = self.steps[-1].number + 1 if self.steps else 1
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        step = Step(number, self.head, time, message, changes)
        return Log(number, (*self.steps, step)[-KEPT_STEPS:])


class Steps:
    """The folder that holds the log and the objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staged = folder / "staged"
        self._objects = folder / "objects"
        self._log = folder / "log.json"

    def read(self) -> Log:
        """The log, empty at first; raises `IntegrityError` when it cannot be understood."""
        try:
            record = json.loads(self._log.read_bytes())
            if record["version"] != _VERSION:
                raise ValueError
            moving = record["moving"] and Moving(**record["moving"])
            return Log(record["head"], tuple(Step(**step) for step in record["steps"]), moving)
        except FileNotFoundError:
            return Log()
        except (ValueError, KeyError, TypeError):
            raise self._lost("log.json") from None

    def write(self, log: Log) -> None:
        """Replace the log, whole or not at all."""
        self.staged.mkdir(parents=True, exist_ok=True)
        fresh = self.staged / "log.json"
        durable.write(fresh, json.dumps({"version": _VERSION, **asdict(log)}, indent=1).encode())
        durable.replace(fresh, self._log)
        durable.sync_folder(self.folder)

    def keep(self, versions: Iterable[bytes], changes: Changes) -> str:
        """Store versions of files and the changes between them; the id of the changes."""
        self.staged.mkdir(parents=True, exist_ok=True)  # so that `tidy` is due if we are killed
        self._objects.mkdir(exist_ok=True)
        record = json.dumps(changes).encode()
        for data in (*versions, record):
            file = self._objects / sha256(data).hexdigest()
            if digest_of(file) != file.name:
                durable.write(file, data)
        for folder in (self._objects, self.folder, *self.folder.parents[:2]):
            durable.sync_folder(folder)
        return sha256(record).hexdigest()

    def version(self, digest: str) -> bytes:
        """The bytes with this digest; raises `IntegrityError` when they are no longer there."""
        name = digest.removesuffix(EXECUTABLE)
        file = self._objects / name
        data = file.read_bytes() if file.is_file() else b""
        if sha256(data).hexdigest() != name:
            raise self._lost(f"objects/{name}")
        return Executable(data) if digest != name else data

    def changes(self, digest: str, *, forward: bool = True) -> Changes:
        """The changes with this id, or their inverse."""
        sides: dict[str, list[str | None]] = json.loads(self.version(digest))
        order = 1 if forward else -1
        return {path: (pair[::order][0], pair[::order][1]) for path, pair in sides.items()}

    def tidy(self, log: Log) -> None:
        """Remove what no step of `log` needs."""
        with suppress(IntegrityError):  # never delete in doubt
            needed: set[str] = set()
            for step in log.steps:
                sides = self.changes(step.changes).values()
                digests = (digest for pair in sides for digest in pair if digest is not None)
                needed |= {step.changes, *(digest.removesuffix(EXECUTABLE) for digest in digests)}
            files = self._objects.iterdir() if self._objects.is_dir() else ()
            for file in [file for file in files if file.name not in needed]:
                file.unlink(missing_ok=True)
        shutil.rmtree(self.staged, ignore_errors=True)

    def _lost(self, name: str) -> IntegrityError:
        folder = "/".join(self.folder.parts[-2:])
        return IntegrityError(
            f"{folder}/{name} is missing or damaged",
            hint=f"check the series with git, then delete {folder} to forget what can be undone",
        )
