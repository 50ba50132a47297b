"""`ci/port.py`: propose the port to a new upstream release as a pull request."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from portkit.ci.proposal import Proposal, proposal
from portkit.commands import refresh
from portkit.errors import Busy, Exit, Unavailable
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.upstream.git import git

REPORTS = "docs/ports"


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Propose the port of the repository at `root`."""
    parser = console.parser(
        "Carry the series to a new upstream release and propose it: a branch with the port, or "
        "with its report alone while conflicts wait, and the text of a pull request.",
        prog="port.py",
    )
    parser.add_argument(
        "--to", metavar="TAG", default="latest", help="the release (default: the newest)"
    )
    parser.add_argument(
        "--body", type=Path, metavar="FILE", help="write the text of the pull request to FILE"
    )
    parser.add_argument(
        "--open", action="store_true",
        help="commit the branch, push it to `origin` and open the pull request with `gh`",
    )  # fmt: skip
    console.add_upstream(parser)
    given = parser.parse_args(arguments)
    if given.open:
        _ready_to_open(root)
    tag = pinfile.read(root / pinfile.PIN_FILE).tag
    answer = _refresh(root, given.to, given.upstream)
    if "result" not in answer:
        print(answer["message"])
        return Exit.OK
    new_tag = str(answer["result"]["new_tag"])
    report = (Path(answer["report"]) / "report.md").read_text("utf-8")
    kept = f"{REPORTS}/{tag}-{new_tag}.md"
    found = proposal(answer["result"], report, kept)
    if found.draft:
        _abort(root)  # nothing is written before a person has settled what waits
    (root / kept).parent.mkdir(parents=True, exist_ok=True)
    (root / kept).write_text(report, encoding="utf-8", newline="\n")
    if given.body is not None:
        given.body.write_text(found.body, encoding="utf-8", newline="\n")
    print(found.title)
    if given.open:
        _open(root, found)
    return Exit.OK


def _refresh(root: Path, tag: str, upstream: Path | None) -> dict[str, Any]:
    """What `tools/refresh.py --json` prints."""
    source = [] if upstream is None else ["--upstream", str(upstream)]
    with redirect_stdout(io.StringIO()) as printed:
        refresh.main(["--to", tag, "--accept-drops", "--json", *source], root)
    answer: dict[str, Any] = json.loads(printed.getvalue())
    return answer


def _abort(root: Path) -> None:
    with redirect_stdout(io.StringIO()):
        refresh.main(["--abort"], root)


def _ready_to_open(root: Path) -> None:
    if shutil.which("gh") is None:
        raise Unavailable("gh is not installed", hint="leave out --open, or install GitHub's CLI")
    if git("status", "--porcelain", cwd=root):
        raise Busy("the work tree has changes", hint="commit or stash them first")


def _open(root: Path, found: Proposal) -> None:
    if git("ls-remote", "--heads", "origin", found.branch, cwd=root):
        print(f"{found.branch} is proposed already")
        return
    git("switch", "--quiet", "--create", found.branch, cwd=root)
    git("add", "--all", cwd=root)
    git("commit", "--quiet", "--message", found.title, cwd=root)
    git("push", "--quiet", "origin", found.branch, cwd=root)
    command = ["gh", "pr", "create", "--head", found.branch, "--title", found.title]
    command += ["--body-file", "-", *(["--draft"] if found.draft else [])]
    done = subprocess.run(command, cwd=root, input=found.body.encode(), check=False)
    if done.returncode:
        raise Unavailable(f"gh could not open the pull request ({done.returncode})")
