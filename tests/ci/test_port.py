"""Proposing a port: the text of the pull request, and the branch, with a real git remote."""

from __future__ import annotations

import json
import os
import stat
import sys
from functools import partial
from pathlib import Path

import pytest
from small import Repository, repository

from portkit.ci.proposal import LONGEST_BODY, proposal
from portkit.commands import port
from portkit.errors import Exit
from portkit.face import console
from portkit.upstream.git import git
from portkit.upstream.source import CACHE_VARIABLE

SETUP = "import sys\n\nsetup()\n"
CONF = "import os\n\n\ndef start():\n    return os.fork()\n"
GONE = "void gone(float* values) {\n  __builtin_hint(values);\n}\n"
V1_0 = {"setup.py": SETUP, "vllm/conf.py": CONF, "csrc/gone.cu": GONE}
OURS: dict[str, str | None] = {
    "setup.py": SETUP.replace("setup()", "setup(windows=sys.platform)"),
    "vllm/conf.py": CONF.replace("os.fork()", "spawn()"),
    "csrc/gone.cu": GONE.replace("__builtin_hint", "HINT"),
}
V1_1 = {"setup.py": "# shifted\n" + SETUP, "vllm/conf.py": CONF}
V1_2 = V1_1 | {"vllm/conf.py": CONF.replace("os.fork()", "fork_server(1)")}
GH = """\
#!{python}
import json, sys
open({log!r}, "a").write(json.dumps([sys.argv[1:], sys.stdin.read()]) + "\\n")
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a remote, in which everything is committed."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    made = repository(tmp_path, {"v1.0.0": V1_0, "v1.1.0": V1_1, "v1.2.0": V1_2}, OURS)
    (made.root / ".gitignore").write_text(".port/\nwork/\n")
    git("init", "-q", "--bare", str(tmp_path / "remote"))
    git("init", "-q", "-b", "main", cwd=made.root)
    git("remote", "add", "origin", str(tmp_path / "remote"), cwd=made.root)
    for name, value in (("user.name", "CI"), ("user.email", "ci@example.org")):
        git("config", name, value, cwd=made.root)
    git("add", "-A", cwd=made.root)
    git("commit", "-qm", "series", cwd=made.root)
    return made


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gh` first on PATH that writes down how it was called."""
    if sys.platform == "win32":
        pytest.skip("the stand-in for gh is a script with a shebang")
    log, folder = tmp_path / "gh.log", tmp_path / "bin"
    folder.mkdir()
    script = folder / "gh"
    script.write_text(GH.format(python=sys.executable, log=str(log)))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


def run(small: Repository, *arguments: str) -> int:
    main = partial(port.main, root=small.root)
    return console.run(main, ["--upstream", str(small.clone), *arguments])


def test_a_clean_port_is_pushed_and_proposed(small: Repository, calls: Path) -> None:
    assert run(small, "--to", "v1.1.0", "--open") == Exit.OK
    arguments, body = json.loads(calls.read_text())
    assert arguments[:4] == ["pr", "create", "--head", "port/v1.1.0"]
    assert "Port to vLLM v1.1.0" in arguments
    assert "--draft" not in arguments
    assert "- [ ] confirm the drop of `csrc/gone.cu`" in body
    pushed = git("show", "origin/port/v1.1.0:upstream_pin.txt", cwd=small.root)
    assert b"tag: v1.1.0" in pushed
    report = git("show", "origin/port/v1.1.0:docs/ports/v1.0.0-v1.1.0.md", cwd=small.root)
    assert report.startswith(b"# Port to vLLM v1.1.0")


def test_a_conflict_makes_a_draft_that_leaves_the_series_alone(
    small: Repository, calls: Path
) -> None:
    assert run(small, "--to", "v1.2.0", "--open") == Exit.OK
    arguments, body = json.loads(calls.read_text())
    assert arguments[-1] == "--draft"
    assert "Port to vLLM v1.2.0: 1 conflict waits" in arguments
    assert body.index("run `tools/refresh.py --to v1.2.0`") < body.index("- [ ] settle")
    assert "- [ ] settle `vllm/conf.py` line 5:" in body
    changed = git("diff", "--name-only", "main", "port/v1.2.0", cwd=small.root)
    assert changed.split() == [b"docs/ports/v1.0.0-v1.2.0.md"]
    assert small.refresh("--to", "v1.1.0", "--upstream", str(small.clone), "--dry-run") != Exit.BUSY


def test_a_port_is_proposed_once(
    small: Repository, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small, "--to", "v1.1.0", "--open") == Exit.OK
    git("switch", "-q", "main", cwd=small.root)
    assert run(small, "--to", "v1.1.0", "--open") == Exit.OK
    assert "port/v1.1.0 is proposed already" in capsys.readouterr().out
    assert len(calls.read_text().splitlines()) == 1


def test_nothing_new_proposes_nothing(
    small: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small, "--to", "v1.0.0") == Exit.OK
    assert "at v1.0.0 already" in capsys.readouterr().out
    assert not git("status", "--porcelain", cwd=small.root)


def test_changes_in_the_work_tree_are_not_proposed_along(small: Repository, calls: Path) -> None:
    (small.root / "notes.txt").write_text("mine")
    assert run(small, "--to", "v1.1.0", "--open") == Exit.BUSY
    assert not calls.exists()
    assert small.pin.tag == "v1.0.0"


def test_a_body_is_cut_where_a_pull_request_ends() -> None:
    result = {"new_tag": "v9", "patches": [], "stale": []}
    report = "# Port\n" + "".join(f"### {number}\n{'x' * 900}\n" for number in range(100))
    body = proposal(result, report, "docs/ports/a-v9.md").body
    assert len(body) <= LONGEST_BODY
    assert body.endswith("`docs/ports/a-v9.md` of this branch.)\n")
    assert body.count("x" * 900) == body.count("### ")
