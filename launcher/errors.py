"""What stops the launcher, in words; the exit codes are those of docs/launcher.md."""

from __future__ import annotations


class LauncherError(Exception):
    """Stops the launcher with one sentence, a hint and an exit code."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class BadInput(LauncherError):
    """An option or a model is wrong; nothing was started."""


class MachineRefuses(LauncherError):
    """The port is taken, or the GPU has too little memory; nothing is wrong with the input."""

    exit_code = 3


class EngineFailed(LauncherError):
    """The engine did not start, or died."""

    exit_code = 1
