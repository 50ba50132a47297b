"""One wrapper around git: bytes in, bytes out, never the user's configuration or work tree.

Everything works on a bare object store through plumbing commands, so a store never holds a
check-out, hooks or filters (`core.autocrlf` cannot touch a byte).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

from portkit.errors import IntegrityError, Unavailable

# A person's or a CI's settings must not change what a merge gives.
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_AUTHOR_NAME": "portkit",
    "GIT_AUTHOR_EMAIL": "portkit@localhost",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_NAME": "portkit",
    "GIT_COMMITTER_EMAIL": "portkit@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
    "LC_ALL": "C",
}
_MINIMUM = (2, 38)  # merge-tree --write-tree
_AHEAD = 64  # ids sent before the first answer is read: no more than a pipe of Windows holds
_FOLDER = "40000"
_EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # the tree of nothing


def environment() -> dict[str, str]:
    """The process environment for git: the caller's, without GIT_*, with ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | _ENVIRONMENT


def blob_id(data: bytes) -> str:
    """The id git gives a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class TreeEntry(NamedTuple):
    """A file in a tree: git mode and blob id."""

    mode: str
    oid: str


class Difference(NamedTuple):
    """A path that differs between two trees: its entry in each, None where it has none."""

    path: str
    old: TreeEntry | None
    new: TreeEntry | None


def path_to_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def path_from_bytes(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def git(
    *args: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Sequence[int] = (0,),
) -> bytes:
    """Run git and return its output; any exit status not in `ok` raises `Unavailable`."""
    try:
        done = subprocess.run(
            ["git", *args],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            env={**environment(), **(env or {})},
            check=False,
        )
    except FileNotFoundError:
        raise Unavailable(
            "git is not installed or not on PATH", hint="install git 2.38 or newer"
        ) from None
    if done.returncode not in ok:
        raise Unavailable(f"git {_command(args)} failed ({done.returncode}): {_said(done.stderr)}")
    return done.stdout


def _command(args: Sequence[str]) -> str:
    """The subcommand of a git command line; each of git's own options here takes a value."""
    first = 0
    while args[first].startswith("-") and first + 2 < len(args):
        first += 2
    return args[first]


def _said(stderr: bytes) -> str:
    """git's reason: its first fatal line (hints may follow), else the last line."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines() or [""]
    return next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])


def check_version() -> None:
    """Raise `Unavailable` when git is missing or too old for `merge-tree --write-tree`."""
    words = git("--version").split()
    found = tuple(int(part) for part in words[2].split(b".")[:2])
    if found < _MINIMUM:
        raise Unavailable(f"git {words[2].decode()} is too old", hint="install git 2.38 or newer")


class Store:
    """A bare git object store: blobs, trees and the tags of upstream.

    Reading goes through one long-lived `git cat-file --batch`, for any number of threads; close it
    with `close()` or a `with` block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: subprocess.Popen[bytes] | None = None
        self._reading = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> Store:
        """Open the store at `path`, made if it does not exist."""
        if not (path / "HEAD").exists():
            path.mkdir(parents=True, exist_ok=True)
            git("init", "--quiet", "--bare", "--template=", str(path))
        return cls(path)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.communicate()

    def git(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> bytes:
        """Run git on this store."""
        return git("--git-dir", str(self.path), *args, stdin=stdin, env=env, ok=ok)

    # reading

    def resolve(self, name: str) -> str | None:
        """The object id `name` stands for (`refs/tags/v0.14.1^{tree}`), or None."""
        found = self.git("rev-parse", "--verify", "--quiet", name, ok=(0, 1, 128)).strip()
        return found.decode() or None

    def read(self, oid: str) -> bytes:
        """The bytes of an object; `oid` may be any name of one (`tree:path`)."""
        return self.read_many([oid])[0]

    def read_many(self, oids: Sequence[str]) -> list[bytes]:
        """The bytes of many objects by their ids, in order; faster than one by one."""
        found: list[bytes] = []
        for start in range(0, len(oids), _AHEAD):
            asked = oids[start : start + _AHEAD]
            with self._reading:
                answers = self._ask(asked)
            for oid, data in zip(asked, answers, strict=True):
                if data is None:
                    raise IntegrityError(f"object {oid} is missing in {self.path}")
                found.append(data)
        return found

    def _ask(self, oids: Sequence[str]) -> list[bytes | None]:
        """The objects, asked for all at once; None where there is none."""
        if any("\n" in oid for oid in oids):
            raise IntegrityError(f"object name with a line break: {oids!r}")
        if self._reader is None:
            self._reader = subprocess.Popen(
                ["git", "--git-dir", str(self.path), "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
        assert self._reader.stdin is not None and self._reader.stdout is not None
        self._reader.stdin.write(b"".join(path_to_bytes(oid) + b"\n" for oid in oids))
        self._reader.stdin.flush()
        return [_object(self._reader.stdout) for _ in oids]

    def files(self, tree: str) -> Files:
        """Every file below `tree`."""
        return Files(self, tree)

    def differences(self, old: str, new: str) -> list[Difference]:
        """The files in which two trees differ, in the order of a tree."""
        said = self.git("diff-tree", "-r", "-z", "--no-renames", "--no-abbrev", old, new)
        words = path_from_bytes(said).split("\0")
        # Each path follows ":<6 old mode> <6 new mode> <40 old id> <40 new id> <status>".
        return [
            Difference(path, _side(head[1:7], head[15:55]), _side(head[8:14], head[56:96]))
            for head, path in zip(words[::2], words[1::2], strict=False)
        ]

    # writing

    def write(self, kind: str, data: bytes) -> str:
        """Store an object (`blob`, `tree` or `commit`) and return its id."""
        whole = b"%s %d\0" % (kind.encode(), len(data)) + data
        oid = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        file = self.path / "objects" / oid[:2] / oid[2:]
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            new = file.with_name(f"tmp_obj_{oid}_{os.getpid()}")
            new.write_bytes(zlib.compress(whole, 1))
            try:
                new.replace(file)
            except PermissionError:  # on Windows, where another process has just stored it
                new.unlink()
                if not file.exists():
                    raise
        return oid

    def write_blobs(self, blobs: Iterable[bytes]) -> list[str]:
        """Store blobs and return their ids, in order."""
        return [self.write("blob", data) for data in blobs]

    def edit_tree(self, tree: str | None, changes: Mapping[str, TreeEntry | None]) -> str:
        """The id of `tree` with `changes`: path to its new entry, None removes the path."""
        old = _entries(self.read(tree)) if tree is not None else {}
        new = dict(old)
        below: dict[str, dict[str, TreeEntry | None]] = {}
        for path, entry in changes.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = entry
            elif entry is None:
                new.pop(name, None)
            else:
                new[name] = entry
        for name, inner in below.items():
            known = old.get(name)
            folder = known.oid if known is not None and known.mode == _FOLDER else None
            made = self.edit_tree(folder, inner)
            if made != _EMPTY:
                new[name] = TreeEntry(_FOLDER, made)
            elif new.get(name) == known and folder is not None:
                del new[name]
        return self.write("tree", _tree_of(new))

    def commit(self, tree: str, parents: Iterable[str] = (), message: str = "") -> str:
        """The id of a commit of `tree`; dates and names are fixed, so it is reproducible."""
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"{who} portkit <portkit@localhost> 0 +0000" for who in ("author", "committer")]
        return self.write("commit", "\n".join([*lines, "", message, ""]).encode())


class Files(Mapping[str, TreeEntry]):
    """The files of a tree; one is looked up through its folders, all are listed when asked for."""

    def __init__(self, store: Store, tree: str) -> None:
        self.tree = tree
        self._root = f"{tree}^{{tree}}"
        self._store = store
        self._folders: dict[str, dict[str, TreeEntry]] = {}

    def __getitem__(self, path: str) -> TreeEntry:
        if "_listing" in self.__dict__:
            return self._listing[path]
        *folders, name = path.split("/")
        oid = self._root
        for folder in folders:
            oid = self._entries_of(oid, path)[folder].oid
        entry = self._entries_of(oid, path)[name]
        if entry.mode == _FOLDER:
            raise KeyError(path)
        return entry

    def _entries_of(self, oid: str, path: str) -> dict[str, TreeEntry]:
        """What a folder on the way to `path` holds."""
        if oid not in self._folders:
            self.look_up([path])
        return self._folders[oid]

    def look_up(self, paths: Iterable[str]) -> None:
        """Read the folders of `paths`, level by level; faster than path by path."""
        known = "_listing" in self.__dict__
        places = [] if known else [(self._root, path.split("/")) for path in paths]
        while places:
            missing = list({oid for oid, _ in places} - self._folders.keys())
            for oid, data in zip(missing, self._store.read_many(missing), strict=True):
                self._folders[oid] = _entries(data)
            below = ((self._folders[oid].get(name), rest) for oid, (name, *rest) in places if rest)
            places = [(e.oid, rest) for e, rest in below if e is not None and e.mode == _FOLDER]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listing)

    def __len__(self) -> int:
        return len(self._listing)

    @cached_property
    def _listing(self) -> dict[str, TreeEntry]:
        said = self._store.git("ls-tree", "-r", "-z", "--full-tree", self.tree)
        # A record is "<6 mode> <4 type> <40 id>\t<path>": cut, not parsed, for there are thousands.
        return {
            record[53:]: TreeEntry(record[:6], record[12:52])
            for record in path_from_bytes(said).split("\0")
            if record
        }


def _object(answers: IO[bytes]) -> bytes | None:
    """The next object that `git cat-file --batch` gives, None for one that it has not."""
    head = answers.readline().split()
    if len(head) != 3 or head[1] == b"missing":
        return None
    data = answers.read(int(head[2]))
    answers.read(1)
    return data


def _entries(tree: bytes) -> dict[str, TreeEntry]:
    """What lies directly in a tree, by its bytes: name of a file or folder to mode and id."""
    entries: dict[str, TreeEntry] = {}
    at = 0
    while at < len(tree):
        space = tree.index(b" ", at)
        end = tree.index(b"\0", space)
        name = path_from_bytes(tree[space + 1 : end])
        entries[name] = TreeEntry(tree[at:space].decode(), tree[end + 1 : end + 21].hex())
        at = end + 21
    return entries


def _side(mode: str, oid: str) -> TreeEntry | None:
    return None if mode == "000000" else TreeEntry(mode, oid)


def _tree_of(entries: Mapping[str, TreeEntry]) -> bytes:
    """The bytes of a tree object, in git's order: a folder as if its name ended with a slash."""
    named = [
        (path_to_bytes(name) + (b"/" if entry.mode == _FOLDER else b""), entry)
        for name, entry in entries.items()
    ]
    return b"".join(
        b"%s %s\0%s" % (entry.mode.encode(), name.rstrip(b"/"), bytes.fromhex(entry.oid))
        for name, entry in sorted(named)
    )
