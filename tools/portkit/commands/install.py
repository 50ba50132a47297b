"""`ci/install.py`: the wheel that a cell built, with what it requires."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from portkit.build import wheels
from portkit.ci import environment
from portkit.errors import BadInput, Exit
from portkit.face import console


def main(arguments: Sequence[str]) -> int:
    """Install the one wheel of a folder."""
    parser = console.parser(
        "Install the wheel in a folder with all that it requires; torch and what belongs to it "
        "come for the CUDA toolkit that the wheel says.",
        prog="install.py",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder with the wheel")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), metavar="PYTHON",
        help="of the environment to install into (default: the one that runs this)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    wheel = _only(given.folder)
    environment.install(given.python, wheel)
    print(f"{wheel.path.name} installed for {given.python}")
    return Exit.OK


def _only(folder: Path) -> wheels.Wheel:
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        named = ", ".join(file.name for file in found) or "none"
        raise BadInput(f"{folder} should have one wheel, but has {named}")
    return wheels.opened(found[0])
