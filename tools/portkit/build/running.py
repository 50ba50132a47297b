"""Running the commands of a stage: everything they say to a log, their progress as events."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

import psutil

from portkit.build.setupscript import Step
from portkit.errors import BadInput
from portkit.model import Event, Events

_NINJA = re.compile(rb"\[(\d+)/(\d+)\] ")
_SAMPLE = 0.5  # seconds between two looks at the memory of the compiles


@dataclass
class Peaks:
    """The most memory each compile took, in bytes, by its source file.

    What is seen twice a second of a compile's own processes (nvcc's, ptxas, the host compiler).
    """

    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def largest(self) -> tuple[str, int] | None:
        return max(self.bytes.items(), key=lambda item: item[1], default=None)


def run(
    step: Step, environ: Mapping[str, str], log: IO[bytes], stage: str, events: Events
) -> tuple[int, Peaks]:
    """Run a step to its end; its exit code.  Raises `BadInput` when the program is not there."""
    log.write(f"# in {step.folder}\n# {shown(step.command)}\n".encode())
    log.flush()
    step.folder.mkdir(parents=True, exist_ok=True)
    # Windows looks for programs on the PATH of the caller, not on the one the child gets.
    program = shutil.which(step.command[0], path=environ.get("PATH")) or step.command[0]
    try:
        process = subprocess.Popen(
            (program, *step.command[1:]),
            cwd=step.folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise BadInput(
            f"{step.command[0]} does not run: {error.strerror or error}",
            hint="tools/doctor.py says what is missing",
        ) from None
    assert process.stdout is not None
    peaks = Peaks()
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, peaks, ended), daemon=True)
    watch.start()
    try:
        for line in process.stdout:
            log.write(line)
            log.flush()  # a person may follow it
            count = _NINJA.match(line)
            if count is not None:
                events(Event(stage, int(count[1]), int(count[2]), "steps"))
        code = process.wait()
    except BaseException:  # an interrupt: the compiles must not go on alone
        _end(process)
        raise
    finally:
        ended.set()
        watch.join()
        log.flush()
    return code, peaks


def shown(command: tuple[str, ...]) -> str:
    """A command as a person would type it."""
    return " ".join(f'"{word}"' if re.search(r"[\s;&|<>()]", word) else word for word in command)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours with all it started."""
    try:
        family = [
            *psutil.Process(process.pid).children(recursive=True),
            psutil.Process(process.pid),
        ]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.terminate()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def _watch(pid: int, peaks: Peaks, ended: threading.Event) -> None:
    while not ended.wait(_SAMPLE):
        try:
            children = psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            continue
        _sample(children, peaks)


def _sample(processes: list[psutil.Process], peaks: Peaks) -> None:
    """Add up what the processes of each compile hold, told by the source they name."""
    sums: dict[str, int] = {}
    sources: dict[int, str] = {}
    for one in processes:  # parents come before their children
        try:
            source = sources.get(one.ppid()) or _named_source(one.cmdline())
            if source:
                sources[one.pid] = source
                sums[source] = sums.get(source, 0) + one.memory_info().rss
        except psutil.Error:
            continue
    for source, held in sums.items():
        peaks.bytes[source] = max(held, peaks.bytes.get(source, 0))


def _named_source(words: list[str]) -> str:
    compiles = any(word in ("-c", "/c") for word in words)
    endings = (".cu", ".cpp", ".cc", ".c")
    return next((word for word in words if compiles and word.endswith(endings)), "")


def now() -> float:
    """Seconds of a clock that only goes forward."""
    return time.monotonic()
