"""One wrapper around git: bytes in, bytes out, never the user's configuration or work tree.

Everything works on a bare object store through plumbing commands, so a store never holds a
check-out, hooks or filters (`core.autocrlf` cannot touch a byte).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

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

    Reading goes through one long-lived `git cat-file --batch`; close it with `close()` or a
    `with` block.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, path: Path) -> Store:
        """Open the store at `path`, made if it does not exist."""
        if not (path / "HEAD").exists():
            path.mkdir(parents=True, exist_ok=True)
            git("init", "--quiet", "--bare", "--template=", str(path))
        return cls(path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """The bytes of a blob; `oid` may be any object name (`tree:path`)."""
        if "\n" in oid:
            raise IntegrityError(f"object name with a line break: {oid!r}")
        if self._reader is None:
            self._reader = subprocess.Popen(
                ["git", "--git-dir", str(self.path), "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
        assert self._reader.stdin is not None and self._reader.stdout is not None
        self._reader.stdin.write(path_to_bytes(oid) + b"\n")
        self._reader.stdin.flush()
        head = self._reader.stdout.readline().split()
        if len(head) != 3 or head[1] == b"missing":
            raise IntegrityError(f"object {oid} is missing in {self.path}")
        data = self._reader.stdout.read(int(head[2]))
        self._reader.stdout.read(1)
        return data

    def read_many(self, oids: Sequence[str]) -> list[bytes]:
        """The bytes of many blobs, in order, in one go: much faster than one by one."""
        if not oids:
            return []
        said = self.git("cat-file", "--batch", stdin="\n".join(oids).encode() + b"\n")
        blobs: list[bytes] = []
        at = 0
        for oid in oids:
            end = said.index(b"\n", at)
            head = said[at:end].split()
            if len(head) != 3 or head[1] == b"missing":
                raise IntegrityError(f"object {oid} is missing in {self.path}")
            size = int(head[2])
            blobs.append(said[end + 1 : end + 1 + size])
            at = end + size + 2
        return blobs

    def files(self, tree: str, *paths: str) -> dict[str, TreeEntry]:
        """Every file below `tree`, or those of `paths` alone: path to mode and blob id."""
        listing = path_from_bytes(self.git("ls-tree", "-r", "-z", "--full-tree", tree))
        # A record is "<6 mode> <4 type> <40 id>\t<path>": cut, not parsed, for there are thousands.
        return {
            record[53:]: TreeEntry(record[:6], record[12:52])
            for record in listing.split("\0")
            if record
        }

    # writing

    def write_blobs(self, blobs: Sequence[bytes]) -> list[str]:
        """Store blobs and return their ids, in order, in one process."""
        if not blobs:
            return []
        with tempfile.TemporaryDirectory(prefix="portkit-") as folder:
            paths: list[str] = []
            for number, data in enumerate(blobs):
                file = Path(folder, str(number))
                file.write_bytes(data)
                paths.append(str(file))
            listed = "\n".join(paths).encode()
            out = self.git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed)
        return out.decode().split()

    @contextmanager
    def _index(self, tree: str | None) -> Iterator[dict[str, str]]:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="portkit-"))
            env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            if tree is not None:
                self.git("read-tree", tree, env=env)
            yield env

    def edit_tree(self, tree: str | None, changes: Mapping[str, TreeEntry | None]) -> str:
        """The id of `tree` with `changes`: path to its new entry, None removes the path."""
        lines = bytearray()
        for path, entry in changes.items():
            mode, oid = ("0", "0" * 40) if entry is None else (entry.mode, entry.oid)
            lines += f"{mode} {oid} 0\t".encode() + path_to_bytes(path) + b"\0"
        with self._index(tree) as env:
            self.git("update-index", "-z", "--index-info", stdin=bytes(lines), env=env)
            return self.git("write-tree", env=env).decode().strip()

    def commit(self, tree: str, parents: Iterable[str] = (), message: str = "") -> str:
        """The id of a commit of `tree`; dates and names are fixed, so it is reproducible."""
        args = [word for parent in parents for word in ("-p", parent)]
        out = self.git("commit-tree", tree, *args, stdin=message.encode() + b"\n")
        return out.decode().strip()
