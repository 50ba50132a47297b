"""A repository with a series and a cache that holds its upstream, for tests of `series.py`."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from small import HEADER

from portkit.change.managed import Executable
from portkit.commands import series as series_command
from portkit.face import console
from portkit.model import Patch, Pin
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.patches.apply import change_between
from portkit.patches.patchdoc import DOC_FILE, render
from portkit.patches.patchfile import canonical
from portkit.patches.series import Entry, Series, name_for
from portkit.upstream.cache import CACHE_VARIABLE
from portkit.upstream.git import Store, TreeEntry

Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str


def _mode(data: bytes | None) -> str:
    return "100755" if isinstance(data, Executable) else "100644"


def a_patch(path: str, base: bytes | None, ours: bytes | None) -> Patch:
    change = change_between(
        path,
        base,
        ours,
        old_mode=None if base is None else _mode(base),
        new_mode=None if ours is None else _mode(ours),
    )
    return canonical(Patch(name_for(path), HEADER, change))


@dataclass(frozen=True)
class Desk:
    """A repository of ours in `root`; `Executable` bytes are executable files."""

    root: Path
    upstream: Mapping[str, bytes]

    @classmethod
    def make(cls, folder: Path, upstream: Mapping[str, bytes], ours: Files) -> Desk:
        """One on `upstream`, with a patch for each of `ours`; its cache is in use from now on."""
        desk = cls(folder / "our repository", upstream)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")  # tests have it put back
        with Store.create(folder / "cache/upstream.git") as store:
            oids = store.write_blobs(list(upstream.values()))
            entries = {
                path: TreeEntry(_mode(data), oid)
                for (path, data), oid in zip(upstream.items(), oids, strict=True)
            }
            tree = store.edit_tree(None, entries)
            patches = [a_patch(path, upstream.get(path), data) for path, data in ours.items()]
            after = patched.patched_tree(store, tree, patches)
        whole = Series(tuple(Entry(one) for one in patches))
        pin = Pin("https://upstream.invalid/vllm", "v1.0.0", "0" * 40, None, tree, after)
        files = series.render(whole)
        files[pinfile.PIN_FILE] = pinfile.render(pin)
        files[DOC_FILE] = render(whole, pin)
        for path, data in files.items():
            (desk.root / path).parent.mkdir(parents=True, exist_ok=True)
            (desk.root / path).write_bytes(data)
        return desk

    def run(self, *words: str) -> Said:
        """Run `series.py` as a person does."""
        sinks = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(sink, "utf-8") for sink in sinks)
        main = functools.partial(series_command.main, root=self.root)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = console.run(main, words)
        for stream in (out, err):
            stream.flush()
        return Said(code, *(sink.getvalue().decode() for sink in sinks))

    def does(self, *words: str) -> str:
        """Run a command that must end well, and give its output."""
        said = self.run(*words)
        assert said.code == 0, said
        return said.out

    # files

    def work(self, path: str) -> Path:
        return self.root / "work/tree" / path

    def write(self, path: str, data: bytes | None) -> None:
        """Edit a file of the work tree as a person does; None deletes it."""
        file = self.work(path)
        if data is None:
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755 if isinstance(data, Executable) else 0o644)

    def lying(self) -> dict[str, bytes]:
        """The files of the work tree."""
        return _files(self.root / "work/tree")

    def managed(self) -> dict[str, bytes]:
        """The series, the pin and the reference."""
        folders = {name: _files(self.root / name) for name in ("patch_series", "docs")}
        found = {
            f"{n}/{path}": data for n, files in folders.items() for path, data in files.items()
        }
        return {**found, pinfile.PIN_FILE: (self.root / pinfile.PIN_FILE).read_bytes()}

    def everything(self) -> dict[str, tuple[bytes, bool]]:
        """All that a command may change, with modes; not the journal."""
        work = {f"work/{path}": data for path, data in _files(self.root / "work").items()}
        files = {**self.managed(), **work}
        return {path: (bytes(data), isinstance(data, Executable)) for path, data in files.items()}

    def order(self) -> list[str]:
        return [patch.path for patch in series.load(self.root).patches]

    def applied(self) -> list[str]:
        return self.does("applied").split()

    def patched(self) -> dict[str, bytes]:
        """The whole upstream with every patch of the series, checked against the pin."""
        pin = pinfile.read(self.root / pinfile.PIN_FILE)
        with Store(Path(os.environ[CACHE_VARIABLE]) / "upstream.git") as store:
            tree = patched.verified_tree(store, pin, series.load(self.root).upstream)
            return {
                path: Executable(data) if entry.mode == "100755" else data
                for path, entry in store.files(tree).items()
                for data in [store.read(entry.oid)]
            }


def _files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): Executable(data)
        if file.stat().st_mode & 0o100 and os.name != "nt"
        else data
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for data in [file.read_bytes()]
    }
