"""The face every command has: exit codes, one sentence per error, quiet in pipes, any console."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from portkit.errors import BadFile, Busy, Exit, IntegrityError, PortError, Unavailable
from portkit.face import console
from portkit.model import Event

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadFile("series", 3, "no", hint="do"), 2, "error: series:3: no\nhint: do\n"),
        (Unavailable("no network"), 3, "error: no network\n"),
        (Busy("another"), 4, "error: another\n"),
        (IntegrityError("hash"), 5, "error: hash\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "f"), 3, "error: the disk is full: f\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "f"),
            3,
            "error: permission denied: f\n",
        ),
        (BrokenPipeError(), 3, ""),
    ],
)
def test_errors_become_a_sentence_and_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "_forget_output", lambda: None)

    def main(_: Sequence[str]) -> int:
        raise error

    assert console.run(main, []) == code
    captured = capsys.readouterr()
    assert captured.err == said
    assert captured.out == ""


def test_the_exit_code_of_a_command_is_given_through() -> None:
    assert console.run(len, ["a", "b"]) == 2


def test_a_programming_error_keeps_its_traceback() -> None:
    def main(_: Sequence[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.run(main, [])


def python(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, check=False)


def test_a_cp1252_console_shows_what_it_can() -> None:
    done = python(
        "import sys\n"
        "from portkit.face import console\n"
        "from portkit.errors import BadInput\n"
        "def main(_):\n"
        "    print('caf\\xe9 \\u4e2d \\udcff')\n"
        "    raise BadInput('\\u2192 \\u4e2d', hint='\\u2713')\n"
        "sys.exit(console.run(main))\n",
        PYTHONIOENCODING="cp1252",
    )
    assert done.stdout.rstrip() == b"caf\xe9 ? ?"
    assert done.stderr.split() == [b"error:", b"?", b"?", b"hint:", b"?"]
    assert done.returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_reader_that_leaves_early_is_not_an_error() -> None:
    code = (
        "import sys; from portkit.face import console; "
        "sys.exit(console.run(lambda _: [print('x' * 99) for _ in range(10**5)] and 0))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    shell = f'"{sys.executable}" -c "{code}" | head -n 1'
    done = subprocess.run(shell, shell=True, env=env, capture_output=True, check=False)
    assert done.stderr == b""
    assert done.stdout == b"x" * 99 + b"\n"


def test_progress_is_silent_in_a_pipe() -> None:
    done = python(
        "from portkit.face import console; from portkit.model import Event\n"
        "with console.progress() as events: events(Event('fetching', 1, 2, 'files'))\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_progress_is_drawn_on_a_terminal(encoding: str) -> None:
    done = python(
        "from portkit.face import console; from portkit.model import Event\n"
        "with console.progress() as events:\n"
        "    events(Event('fetching', 5_000_000, 19_700_000, 'bytes'))\n"
        "    events(Event('checking'))\n"
        "    events(Event('carrying', 3, 26, 'patches'))\n",
        FORCE_COLOR="1",
        TERM="xterm",
        COLUMNS="120",
        PYTHONIOENCODING=encoding,
    )
    assert done.returncode == 0, done.stderr
    assert b"carrying" in done.stderr and b"3/26 patches" in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Event("x"), ""),
        (Event("x", 3, 26, "patches"), "3/26 patches"),
        (Event("x", 3, None, "files"), "3 files"),
        (Event("x", 5_000_000, 19_700_000, "bytes"), "5.0/19.7 MB"),
        (Event("x", 5_000_000, None, "bytes"), "5.0 MB"),
    ],
)
def test_amounts(event: Event, shown: str) -> None:
    assert console._amount(event) == shown


def test_json_is_ascii_and_names_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json("x", {"path": "caf\xe9\udcff"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"schema": 1, "command": "x", "path": "caf\xe9\udcff"}


@pytest.mark.parametrize("script", ["series.py", "apply.py"])
def test_scripts_start_from_any_folder(script: str, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), "--help"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"exit codes" in done.stdout
    wrong = subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), "--no-such-flag"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        check=False,
    )
    assert wrong.returncode == Exit.BAD_INPUT


def test_every_error_has_a_documented_exit_code() -> None:
    for kind in PortError.__subclasses__():
        assert kind.exit_code in Exit
