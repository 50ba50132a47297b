"""A refresh that waits for a person: its state on disk, and the files it left to edit.

The state names what was asked and answered, never a result: a refresh that goes on decides
everything anew, from the same inputs, so a state of an older or killed run cannot mislead it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from portkit.change import durable
from portkit.change.journal import STATE_FOLDER
from portkit.change.managed import bytes_of, digest_of
from portkit.errors import BadInput, IntegrityError
from portkit.upstream.tree import long_path

WORK_FOLDER = "work/refresh"
_STATE = f"{STATE_FOLDER}/refresh.json"


class State(BaseModel):
    """What was asked of a waiting refresh and what a person has answered so far.

    `fingerprint` is that of the series at the start; `written` maps the path of each file left to
    edit to the sha256 of each version that was written of it, the current one last.  `waiting`
    are the patches with a conflict, `homeless` those of them without a file, `drops` the patches
    that lose a piece: what --status says, and what an answer can be about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    started: str
    from_tag: str
    tags: tuple[str, ...]
    upstream: str | None
    fingerprint: dict[str, str]
    drops_accepted: bool = False
    skipped: tuple[str, ...] = ()
    moved: dict[str, str] = {}
    written: dict[str, tuple[str, ...]] = {}
    waiting: tuple[str, ...] = ()
    homeless: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()

    @property
    def to_tag(self) -> str:
        return self.tags[-1]

    @property
    def message(self) -> str:
        """What the journal calls the step that ends this refresh."""
        return f"carry the series from {self.from_tag} to {self.to_tag}"


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
        """Leave `files` to edit and record them; those a person has `settled` stay as they are.

        Raises `BadInput`, and changes nothing, where a file would be written over edits.  Killed
        in between, the state knows the files that are not there yet: the next call writes them.
        """
        written: dict[str, tuple[str, ...]] = {}
        pending: dict[str, bytes | None] = dict.fromkeys(state.written.keys() - files.keys())
        for path, data in files.items():
            known = state.written.get(path, ())
            digest = sha256(data).hexdigest()
            written[path] = (*(d for d in known if d != digest), digest)
            begun = known[-1:] == (digest,) and self.edited(state, path)
            if path not in settled and not begun and digest_of(self.work / path) != digest:
                pending[path] = data
        for path in pending:
            if self.edited(state, path):
                raise BadInput(
                    f"{WORK_FOLDER}/{path} was edited, and would be written anew",
                    hint="save your edits elsewhere and delete the file first",
                )
        state = state.model_copy(update={"written": written})
        _write(self._state, state.model_dump_json(indent=2).encode() + b"\n")
        for path, new in pending.items():
            if new is None:
                durable.remove(self.work / path)
            else:
                _write(self.work / path, new)
        return state

    def read(self, path: str) -> bytes | None:
        """The file a person was asked to edit, as it is now; None when it is not there."""
        return bytes_of(self.work / path)

    def edited(self, state: State, path: str) -> bool:
        """Whether the file is there and none of the versions written for the person."""
        digest = digest_of(self.work / path)
        return digest is not None and digest not in state.written.get(path, ())

    def end(self) -> None:
        """Forget the refresh and its files."""
        durable.remove(self._state)
        shutil.rmtree(self.work, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.new")
    try:
        durable.write(staged, data)
        durable.replace(staged, path)
    except OSError:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise
