"""`ci/release.py`: the hashes and notes of a release's wheels, and the release itself."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from portkit.ci import release
from portkit.errors import Exit, Unavailable
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.patches import series


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Release the wheels of the repository at `root`."""
    parser = console.parser(
        "Write SHA256SUMS beside the wheels of a folder and print the notes of their release.",
        prog="release.py",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder with the wheels")
    parser.add_argument("--tag", metavar="TAG", help="the tag of this repository to release")
    parser.add_argument(
        "--create", action="store_true", help="create the release of --tag with `gh`"
    )
    given = parser.parse_args(arguments)
    if given.create and given.tag is None:
        parser.error("--create needs --tag")
    pin = pinfile.read(root / pinfile.PIN_FILE)
    files = release.wheels(given.folder)
    hashes = given.folder / release.SUMS
    hashes.write_text(release.sums(files), encoding="ascii", newline="\n")
    text = release.notes(pin, len(series.load(root).upstream), files)
    if given.create:
        _create(root, given.tag, text, [*files, hashes])
    else:
        print(text, end="")
    return Exit.OK


def _create(root: Path, tag: str, text: str, files: Sequence[Path]) -> None:
    command = ["gh", "release", "create", tag, "--verify-tag", "--notes-file", "-"]
    try:
        done = subprocess.run(
            [*command, *(str(file.absolute()) for file in files)],
            cwd=root, input=text.encode(), check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unavailable("gh is not installed", hint="install GitHub's CLI") from None
    if done.returncode:
        raise Unavailable(f"gh could not create the release {tag} ({done.returncode})")
