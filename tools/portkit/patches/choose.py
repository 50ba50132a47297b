"""The patch or the upstream file a person means."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from portkit.errors import BadInput
from portkit.model import Patch
from portkit.patches.patchfile import SERIES_FOLDER

WORK_FOLDER = "work/tree"


def choose(patches: Sequence[Patch], text: str) -> Patch:
    """The patch named `text`: by its name, its file, either's end, or its path on disk.

    Raises `BadInput` for no such patch, or for an end that several have.
    """
    wanted = text.replace("\\", "/").removeprefix("./").removeprefix(f"{SERIES_FOLDER}/")
    for patch in patches:
        if wanted in {patch.name, patch.name.removesuffix(".patch"), patch.path}:
            return patch
    end = "/" + wanted.removesuffix(".patch").lstrip("/")
    found = [p for p in patches if p.name.removesuffix(".patch").endswith(end)]
    if len(found) == 1:
        return found[0]
    if found:
        several = " or ".join(patch.name for patch in found)
        raise BadInput(f"{text} may be {several}", hint="give more of the name")
    names = {patch.path.rpartition("/")[2]: patch.name for patch in patches}
    last = wanted.removesuffix(".patch").rpartition("/")[2]
    close = [names[name] for name in get_close_matches(last, names, 2)]
    hint = f"did you mean {' or '.join(close)}?" if close else "tools/series.py list shows them"
    raise BadInput(f"there is no patch {text}", hint=hint)


def upstream_path(root: Path, text: str, work: Path | None = None) -> str:
    """The upstream path of a file that a person names by it, or by its place in the work tree."""
    folder = work or root / WORK_FOLDER
    given = Path(text)
    for place in (given, Path.cwd() / given):
        if place.is_absolute() and place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    return text.replace("\\", "/").removeprefix("./").removeprefix(f"{WORK_FOLDER}/")
