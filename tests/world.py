"""A small upstream with every kind of awkward file, and a repository with a series on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portkit.model import Patch, Pin
from portkit.patches import patchdoc, patched, series
from portkit.patches import pin as pinfile
from portkit.patches.apply import change_between
from portkit.patches.patchfile import canonical
from portkit.patches.series import Entry, Series, name_for
from portkit.upstream.git import Store, TreeEntry, git
from portkit.upstream.source import obtain

TAG = "v0.14.1"
NUMBERED = b"".join(b"line %d\n" % number for number in range(30))

BASE: dict[str, bytes] = {
    "setup.py": b"import os\n\n\ndef build():\n    return os.name\n\n\nbuild()\n",
    "CMakeLists.txt": NUMBERED.replace(b"\n", b"\r\n"),
    "csrc/type.cuh": b"template <typename T>\nstatic constexpr T largest = 1;\n",
    "csrc/use.cu": b"int f() {\n  return largest<int>;\n}\n",
    "csrc/last.cu": NUMBERED + b"no newline",
    "csrc/gone.cu": b"a\nb\n",
    "csrc/tool.sh": b"#!/bin/sh\necho hello\n",
    "vllm/latin.py": b"# -*- coding: latin-1 -*-\ns = '\xe9'\n\x0c\nt = 1\n",
    "vllm/na\u00efve.py": NUMBERED,
    "vllm/same.py": NUMBERED,
}
OURS: dict[str, bytes | None] = {
    "setup.py": BASE["setup.py"].replace(b"os.name", b'"nt" if os.name == "nt" else os.name'),
    "CMakeLists.txt": BASE["CMakeLists.txt"].replace(b"line 3\r", b"line three\r"),
    "csrc/type.cuh": BASE["csrc/type.cuh"].replace(b"largest = 1;", b"largest() { return 1; }"),
    "csrc/use.cu": BASE["csrc/use.cu"].replace(b"largest<int>", b"largest<int>()"),
    "csrc/last.cu": NUMBERED.replace(b"line 9\n", b"") + b"no newline, either",
    "csrc/gone.cu": None,
    "vllm/latin.py": BASE["vllm/latin.py"].replace(b"t = 1", b"t = '\xe8'"),
    "vllm/na\u00efve.py": NUMBERED.replace(b"line 4\n", b"line 4\x0b\n\x0c\n"),
    "vllm/win32.py": b"fresh = True\n",
}
EXECUTABLE = "csrc/tool.sh"


def header(path: str, **fields: str) -> bytes:
    """A header without fault, but for what `fields` put in it."""
    values = {
        "Description": f"Let {path.rpartition('/')[2]} build\n MSVC says C1061 here.",
        "Author": "A Maintainer <maintainer@example.org>",
        "Forwarded": "no",
        "Last-Update": "2026-01-02",
        "Diagnostic": "C1061",
        "Test": "tests/port/test_it.py::test_it",
        "Archs": "8.6, 12.0a",
    }
    values |= {name.replace("_", "-"): value for name, value in fields.items()}
    return "".join(f"{name}: {value}\n" for name, value in values.items()).encode()


@dataclass(frozen=True)
class World:
    """Our repository in `root`, the clone of upstream in `clone`."""

    root: Path
    clone: Path

    @property
    def pin(self) -> Pin:
        return pinfile.read(self.root / pinfile.PIN_FILE)

    def patch_file(self, name: str) -> Path:
        return self.root / "patch_series" / name

    def files(self) -> dict[str, bytes]:
        """All files of the repository but the tools' state."""
        return {
            file.relative_to(self.root).as_posix(): file.read_bytes()
            for file in sorted(self.root.rglob("*"))
            if file.is_file() and ".port" not in file.relative_to(self.root).parts
        }


def world(
    folder: Path,
    cache: Path,
    base: Mapping[str, bytes] = BASE,
    ours: Mapping[str, bytes | None] = OURS,
) -> World:
    """Write both; the cache then holds upstream, so that no command has to fetch it."""
    clone, root = folder / "up stream", folder / "our repository"
    git("init", "-q", str(clone))
    with Store(clone / ".git") as store:
        oids = store.write_blobs([*base.values()])
        entries: dict[str, TreeEntry | None] = {
            path: TreeEntry("100755" if path == EXECUTABLE else "100644", oid)
            for path, oid in zip(base, oids, strict=True)
        }
        tree = store.edit_tree(None, entries)
        commit = store.commit(tree, message="release")
        store.git("tag", TAG, commit)
        patches = [
            canonical(
                Patch(name_for(path), header(path), change_between(path, base.get(path), new))
            )
            for path, new in ours.items()
        ]
        whole = Series(tuple(Entry(patch) for patch in patches))
        after = patched.patched_tree(store, tree, patches)
    pin = Pin("https://upstream.invalid/vllm", TAG, commit, None, tree, after)
    files = series.render(whole)
    files[pinfile.PIN_FILE] = pinfile.render(pin)
    files[patchdoc.DOC_FILE] = patchdoc.render(whole, pin)
    files["tests/port/test_it.py"] = b"def test_it():\n    pass\n"
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    obtain(TAG, cache=cache, upstream=clone, pins=[pin])
    return World(root, clone)


def _patch(path: str, old: bytes | None, new: bytes | None) -> Patch:
    return Patch(name_for(path), header(path), change_between(path, old, new))
