"""The one way the tools change the repository: all files of a step at once, and undo.

A step is committed by one rename, of a log that then says which files are `moving`.  Before it no
file of the repository has changed; after it whoever comes next puts the remaining ones in place.
So a kill at any moment leaves, after `recover`, either all the old files or all the new ones.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import filelock

from portkit.change import durable
from portkit.change.managed import (
    Executable,
    Fingerprint,
    bytes_of,
    digest,
    digest_of,
    fingerprint,
    is_work,
    keeps_modes,
    managed_files,
    refuse_changed,
    refuse_paths,
    remove_empty_folders,
    remove_empty_parents,
    sentence_of,
)
from portkit.change.steps import Entry, Log, Moving, Step, Steps
from portkit.errors import BadInput, Busy, IntegrityError, Unavailable
from portkit.upstream.tree import long_path

__all__ = ["Entry", "Fingerprint", "Journal", "fingerprint", "managed_files"]

STATE_FOLDER = ".port"

_HINT = "close what uses the file or free the disk"


class Journal:
    """The journal of the repository at `root`.

    Everything but `log` and `settle` needs the lock: `with journal.lock(): ...`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(long_path(root.absolute()))
        self._state = self.root / STATE_FOLDER
        self._steps = Steps(self._state / "journal")
        self._running = self._state / "running.json"
        self._lock = filelock.FileLock(self._state / "lock")

    # for every command

    @contextmanager
    def lock(self, command: str | None = None) -> Iterator[str]:
        """Hold the repository, and put right what a killed command left: gives what `recover` did.

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
        """Finish what a killed command had committed, sweep away what it had not.

        Returns a sentence when files were put in place, else "".  Raises `IntegrityError` when
        someone edited such a file in between (nothing is overwritten) and `Unavailable` when the
        disk does not serve; both times the next command tries again.
        """
        if not self._lock.is_locked:
            raise RuntimeError("the journal is used without its lock")
        log = self._steps.read()
        if log.moving is None:
            if self._steps.staged.exists():
                with suppress(OSError):
                    self._tidy(log)
            return ""
        try:
            self._stage(log.moving)
            self._put_in_place(log.moving)
        except OSError as error:
            raise Unavailable(
                f"cannot finish {log.moving.what}, which is half done: {_reason(error)}",
                hint=f"{_HINT}; the next command goes on",
            ) from error
        self._settle(replace(log, moving=None))
        return f"finished what a stopped command had begun: {log.moving.what}"

    def settle(self) -> str:
        """`recover` for a command that only reads: takes the lock only when files are moving."""
        if self._steps.read().moving is None:
            return ""
        with self.lock() as recovered:
            return recovered

    def log(self) -> list[Entry]:
        """The last steps, oldest first."""
        return self._steps.read().entries

    # changing files

    def switch(
        self, files: Mapping[str, bytes | None], *, message: str, expect: Fingerprint
    ) -> Entry | None:
        """Write all of `files` (path to new bytes, None removes) as one step, or none of them.

        `expect` is the `fingerprint` from before the caller read what `files` was made from, and
        the `digest` of each of `files` that is there and lies in a work tree.
        Returns None when the files are so already.  Raises `BadInput` when a file was changed
        since, or for a path that is not managed or that Windows cannot hold; `Unavailable` when
        the disk does not serve.  Each time the files are, or are put back, as they were.
        """
        self.recover()
        refuse_paths(self.root, files)
        old = {path: self._bytes_at(path) for path in sorted(files)}
        now = {path: digest(data) for path, data in old.items() if data is not None}
        refuse_changed(files, now | fingerprint(self.root), expect)
        sides = {path: (now.get(path), self._digest(path, files[path])) for path in old}
        changes = {path: pair for path, pair in sides.items() if pair[0] != pair[1]}
        if not changes:
            return None
        start, what = self._steps.read(), f'"{message}"'
        with self._old_or_new(start, what):
            versions = (data for path in changes for data in (old[path], files[path]))
            kept = self._steps.keep((data for data in versions if data is not None), changes)
            goal = start.adding(message, kept)
            self._move(goal, Moving(what, kept, forward=True))
        self._settle(goal)
        return goal.entry(goal.head)

    def undo(self) -> Entry:
        """Put back, byte for byte, the files that the last step in effect changed.

        Raises `BadInput` when there is none, or when one of its files was changed since, and
        `Unavailable` as `switch` does.
        """
        self.recover()
        log = self._steps.read()
        step = log.current
        if step is None:
            raise BadInput("there is nothing to undo")
        return self._flip(log, replace(log, head=step.parent), step, "undo")

    def redo(self) -> Entry:
        """Take back the last `undo`; raises as `undo` does."""
        self.recover()
        log = self._steps.read()
        step = log.following
        if step is None:
            raise BadInput("there is nothing to redo")
        return self._flip(log, replace(log, head=step.number), step, "redo")

    def _flip(self, start: Log, goal: Log, step: Step, verb: str) -> Entry:
        moving = Moving(f'{verb} of "{step.message}"', step.changes, forward=verb == "redo")
        sides = self._changes(moving)
        edited = [path for path in sides if self._digest_at(path) != sides[path][0]]
        if edited:
            raise BadInput(
                f"cannot {verb} step {step.number} ({step.message}): "
                f"{sentence_of(edited)} changed since",
                hint="save your edits elsewhere and put the files back as the step left them",
            )
        with self._old_or_new(start, moving.what):
            self._move(goal, moving)
        self._settle(goal)
        return goal.entry(step.number)

    # a move: stage, commit, put in place, settle

    def _move(self, goal: Log, moving: Moving) -> None:
        self._stage(moving)
        self._steps.write(replace(goal, moving=moving))
        self._put_in_place(moving)

    def _stage(self, moving: Moving) -> None:
        """Prepare all that needs space on the disk, so that what follows is renames alone."""
        self._refuse_edited(moving)
        self._steps.staged.mkdir(parents=True, exist_ok=True)
        for staged, path, wanted in self._remaining(moving):
            if wanted is not None:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                if digest_of(staged, modes=self._has_modes(path)) != wanted:
                    data = self._steps.version(wanted)
                    durable.write(staged, data, executable=isinstance(data, Executable))

    def _put_in_place(self, moving: Moving) -> None:
        self._refuse_edited(moving)
        for staged, path, wanted in self._remaining(moving):
            if wanted is None:
                durable.remove(self.root / path)
            else:
                durable.replace(staged, self.root / path)
        remove_empty_folders(self.root)
        for path, (_, wanted) in self._changes(moving).items():
            if wanted is None and is_work(path):
                remove_empty_parents(self.root, path)
        targets = [self.root / path for path in self._changes(moving)]
        for folder in {folder for target in targets for folder in target.parents}:
            if folder.is_relative_to(self.root) and folder.is_dir():
                durable.sync_folder(folder)

    def _settle(self, log: Log) -> None:
        # The files are in place: where this fails, the next command's `recover` does it.
        with suppress(OSError):
            self._steps.write(log)
            self._tidy(log)

    def _tidy(self, log: Log) -> None:
        remove_empty_folders(self.root)
        self._steps.tidy(log)

    @contextmanager
    def _old_or_new(self, start: Log, what: str) -> Iterator[None]:
        """Let a failing disk end in `Unavailable` with the old files.

        Anything else, such as Ctrl-C, ends with the old files before the commit and with the new
        ones after it.
        """
        try:
            yield
        except OSError as error:
            self._take_back(start, what, error)
        except BaseException:
            self.recover()
            raise

    def _take_back(self, start: Log, what: str, error: OSError) -> NoReturn:
        try:
            moving = self._steps.read().moving
            if moving is not None:
                back = replace(moving, what=f"taking back {what}", forward=not moving.forward)
                self._steps.write(replace(start, moving=back))
            self.recover()
        except (OSError, Unavailable):
            raise Unavailable(
                f"{what} is half done: {_reason(error)}",
                hint=f"{_HINT}; the next command goes on",
            ) from error
        raise Unavailable(
            f"{what} was not done: {_reason(error)}; all files are as they were",
            hint=f"{_HINT}, then run the command again",
        ) from error

    def _changes(self, moving: Moving) -> dict[str, tuple[str | None, str | None]]:
        return dict(self._steps.changes(moving.changes, forward=moving.forward))

    def _remaining(self, moving: Moving) -> Iterator[tuple[Path, str, str | None]]:
        """The files not yet as they shall be: where they are staged, their path, their digest."""
        for number, (path, (_, wanted)) in enumerate(self._changes(moving).items()):
            if self._digest_at(path) != wanted:
                yield self._steps.staged / str(number), path, wanted

    def _refuse_edited(self, moving: Moving) -> None:
        edited = [
            path
            for path, sides in self._changes(moving).items()
            if self._digest_at(path) not in (None, *sides)
        ]
        if edited:
            raise IntegrityError(
                f"{sentence_of(edited)} edited while {moving.what} was half done",
                hint="move your edits out of the repository, run the command again, then merge",
            )

    # versions of files

    def _has_modes(self, path: str) -> bool:
        """Whether the mode of a file counts: only in work trees, and where the disk keeps it."""
        return is_work(path) and keeps_modes(self._state)

    def _bytes_at(self, path: str) -> bytes | None:
        return bytes_of(self.root / path, modes=self._has_modes(path))

    def _digest_at(self, path: str) -> str | None:
        return digest_of(self.root / path, modes=self._has_modes(path))

    def _digest(self, path: str, data: bytes | None) -> str | None:
        if data is None:
            return None
        return digest(data if self._has_modes(path) else bytes(data))

    # who is at work

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


def _reason(error: OSError) -> str:
    name = error.filename2 or error.filename
    place = f" ({name})" if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{place}"
    return f"{(error.strerror or str(error)).lower()}{place}"
