"""Typed errors: each carries the sentence a person reads, a hint, and the exit code of the command.

The core raises them; only `console.run` turns them into text and an exit status.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of every command of `tools/` (documented in docs/exit-codes.md)."""

    OK = 0
    WAITING = 1  # conflicts or drops wait for a person; or lint found faults
    BAD_INPUT = 2  # a flag, a patch, a pin, a series or an archive is wrong
    UNAVAILABLE = 3  # upstream, git, the network or the disk could not serve
    BUSY = 4  # another refresh is running or under way
    INTEGRITY = 5  # a hash does not match, or a recorded state cannot be trusted
    FAILED = 6  # a step of a build failed; its log says why
    INTERRUPTED = 130


class PortError(Exception):
    """One clear sentence: what is wrong and where; `hint` says what to do."""

    exit_code = Exit.BAD_INPUT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(PortError):
    """Something a person gave is wrong; nothing was changed."""


class BadFile(BadInput):
    """A file that cannot be read as what it should be, with its place (`file:line: message`)."""

    def __init__(self, where: str, line: int | None, message: str, *, hint: str = "") -> None:
        place = f"{where}:{line}" if line is not None else where
        super().__init__(f"{place}: {message}", hint=hint)
        self.where = where
        self.line = line


class Unavailable(PortError):
    """Something outside (network, git, disk) did not serve."""

    exit_code = Exit.UNAVAILABLE


class Busy(PortError):
    """Another command holds the series, or a refresh waits to be continued."""

    exit_code = Exit.BUSY


class IntegrityError(PortError):
    """A content hash does not match what the pin, the index or the journal says."""

    exit_code = Exit.INTEGRITY


class BuildFailed(PortError):
    """A stage of a build failed; `failures` and `checks` say what of it is known, for a report."""

    exit_code = Exit.FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        failures: Sequence[Any] = (),
        checks: Sequence[Any] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)
        self.checks = tuple(checks)
