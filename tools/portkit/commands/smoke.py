"""`ci/smoke.py`: does the launcher serve a model here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from portkit.ci import smoke
from portkit.errors import Exit
from portkit.face import console


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Run the smoke test of the launcher of the repository at `root`."""
    parser = console.parser(
        "Start the launcher with a tiny model made on the spot, ask it for a chat completion "
        "streamed and not, and stop it. Ends with 1 and a sentence where one of these fails.",
        prog="smoke.py",
        usage="smoke.py [--python PYTHON] [--start-timeout SECONDS] [--log FILE] [--json] "
        "[-- OPTIONS OF THE LAUNCHER]",
    )
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), metavar="PYTHON",
        help="of the environment with vLLM (default: the one that runs this)",
    )  # fmt: skip
    parser.add_argument(
        "--start-timeout", type=float, default=600, metavar="SECONDS",
        help="how long the start may take (default: 600)",
    )  # fmt: skip
    parser.add_argument(
        "--log", type=Path, default=root / "work/smoke.log", metavar="FILE",
        help="what the launcher prints (default: work/smoke.log)",
    )  # fmt: skip
    parser.add_argument("options", nargs="*", metavar="OPTION", help="of the launcher, after --")
    console.add_json(parser)
    given = parser.parse_args(arguments)
    # Not resolved: a link to the base Python is how an environment has its own.
    python = given.python.absolute() if given.python.parent.name else given.python
    with console.progress(quiet=given.json) as events:
        found = smoke.run(
            root, python, given.log.absolute(),
            start_s=given.start_timeout, options=given.options, events=events,
        )  # fmt: skip
    if given.json:
        console.print_json("smoke", asdict(found))
    else:
        print(
            f"ready after {found.start_s:.1f} s; {smoke.TOKENS} tokens streamed as in one answer; "
            f"stopped with 0; {found.all_s:.1f} s in all"
        )
    return Exit.OK
