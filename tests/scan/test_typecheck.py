"""The type checker as a detector: its platform, its grouping, its cache and its failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portkit.errors import IntegrityError, Unavailable
from portkit.scan import typecheck
from portkit.scan.detectors import Context
from portkit.scan.model import Finding
from portkit.scan.rules import load
from portkit.scan.tree import SourceTree

RULES = load(Path(__file__).resolve().parents[2])
FILES = {
    "vllm/a.py": (
        b"import os\nimport signal\nimport requests\n\n\n"
        b"def stop(pid):\n    os.killpg(pid, signal.SIGKILL)\n    os.killpg(pid, 9)\n\n\n"
        b"def cpus():\n    return os.sched_getaffinity(0)\n"
    ),
    "vllm/posix.py": b"import fcntl\n\nfcntl.flock(0, fcntl.LOCK_EX)\n",
    "vllm/guarded.py": b"import os\nimport sys\n\nif sys.platform != 'win32':\n    os.fork()\n",
    "vllm/ours.py": b"import sys\n\nif sys.platform == 'win32':\n    import torch.testing\n",
    "tests/test_a.py": b"import os\n\nos.fork()\n",
}


def found(cache: Path | None = None) -> list[Finding]:
    return list(typecheck.detect(Context(SourceTree.of_files(FILES), RULES, cache=cache)))


def test_only_what_windows_lacks_is_found_once_per_function(tmp_path: Path) -> None:
    assert [(one.path, one.line, one.detail) for one in found(tmp_path / "a folder")] == [
        ("vllm/a.py", 7, "os.killpg, signal.SIGKILL (3 places)"),
        ("vllm/a.py", 12, "os.sched_getaffinity"),
    ]


def test_the_second_run_does_not_run_the_checker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found(tmp_path)

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("the checker was run again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert found(tmp_path) == first


def test_a_checker_that_does_not_know_the_platform_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = subprocess.run

    def misspelt(command: list[str], **more: object) -> object:
        return real([word.replace("win32", "windows") for word in command], **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", misspelt)
    with pytest.raises(IntegrityError, match="ty did not take win32 as its platform"):
        found()


def test_a_checker_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run
    command = [sys.executable, "-c", "import sys; sys.exit('out of memory')"]
    monkeypatch.setattr(subprocess, "run", lambda _, **more: real(command, **more))
    with pytest.raises(Unavailable, match=r"failed \(1\): out of memory"):
        found()
