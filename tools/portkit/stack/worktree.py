"""A work tree: files of upstream as the stack of applied patches has them, for a person to edit.

It holds what the patches touch and what a person asked for, not all of upstream.  The state says
which patches are applied and what the tools left in each file, so that an edit is always noticed.
Only the journal writes: the files, and the state with them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from portkit.change.managed import (
    WORK_FOLDER,
    WORK_STATE_FOLDER,
    Executable,
    bytes_of,
    digest_of,
    keeps_modes,
)
from portkit.errors import BadInput, IntegrityError
from portkit.upstream.tree import long_path

DEFAULT = f"{WORK_FOLDER}/tree"
_RESERVED = ("refresh", "reports", "split")  # folders in work/ with another use

# What editors, merge tools and Python leave beside the files a person works on.
_LEFTOVERS = re.compile(
    r"(.*/)?(__pycache__/.*|\.git/.*|\.(idea|vscode)/.*|\.DS_Store|Thumbs\.db|\.#[^/]*|#[^/]*#"
    r"|[^/]*(~|\.orig|\.rej|\.bak|\.tmp|\.pyc|\.sw[a-p]))",
    re.S,
)


@dataclass(frozen=True)
class Applied:
    """A patch as it was applied: the digest of its change, and the upstream files it is about."""

    digest: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What the tools left in a work tree.

    `tree` is the pristine source the files were made from, `applied` the patches by name, `files`
    the digest of each file by its path, `subjects` the messages of patches that `new` announced
    and nothing is in yet, by the path of their file.
    """

    tree: str = ""
    applied: Mapping[str, Applied] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> bytes:
        return json.dumps({"version": 1, **asdict(self)}, indent=1, sort_keys=True).encode()


class Worktree:
    """The work tree in `folder` of the repository at `root`: what lies there."""

    def __init__(self, root: Path, folder: str = DEFAULT) -> None:
        """Raises `BadInput` unless `folder` is directly in `work/`, and free for this use."""
        self.root = Path(long_path(root.absolute()))
        self.folder = _folder(root, folder)
        self.name = self.folder.removeprefix(f"{WORK_FOLDER}/")
        self.state_file = f"{WORK_STATE_FOLDER}/{self.name}.json"
        self._top = self.root / self.folder

    def state(self) -> State:
        """What the tools left here; raises `IntegrityError` when that cannot be read."""
        try:
            record = json.loads((self.root / self.state_file).read_bytes())
            if record.pop("version") != 1:
                raise ValueError
            applied = {
                name: Applied(one["digest"], tuple(one["paths"]))
                for name, one in record.pop("applied").items()
            }
            return State(applied=applied, **record)
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"{self.state_file} is damaged",
                hint=f"move {self.folder} away and delete the file; then push again",
            ) from None

    def place(self, path: str) -> str:
        """The path below the repository of the upstream file `path`."""
        return f"{self.folder}/{path}"

    @property
    def has_modes(self) -> bool:
        """Whether the files here can be executable or not."""
        (self.root / WORK_STATE_FOLDER).parent.mkdir(exist_ok=True)
        return keeps_modes((self.root / WORK_STATE_FOLDER).parent)

    def read(self, path: str) -> bytes | None:
        """The file as it lies here, `Executable` if it is; None when it is not there."""
        return bytes_of(self.root / self.place(path), modes=self.has_modes)

    def digest(self, path: str) -> str | None:
        """The digest of the file as it lies here."""
        return digest_of(self.root / self.place(path), modes=self.has_modes)

    def paths(self) -> Iterator[str]:
        """The files that lie here, without what editors and Python leave behind."""
        top = str(self._top)
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name not in ("__pycache__", ".git")]
            links = [name for name in names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            below = folder[len(top) + 1 :].replace(os.sep, "/")
            for name in sorted([*files, *links]):
                path = f"{below}/{name}" if below else name
                if not _LEFTOVERS.fullmatch(path):
                    yield path

    def is_link(self, path: str) -> bool:
        return (self.root / self.place(path)).is_symlink()

    def edited(self, state: State) -> list[str]:
        """The files that are not as the tools left them: changed, new, or gone."""
        there = set(self.paths())
        changed = {
            path
            for path in there
            if self.is_link(path) or self.digest(path) != state.files.get(path)
        }
        return sorted(changed | (state.files.keys() - there))


def executable(data: bytes | None, yes: bool) -> bytes | None:
    """`data` as the bytes of a file that is executable or is not."""
    if data is None:
        return None
    return Executable(data) if yes else bytes(data)


def _folder(root: Path, given: str) -> str:
    """The work folder a person named, as `work/NAME`."""
    path = Path(given)
    if path.is_absolute():
        try:
            path = path.relative_to(root.absolute())
        except ValueError:
            path = Path("..")
    parts = Path(os.path.normpath(path)).parts
    if len(parts) == 2 and parts[0] == WORK_FOLDER and parts[1] not in (*_RESERVED, ".."):
        return "/".join(parts)
    raise BadInput(
        f"{given} cannot be a work tree", hint=f"name a folder in {WORK_FOLDER}/, such as {DEFAULT}"
    )
