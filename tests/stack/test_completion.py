"""Shell completion, asked as each shell asks: in the shell itself where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from portkit.commands import series as series_command
from portkit.commands.series_completion import _function

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/series.py"


def defined(shell: str) -> str:
    """What a person's start-up file takes up."""
    command = [sys.executable, str(SCRIPT), "completion", shell]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


QUESTIONS = [
    ("series anno", ["annotate"]),
    ("series show csrc/core/ma", ["csrc/core/math.hpp"]),
    ("series show kernels/csrc/core/", ["kernels/csrc/core/math.hpp.patch"]),
    ("series header network_u", ["network_utils.py"]),
    ("series list --diag", ["--diagnostic"]),
    ("series import --existing re", ["refuse", "replace"]),
    ("series why csrc/cor", ["csrc/core/math.hpp"]),
]


def asked(shell: str, line: str, tmp_path: Path) -> list[str]:
    """The answer by the protocol that the shell's code speaks."""
    answer = tmp_path / "answer"
    env = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": shell,
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, str(SCRIPT)], env=env, check=True)
    return sorted(answer.read_text().split("\n"))


@pytest.mark.parametrize(("line", "wanted"), QUESTIONS)
def test_the_script_answers(line: str, wanted: list[str], tmp_path: Path) -> None:
    assert asked("powershell", line, tmp_path) == wanted


def test_every_command_is_offered(tmp_path: Path) -> None:
    offered = asked("powershell", "series ", tmp_path)
    parser = series_command.parser(ROOT)
    (commands,) = (action.choices for action in parser._actions if action.choices is not None)
    assert set(commands) <= set(offered)


@needs("bash")
@pytest.mark.parametrize(("line", "wanted"), QUESTIONS)
def test_bash_completes(line: str, wanted: list[str]) -> None:
    script = defined("bash") + (
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_TYPE=9\n"
        "_python_argcomplete series; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert sorted(line.strip() for line in done.stdout.decode().splitlines()) == wanted


@needs("fish")
@pytest.mark.parametrize(("line", "wanted"), QUESTIONS)
def test_fish_completes(line: str, wanted: list[str]) -> None:
    script = f"{defined('fish')}\ncomplete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, check=True)
    assert sorted(row.split("\t")[0] for row in done.stdout.decode().splitlines()) == wanted


@needs("zsh")
def test_zsh_takes_the_code_up_and_the_command_runs() -> None:
    script = (
        f"autoload -U compinit; compinit -u -D\n{defined('zsh')}\n"
        "print -r -- ${_comps[series]}; series list --group none\n"
    )
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode() == "_python_argcomplete\n"
    assert done.stderr.decode() == "no patch fits\n"


@needs("pwsh")
def test_powershell_takes_the_code_up_and_completes() -> None:
    script = defined("powershell") + (
        "\n(TabExpansion2 'series anno' 11).CompletionMatches.CompletionText"
    )
    done = subprocess.run(["pwsh", "-NoProfile", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode().split() == ["annotate"]


def test_paths_are_quoted_for_each_shell() -> None:
    python, script = "C:\\Program Files\\it's\\python.exe", "/a b/series.py"
    assert _function("powershell", "s", python, script) == (
        "function s { & 'C:\\Program Files\\it''s\\python.exe' '/a b/series.py' @args }"
    )
    assert _function("fish", "s", python, script) == (
        "function s; 'C:\\\\Program Files\\\\it\\'s\\\\python.exe' '/a b/series.py' $argv; end"
    )
    assert _function("bash", "s", "/p q/python", script) == (
        "s() { '/p q/python' '/a b/series.py' \"$@\"; }"
    )
