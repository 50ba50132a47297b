"""The one way the tools change the repository: all files of a step at once, and undo.

The state lies in `.port/journal/` (git-ignored): `objects/` holds every version of a file of the
last steps under its sha256, `log.json` names the steps and the one the files stand at, `staged/`
the files about to be put in place.  A step is committed by one rename of `log.json`, which then
says that files are `moving`.  Before it nothing of the repository has changed; after it whoever
comes next puts the remaining files in place.  So a kill at any moment leaves, after `recover`,
either the old files or the new ones.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import filelock

from portkit import durable
from portkit.diffparse import unsafe_path
from portkit.errors import BadInput, Busy, IntegrityError, Unavailable
from portkit.patchdoc import DOC_FILE
from portkit.patchfile import SERIES_FOLDER
from portkit.pin import PIN_FILE
from portkit.tree import check_windows_names, long_path

STATE_FOLDER = ".port"
KEPT_STEPS = 50

_VERSION = 1
_NAMED = 5  # files an error names before it counts the rest

Fingerprint = Mapping[str, str]
"""The sha256 of each managed file by its path; plain strings, so that JSON can hold it."""

_Changes = Mapping[str, tuple[str | None, str | None]]
"""For each path the sha256 it has before and after; None is no file."""


@dataclass(frozen=True)
class Entry:
    """A step as a person sees it; `time` is UTC in ISO 8601, `undone` whether it is in effect."""

    number: int
    time: str
    message: str
    undone: bool


@dataclass(frozen=True)
class _Step:
    """A step in the log: `parent` is the step it was made on, `changes` the id of its object."""

    number: int
    parent: int
    time: str
    message: str
    changes: str


@dataclass(frozen=True)
class _Moving:
    """A committed move of files that may be half done: to the later side of `changes` or back."""

    what: str
    changes: str
    forward: bool


@dataclass(frozen=True)
class _Log:
    """`log.json`: the steps, and `head`, the number of the last one in effect."""

    head: int = 0
    steps: tuple[_Step, ...] = ()
    moving: _Moving | None = None

    @property
    def current(self) -> _Step | None:
        return next((step for step in self.steps if step.number == self.head), None)

    @property
    def following(self) -> _Step | None:
        """The newest step made on the current one."""
        return next((step for step in reversed(self.steps) if step.parent == self.head), None)

    @property
    def entries(self) -> list[Entry]:
        """The steps, oldest first; those in effect are the head and what it was made on."""
        entries: list[Entry] = []
        effective = self.head
        for step in reversed(self.steps):
            undone = step.number != effective
            entries.insert(0, Entry(step.number, step.time, step.message, undone))
            if not undone:
                effective = step.parent
        return entries

    def entry(self, number: int) -> Entry:
        return next(entry for entry in self.entries if entry.number == number)

    def adding(self, message: str, changes: str) -> _Log:
        """The log with a new step in effect, and without the oldest if there are too many."""
        number = self.steps[-1].number + 1 if self.steps else 1
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        step = _Step(number, self.head, time, message, changes)
        return _Log(number, (*self.steps, step)[-KEPT_STEPS:])


def managed_files(root: Path) -> list[str]:
    """The files of the repository at `root` that only the journal changes, as sorted paths."""
    base = Path(long_path(root))
    found = [name for name in (PIN_FILE, DOC_FILE) if (base / name).is_file()]
    for folder, _, names in os.walk(base / SERIES_FOLDER):
        below = Path(folder).relative_to(base).as_posix()
        found += [f"{below}/{name}" for name in names]
    return sorted(found)


def fingerprint(root: Path) -> dict[str, str]:
    """What the managed files hold now: take it before you read them, give it to `switch`."""
    digests = ((path, _digest_of(Path(long_path(root)) / path)) for path in managed_files(root))
    return {path: digest for path, digest in digests if digest is not None}


class Journal:
    """The journal of the repository at `root`.

    Everything but `log` and `settle` needs the lock: `with journal.lock(): ...`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(long_path(root.absolute()))
        self._state = self.root / STATE_FOLDER
        self._folder = self._state / "journal"
        self._objects = self._folder / "objects"
        self._staged = self._folder / "staged"
        self._log = self._folder / "log.json"
        self._running = self._state / "running.json"
        self._lock = filelock.FileLock(self._state / "lock")

    # for every command

    @contextmanager
    def lock(self, command: str | None = None) -> Iterator[str]:
        """Hold the repository, put right what a killed command left, and give what `recover` did.

        `command` is what others are told is at work; by default this process's command line.
        Raises `Busy` at once when another process holds it.
        """
        try:
            self._state.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise self._busy() from None
        except OSError as error:
            raise Unavailable(
                f"cannot lock the repository with {STATE_FOLDER}/lock: {_reason(error)}"
            ) from error
        try:
            self._say_who(command)
            yield self.recover()
        finally:
            with suppress(OSError):
                self._running.unlink(missing_ok=True)
            self._lock.release()

    def recover(self) -> str:
        """Finish what a killed command had committed, sweep what it had not.

        Returns a sentence when files were put in place, else "".  Raises `IntegrityError` when
        someone edited such a file in between (nothing is overwritten) and `Unavailable` when the
        disk does not serve; both times the next command tries again.
        """
        self._check_locked()
        log = self._read_log()
        if log.moving is None:
            if self._staged.exists():
                self._tidy(log)
            return ""
        self._refuse_edited_while_moving(log.moving)
        try:
            self._stage(log.moving)
            self._put_in_place(log.moving)
        except OSError as error:
            raise Unavailable(
                f"cannot finish {log.moving.what}, which is half done: {_reason(error)}",
                hint="close what uses the file or free the disk; the next command goes on",
            ) from error
        self._settle(replace(log, moving=None))
        return f"finished what a stopped command had begun: {log.moving.what}"

    def settle(self) -> str:
        """`recover` for a command that only reads: takes the lock only when files are moving."""
        if self._read_log().moving is None:
            return ""
        with self.lock() as recovered:
            return recovered

    def log(self) -> list[Entry]:
        """The last steps, oldest first."""
        return self._read_log().entries

    # changing files

    def switch(
        self, files: Mapping[str, bytes | None], *, message: str, expect: Fingerprint
    ) -> Entry | None:
        """Write all of `files` (path to new bytes, None removes) as one step, or none of them.

        `expect` is the `fingerprint` from before the caller read what `files` was made from.
        Returns None when the files are so already.  Raises `BadInput` when a file was changed
        since, or for a path that is not ours or that Windows cannot hold; `Unavailable` when the
        disk does not serve.  Each time the files are left, or put back, as they were.
        """
        self.recover()
        now = fingerprint(self.root)
        self._refuse_paths(files, now)
        _refuse_changed(files, now, expect)
        wanted = {path: data and sha256(data).hexdigest() for path, data in _sorted(files)}
        changes = {
            path: (now.get(path), digest)
            for path, digest in wanted.items()
            if now.get(path) != digest
        }
        if not changes:
            return None
        start = self._read_log()
        with self._unchanged_on_failure(start, message):
            objects = [self._bytes_of(path) for path, (old, _) in changes.items() if old]
            objects += [data for path in changes if (data := files[path]) is not None]
            name = self._keep(objects, changes)
            goal = start.adding(message, name)
            self._move(goal, _Moving(message, name, forward=True))
        self._settle(goal)
        return goal.entry(goal.head)

    def undo(self) -> Entry:
        """Put back, byte for byte, the files that the last step in effect changed.

        Raises `BadInput` when there is none, or when one of its files was edited since.
        """
        self.recover()
        log = self._read_log()
        step = log.current
        if step is None:
            raise BadInput("there is nothing to undo")
        return self._flip(log, replace(log, head=step.parent), step, forward=False)

    def redo(self) -> Entry:
        """Take back the last `undo`; raises as `undo` does."""
        self.recover()
        log = self._read_log()
        step = log.following
        if step is None:
            raise BadInput("there is nothing to redo")
        return self._flip(log, replace(log, head=step.number), step, forward=True)

    def _flip(self, start: _Log, goal: _Log, step: _Step, *, forward: bool) -> Entry:
        verb = "redo" if forward else "undo"
        moving = _Moving(f"{verb} of {step.message}", step.changes, forward)
        edited = [
            path
            for path, (here, _) in self._changes(moving).items()
            if _digest_of(self.root / path) != here
        ]
        if edited:
            raise BadInput(
                f"cannot {verb} step {step.number} ({step.message}): "
                f"{_names(edited)} changed since",
                hint="save your edits elsewhere and put the files back as the step left them",
            )
        with self._unchanged_on_failure(start, moving.what):
            self._move(goal, moving)
        self._settle(goal)
        return goal.entry(step.number)

    # the move: stage, commit, put in place, settle

    def _move(self, goal: _Log, moving: _Moving) -> None:
        self._stage(moving)
        self._write_log(replace(goal, moving=moving))
        self._put_in_place(moving)

    def _stage(self, moving: _Moving) -> None:
        """Prepare all that needs space on the disk, so that what follows is renames alone."""
        self._staged.mkdir(parents=True, exist_ok=True)
        for number, path, digest in self._remaining(moving):
            if digest is not None:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                staged = self._staged / str(number)
                if _digest_of(staged) != digest:
                    durable.write(staged, self._object(digest))

    def _put_in_place(self, moving: _Moving) -> None:
        for number, path, digest in self._remaining(moving):
            if digest is None:
                durable.remove(self.root / path)
            else:
                durable.replace(self._staged / str(number), self.root / path)
        self._remove_empty_folders()
        paths = (self.root / path for path in self._changes(moving))
        for folder in {folder for path in paths for folder in path.parents}:
            if folder.is_relative_to(self.root) and folder.is_dir():
                durable.sync_folder(folder)

    def _settle(self, log: _Log) -> None:
        # The files are in place; if this fails, the next command's `recover` does it.
        with suppress(OSError):
            self._write_log(log)
            self._tidy(log)

    @contextmanager
    def _unchanged_on_failure(self, start: _Log, what: str) -> Iterator[None]:
        """Let a failing disk end in `Unavailable` with the files as they were.

        Anything else, such as Ctrl-C, ends before the commit with the old files and after it
        with the new ones.
        """
        try:
            yield
        except OSError as error:
            self._take_back(start, what, error)
        except BaseException:
            self.recover()
            raise

    def _take_back(self, start: _Log, what: str, error: OSError) -> NoReturn:
        try:
            moving = self._read_log().moving
            if moving is not None:
                back = replace(moving, what=f"taking back {what}", forward=not moving.forward)
                self._write_log(replace(start, moving=back))
            self.recover()
        except (OSError, Unavailable):
            raise Unavailable(
                f"{what} is half done: {_reason(error)}",
                hint="close what uses the file or free the disk; the next command goes on",
            ) from error
        raise Unavailable(
            f"{what} was not done: {_reason(error)}; all files are as they were",
            hint="close what uses the file or free the disk, then run the command again",
        ) from error

    def _remaining(self, moving: _Moving) -> Iterator[tuple[int, str, str | None]]:
        """The files that are not yet as they should be: number, path, wanted sha256."""
        for number, (path, (_, wanted)) in enumerate(self._changes(moving).items()):
            if _digest_of(self.root / path) != wanted:
                yield number, path, wanted

    def _refuse_edited_while_moving(self, moving: _Moving) -> None:
        edited = [
            path
            for path, sides in self._changes(moving).items()
            if (found := _digest_of(self.root / path)) is not None and found not in sides
        ]
        if edited:
            raise IntegrityError(
                f"{_names(edited)} edited while {moving.what} was half done",
                hint="move your edits out of the repository, run the command again, then merge",
            )

    # the state folder

    def _keep(self, objects: Iterable[bytes], changes: _Changes) -> str:
        """Store versions of files and the changes between them; the id of the changes."""
        self._staged.mkdir(parents=True, exist_ok=True)  # the mark of an unfinished switch
        self._objects.mkdir(exist_ok=True)
        record = json.dumps(changes).encode()
        for data in (*objects, record):
            file = self._objects / sha256(data).hexdigest()
            if _digest_of(file) != file.name:
                durable.write(file, data)
        for folder in (self._objects, self._folder, self._state, self.root):
            durable.sync_folder(folder)
        return sha256(record).hexdigest()

    def _object(self, digest: str) -> bytes:
        file = self._objects / digest
        data = file.read_bytes() if file.is_file() else b""
        if sha256(data).hexdigest() != digest:
            raise IntegrityError(
                f"the journal has lost a file: {STATE_FOLDER}/journal/objects/{digest}",
                hint=f"check `git status`, then delete {STATE_FOLDER}/journal to forget all steps",
            )
        return data

    def _bytes_of(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def _changes(self, moving: _Moving) -> _Changes:
        """Path to what it holds now and what it shall hold, in the direction of the move."""
        sides: dict[str, list[str | None]] = json.loads(self._object(moving.changes))
        if moving.forward:
            return {path: (old, new) for path, (old, new) in sides.items()}
        return {path: (new, old) for path, (old, new) in sides.items()}

    def _read_log(self) -> _Log:
        try:
            record = json.loads(self._log.read_bytes())
            if record.pop("version") != _VERSION:
                raise ValueError
            moving = record["moving"] and _Moving(**record["moving"])
            return _Log(record["head"], tuple(_Step(**step) for step in record["steps"]), moving)
        except FileNotFoundError:
            return _Log()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"{STATE_FOLDER}/journal/log.json is not a journal of this version",
                hint=f"check `git status`, then delete {STATE_FOLDER}/journal to forget all steps",
            ) from None

    def _write_log(self, log: _Log) -> None:
        self._staged.mkdir(parents=True, exist_ok=True)
        fresh = self._staged / "log.json"
        durable.write(fresh, json.dumps({"version": _VERSION, **asdict(log)}, indent=1).encode())
        durable.replace(fresh, self._log)
        durable.sync_folder(self._folder)

    def _tidy(self, log: _Log) -> None:
        """Remove what no step needs: objects, then staged files, then empty folders."""
        needed: set[str | None] = set()
        for step in log.steps:
            changes = self._changes(_Moving("", step.changes, forward=True))
            needed |= {step.changes, *(side for sides in changes.values() for side in sides)}
        if self._objects.is_dir():
            for file in self._objects.iterdir():
                if file.name not in needed:
                    file.unlink(missing_ok=True)
        self._remove_empty_folders()
        shutil.rmtree(self._staged, ignore_errors=True)

    def _remove_empty_folders(self) -> None:
        for top in {self.root / SERIES_FOLDER, (self.root / DOC_FILE).parent}:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # it is not empty
                    Path(folder).rmdir()

    # refusals

    def _check_locked(self) -> None:
        if not self._lock.is_locked:
            raise RuntimeError("the journal is used without its lock")

    def _say_who(self, command: str | None) -> None:
        if command is None:
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        who = {"command": command, "since": since, "process": os.getpid()}
        with suppress(OSError):
            self._running.write_bytes(json.dumps(who).encode())

    def _busy(self) -> Busy:
        try:
            who = json.loads(self._running.read_bytes())
            sentence = "`{command}` is at work here since {since} (process {process})".format(**who)
        except (OSError, ValueError, KeyError, TypeError):
            sentence = "another command is at work here"
        return Busy(sentence, hint="wait until it is done, or stop it")

    def _refuse_paths(self, files: Mapping[str, bytes | None], now: Fingerprint) -> None:
        """Refuse what is not ours to write, and what not every file system can hold."""
        written = [path for path, data in files.items() if data is not None]
        check_windows_names(written)
        folded = {path.casefold(): path for path in now}
        for path in files:
            if path not in (PIN_FILE, DOC_FILE) and not path.startswith(f"{SERIES_FOLDER}/"):
                raise BadInput(f"{path} is not a file of the series")
            if reason := unsafe_path(path):
                raise BadInput(f"{path!r} {reason}")
        for path in written:
            known = folded.get(path.casefold(), path)
            if known != path:
                raise BadInput(
                    f"Windows cannot hold both {known} and {path}: they differ only by case"
                )
            parts = path.split("/")
            above = ["/".join(parts[:end]) for end in range(1, len(parts))]
            for place in above:
                if place in now or place in written:
                    raise BadInput(f"{place} cannot be both a file and the folder of {path}")
            for place in (*above, path):
                if (self.root / place).is_symlink():
                    raise BadInput(f"{place} is a link", hint="the tools write plain files only")
            if (self.root / path).is_dir():
                raise BadInput(f"{path} is a folder", hint="move it away")


def _refuse_changed(
    files: Mapping[str, bytes | None], now: Fingerprint, expect: Fingerprint
) -> None:
    """Refuse to go on from files that are not as they were read.

    A new file that nobody overwrites (an editor's backup, say) is no reason.
    """
    changed = {path for path in expect if now.get(path) != expect[path]}
    changed |= {path for path in files if path in now and path not in expect}
    if changed:
        raise BadInput(
            f"{_names(changed)} changed while this was worked out; nothing was written",
            hint="run the command again on the files as they are now",
        )


def _digest_of(file: Path) -> str | None:
    try:
        return sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _sorted(files: Mapping[str, bytes | None]) -> list[tuple[str, bytes | None]]:
    return sorted(files.items())


def _names(paths: Iterable[str]) -> str:
    """Some files as the subject of a sentence in the past: `a and b were`."""
    names = sorted(paths)
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    if len(names) == 1:
        return f"{names[0]} was"
    return f"{', '.join(names[:-1])} and {names[-1]} were"


def _reason(error: OSError) -> str:
    place = f" ({error.filename2 or error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{place}"
    return f"{(error.strerror or str(error)).lower()}{place}"
