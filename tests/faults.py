"""Faults at every step that changes the disk: a kill, a full disk, Ctrl-C.

Steps are seen by an audit hook of the interpreter, so the code under test cannot miss one or
know of it: files opened for writing, renames, removals, new and removed folders.  `os.fsync`
counts too, and there half of what was written is lost first.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR
_CHANGES = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}
SPACE = frozenset({"open", "mkdir", "sync"})  # the steps that need space on the disk

DIED = 9

Strike = Callable[[str, str], None]


class Died(BaseException):
    """Raised by a strike to end the process then and there, without any clean-up."""


class Faults:
    """Counts steps while armed, and strikes at the given one and every later one."""

    def __init__(self) -> None:
        self._strike: Strike | None = None
        self._at = 0
        self._kinds: frozenset[str] | None = None
        self.seen: list[tuple[str, str]] = []  # kind of step, path
        self.fast = False  # leave out the real fsync
        self._fsync = os.fsync
        sys.addaudithook(self._hook)
        os.fsync = self._sync  # type: ignore[assignment]

    def arm(self, at: int, strike: Strike, kinds: frozenset[str] | None = None) -> None:
        """Call `strike(kind, path)` at step `at` and after it; it raises, exits or goes on."""
        self.seen = []
        self._at, self._strike, self._kinds = at, strike, kinds

    def disarm(self) -> None:
        self._strike = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._strike is None:
            return
        if event in _CHANGES:
            self._step(_CHANGES[event], args[1] if event == "os.rename" else args[0])
        elif event == "open" and isinstance(args[2], int) and args[2] & _WRITING:
            self._step("open", args[0])

    def _sync(self, descriptor: int) -> None:
        if self._strike is not None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._step("sync", descriptor, tear=descriptor)
            else:
                self._step("sync folder", descriptor)
        if not self.fast:
            self._fsync(descriptor)

    def _step(self, kind: str, where: object, tear: int | None = None) -> None:
        path = str(where).removeprefix("\\\\?\\")
        if self._strike is None or (self._kinds is not None and kind not in self._kinds):
            return
        self.seen.append((kind, path))
        if len(self.seen) > self._at:
            try:
                self._strike(kind, path)
            except BaseException as error:
                if tear is not None:
                    os.ftruncate(tear, os.fstat(tear).st_size // 2)
                if isinstance(error, Died):
                    os._exit(DIED)
                raise


faults = Faults()
