"""`patch_series/`: the ordered patches, in quilt's format, so that quilt can read them too.

A patch is named after the upstream file it changes: `kernels/csrc/core/math.hpp.patch` changes
`csrc/core/math.hpp`.  Patches below `deps/<name>/` are for the source of that dependency.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from portkit.errors import BadFile
from portkit.model import Patch, split_lines
from portkit.patches.diffparse import unsafe_path
from portkit.patches.patchfile import SERIES_FOLDER, format_patch, parse_patch
from portkit.upstream.git import path_from_bytes, path_to_bytes

SERIES_FILE = f"{SERIES_FOLDER}/series"
GROUPS = ("build", "kernels", "runtime")
_NOT_PATCHES = ("resolutions/", "rules/")

_LINE = re.compile(r"(?P<name>\S+)(?P<options>(?:\s+-\S+)*)(?P<comment>\s*|\s+#.*)")
_BUILD_FILES = ("CMakeLists.txt", "setup.py", "pyproject.toml")
_BUILD_FOLDERS = ("cmake/", "requirements/")


@dataclass(frozen=True)
class Entry:
    """A patch in `series`: the comment and blank lines above it, and the text behind its name."""

    patch: Patch
    above: tuple[str, ...] = ()
    behind: str = ""


@dataclass(frozen=True)
class Series:
    """The patches in order, with the comments of `series`; `end` is the lines after the last."""

    entries: tuple[Entry, ...] = ()
    end: tuple[str, ...] = ()

    @property
    def patches(self) -> tuple[Patch, ...]:
        return tuple(entry.patch for entry in self.entries)

    @property
    def upstream(self) -> tuple[Patch, ...]:
        """The patches of the pinned upstream itself, without those of its dependencies."""
        return tuple(patch for patch in self.patches if patch.group != "deps")

    def find(self, name: str) -> Patch | None:
        """The patch called `name`, or None."""
        return next((patch for patch in self.patches if patch.name == name), None)

    def with_patches(self, patches: Sequence[Patch], renamed: Mapping[str, str] = {}) -> Series:
        """The series of `patches`, in their order; comments stay above the patch they are above.

        `renamed` gives the new name of a patch by its old one.  The comments above a patch that
        is no longer there go to the next one.
        """
        kept = {patch.name for patch in patches}
        entries: dict[str, Entry] = {}
        carried: tuple[str, ...] = ()
        for entry in self.entries:
            name = renamed.get(entry.patch.name, entry.patch.name)
            if name in kept:
                entries[name] = replace(entry, above=carried + entry.above)
                carried = ()
            else:
                carried += entry.above
        ordered = (replace(entries.get(patch.name, Entry(patch)), patch=patch) for patch in patches)
        return Series(tuple(ordered), carried + self.end)


def group_of(path: str) -> str:
    """The group of an upstream file: `build`, `kernels` or `runtime`."""
    if path in _BUILD_FILES or path.startswith(_BUILD_FOLDERS):
        return "build"
    return "kernels" if path.startswith("csrc/") else "runtime"


def name_for(path: str, group: str | None = None) -> str:
    """The name of the patch that changes the upstream file `path`."""
    return f"{group or group_of(path)}/{path}.patch"


def load(root: Path) -> Series:
    """The series of the repository at `root`.

    Raises `BadFile` with file and line for a malformed `series`, a patch that is missing, unused,
    doubled or misnamed, and for malformed patches.
    """
    file = root / SERIES_FILE
    if not file.is_file():
        raise BadFile(SERIES_FILE, None, "is missing", hint="run from a clone of the repository")
    entries: list[Entry] = []
    above: list[str] = []
    users: dict[str, str] = {}  # names and the upstream files they change, case folded
    for number, text in enumerate(order_lines(file.read_bytes()), 1):
        if not text.strip() or text.lstrip().startswith("#"):
            above.append(text)
            continue
        name, behind = name_in(number, text)
        patch = _patch(root, number, name)
        for used in claims(patch):
            if used in users:
                what = (
                    "is listed twice"
                    if users[used] == name
                    else f"and {users[used]} change the same file"
                )
                raise BadFile(SERIES_FILE, number, f"{name} {what}", hint="one patch per file")
            users[used] = name
        entries.append(Entry(patch, tuple(above), behind))
        above = []
    _refuse_unused(root, {entry.patch.name for entry in entries})
    return Series(tuple(entries), tuple(above))


def render(series: Series) -> dict[str, bytes]:
    """Every file of the series, by its path below the repository's root."""
    files = {f"{SERIES_FOLDER}/{patch.name}": format_patch(patch) for patch in series.patches}
    return {**files, SERIES_FILE: render_order(series)}


def render_order(series: Series) -> bytes:
    """The `series` file."""
    lines: list[str] = []
    for entry in series.entries:
        lines += [*entry.above, entry.patch.name + entry.behind]
    return path_to_bytes("".join(f"{line}\n" for line in (*lines, *series.end)))


def changes(root: Path, series: Series) -> dict[str, bytes | None]:
    """What `Journal.switch` must write so that the repository at `root` holds `series`.

    None stands for the patches that the series no longer has.
    """
    there = (f"{SERIES_FOLDER}/{name}" for name in patch_files(root))
    return {**dict.fromkeys(there), **render(series)}


def order_lines(data: bytes) -> list[str]:
    """The lines of a `series` file."""
    return [path_from_bytes(line).rstrip("\r\n") for line in split_lines(data)]


def name_in(number: int, text: str) -> tuple[str, str]:
    """The name in line `number` of `series`, and the text behind it; raises `BadFile`."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        raise BadFile(SERIES_FILE, number, f"expected one patch name, found {text.strip()!r}")
    name: str = found["name"]
    for option in found["options"].split():
        if option != "-p1":
            raise BadFile(
                SERIES_FILE, number, f"option {option} is not supported", hint="use -p1 or none"
            )
    if reason := unsafe_path(name):
        raise BadFile(SERIES_FILE, number, f"{name!r} {reason}")
    if not name.endswith(".patch") or name.startswith(_NOT_PATCHES):
        raise BadFile(SERIES_FILE, number, f"{name} is not a .patch file of the series")
    return name, text.strip()[len(name) :]


def _patch(root: Path, number: int, name: str) -> Patch:
    file = root / SERIES_FOLDER / name
    if not file.is_file():
        raise BadFile(
            SERIES_FILE, number, f"{name} is missing", hint="restore it or remove the line"
        )
    patch = parse_patch(name, file.read_bytes())
    if expected := proper_name(patch):
        raise BadFile(
            SERIES_FILE,
            number,
            f"{name} is not named after {patch.path}, the file it changes",
            hint=f"call it {expected}",
        )
    return patch


def proper_name(patch: Patch) -> str:
    """What a patch that is not named after the file it changes is to be called, else ""."""
    folder = patch.name.removesuffix(f"/{patch.path}.patch")
    named = folder in GROUPS or re.fullmatch(r"deps/[^/]+", folder)
    return "" if named else name_for(patch.path)


def claims(patch: Patch) -> set[str]:
    """What no other patch may use too; case does not tell files apart on Windows."""
    source = "/".join(patch.name.split("/")[:2]) if patch.group == "deps" else ""
    paths = {patch.change.old_path, patch.change.new_path} - {None}
    return {f"{source}:{path}".casefold() for path in paths}


def patch_files(root: Path) -> Iterator[str]:
    """The names of the patches there are, whether `series` lists them or not."""
    folder = root / SERIES_FOLDER
    for file in sorted(folder.rglob("*.patch")):
        name = file.relative_to(folder).as_posix()
        if not name.startswith(_NOT_PATCHES):
            yield name


def _refuse_unused(root: Path, names: set[str]) -> None:
    for name in patch_files(root):
        if name not in names:
            raise BadFile(
                f"{SERIES_FOLDER}/{name}",
                None,
                "is not listed in series",
                hint=f"add it to {SERIES_FILE} or delete it",
            )
