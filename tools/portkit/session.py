"""A refresh that waits for a person: its state on disk, and the files it left to edit.

The state names what was asked and answered, never a result: a refresh that goes on decides
everything anew, from the same inputs, so a state of an older or killed run cannot mislead it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from portkit import durable
from portkit.errors import BadInput, IntegrityError
from portkit.journal import STATE_FOLDER
from portkit.tree import long_path

WORK_FOLDER = "work/refresh"
_STATE = f"{STATE_FOLDER}/refresh.json"


class State(BaseModel):
    """What was asked of a waiting refresh and what a person has answered so far.

    `fingerprint` is that of the series at the start; `written` maps the path of each file left to
    edit to the sha256 it was written with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    started: str
    from_tag: str
    tags: tuple[str, ...]
    upstream: str | None
    fingerprint: dict[str, str]
    drops_accepted: bool = False
    skipped: tuple[str, ...] = ()
    moved: dict[str, str] = {}
    written: dict[str, str] = {}

    @property
    def to_tag(self) -> str:
        return self.tags[-1]


def now() -> str:
    """The time as the state records it, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Session:
    """The waiting refresh of the repository at `root`, if there is one."""

    def __init__(self, root: Path) -> None:
        self.root = Path(long_path(root.absolute()))
        self.work = self.root / WORK_FOLDER
        self._state = self.root / _STATE

    def load(self) -> State | None:
        """The state, or None when no refresh waits; raises `IntegrityError` when unreadable."""
        try:
            return State.model_validate_json(self._state.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise IntegrityError(
                f"{_STATE} is not the state of a refresh: {error.errors()[0]['msg']}",
                hint="tools/refresh.py --abort removes it; the series is as it was",
            ) from None

    def required(self) -> State:
        """The state; raises `BadInput` when no refresh waits."""
        state = self.load()
        if state is None:
            raise BadInput("no refresh is under way", hint="start one with --to TAG")
        return state

    def save(self, state: State, files: Mapping[str, bytes], settled: Collection[str]) -> State:
        """Leave `files` to edit and record them; those a person has `settled` stay as they are."""
        written = {p: d for p, d in state.written.items() if p in files}
        for path, data in files.items():
            digest = sha256(data).hexdigest()
            there = (self.work / path).exists()
            if path in settled or (written.get(path) == digest and there):
                continue
            self._refuse_edited(state, path)
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            durable.write(self.work / path, data)
            written[path] = digest
        for path in state.written.keys() - files.keys():
            self._refuse_edited(state, path)
            (self.work / path).unlink(missing_ok=True)
        state = state.model_copy(update={"written": written})
        self._state.parent.mkdir(exist_ok=True)
        staged = self._state.with_suffix(".new")
        durable.write(staged, state.model_dump_json(indent=2).encode() + b"\n")
        durable.replace(staged, self._state)
        return state

    def read(self, path: str) -> bytes:
        """The file a person was asked to edit, as it is now."""
        try:
            return (self.work / path).read_bytes()
        except FileNotFoundError:
            raise BadInput(
                f"{WORK_FOLDER}/{path} is missing",
                hint="restore it, or give the patch up with --skip",
            ) from None

    def edited(self, state: State, path: str) -> bool:
        """Whether the file differs from what was written for the person."""
        file = self.work / path
        known = state.written.get(path)
        return file.exists() and known != sha256(file.read_bytes()).hexdigest()

    def end(self) -> None:
        """Forget the refresh and its files."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def _refuse_edited(self, state: State, path: str) -> None:
        if self.edited(state, path):
            raise BadInput(
                f"{WORK_FOLDER}/{path} was edited, and would be written anew",
                hint="save your edits elsewhere and delete the file first",
            )
