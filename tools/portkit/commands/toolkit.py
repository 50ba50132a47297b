"""`ci/toolkit.py`: install the CUDA toolkit of a CI cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from portkit import console
from portkit.ci import plan as planfile
from portkit.ci import toolkit
from portkit.errors import Exit


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Install what `ci/matrix.toml` of the repository at `root` names."""
    parser = console.parser(
        "Install a CUDA toolkit of ci/matrix.toml into a folder, without an installer, and print "
        "its CUDA_HOME.",
        prog="toolkit.py",
    )
    parser.add_argument("version", metavar="VERSION", help="a toolkit of the plan, such as 12.6")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="also append `CUDA_HOME=…` to FILE, as $GITHUB_ENV takes it",
    )  # fmt: skip
    console.add_json(parser)
    given = parser.parse_args(arguments)
    with console.progress() as events:
        home = toolkit.install(planfile.read(root), given.version, given.folder.absolute(), events)
    if given.output is not None:
        with given.output.open("a", encoding="utf-8", newline="\n") as file:
            file.write(f"CUDA_HOME={home}\n")
    if given.json:
        console.print_json("toolkit", {"version": given.version, "home": str(home)})
    else:
        print(home)
    return Exit.OK
