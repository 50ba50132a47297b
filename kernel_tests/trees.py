"""The two sources to compare: upstream's as released, and the patched one as Windows compiles it.

Much of the series stands behind `#ifdef _MSC_VER`, which no Linux compiler defines.  The patched
tree here has those guards of ours switched on (`PORT_WINDOWS_BRANCH` instead of `_MSC_VER`, on the
lines that a patch adds and on no other), so that a GPU on Linux proves the code Windows compiles.
That the patched source without the guards is upstream's is the audit's to prove.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.errors import BadInput, Unavailable
from portkit.kernels.manifest import Kernel, Manifest
from portkit.model import Events, Patch, silent, split_lines
from portkit.patches import pin as pinfile
from portkit.patches import series

BRANCH = "PORT_WINDOWS_BRANCH"
_KEPT = ("csrc/", "tests/", "vllm/", "cmake/", "CMakeLists.txt", "requirements/cuda.txt")
_RECORD = "trees.json"

# The generator parses the same template for each of some thousand kernels; once is enough.
_GENERATE = """
import functools, runpy, sys
import jinja2
jinja2.Template = functools.cache(jinja2.Template)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Trees:
    """The folders of both sources, and what they are."""

    upstream: Path
    patched: Path
    tag: str
    archs: tuple[str, ...]  # the generated kernels are for these


def open_prepared(folder: Path) -> Trees:
    """The trees that `prepare` wrote to `folder`; raises `BadInput`."""
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        raise BadInput(
            f"{folder} holds no prepared source ({_RECORD})",
            hint="make it with: python -m kernel_tests --prepare DIR",
        ) from None
    return Trees(folder / "upstream", folder / "patched", record["tag"], tuple(record["archs"]))


def prepare(
    root: Path,
    folder: Path,
    manifest: Manifest,
    archs: Sequence[str],
    *,
    upstream: Path | None = None,
    events: Events = silent,
) -> Trees:
    """Write both sources of the repository at `root` to `folder`, or take those that lie there.

    `archs` (`9.0`, …) is what Marlin's kernels are generated for.  Raises what `obtain`,
    `verified_tree` and `write_checkout` raise.
    """
    # Imported here: a machine without network gets prepared trees and none of the tools' packages.
    try:
        from portkit.patches import patched  # noqa: PLC0415
        from portkit.upstream.source import Cache, obtain  # noqa: PLC0415
        from portkit.upstream.tree import write_checkout  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{error.name} is not installed in this Python",
            hint="pip install -r requirements.lock, or give source that was prepared: --trees",
        ) from None

    pin = pinfile.read(root / pinfile.PIN_FILE)
    patches = series.load(root).upstream
    record = {
        "tag": pin.tag,
        "tree": pin.tree,
        "patched-tree": pin.patched_tree,
        "archs": sorted(archs, key=_by_number),
    }
    if _recorded(folder) == record:
        return open_prepared(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / _RECORD).exists():
        raise BadInput(f"{folder} is not empty", hint="name a new or an empty folder")
    cache = Cache.default()
    obtain(pin.tag, cache=cache, upstream=upstream, pins=[pin], events=events)
    with cache.store as store:
        tree = patched.verified_tree(store, pin, patches)
        for name, oid in (("upstream", pin.tree), ("patched", tree)):
            files = store.files(oid)
            changes: dict[str, bytes | None] = {
                path: None for path in files if not path.startswith(_KEPT)
            }
            if name == "patched":
                changes |= {
                    path: windows_branches(store.read(files[path].oid), patch)
                    for patch in patches
                    if (path := patch.path) in files and path.startswith("csrc/")
                }
            _remove(folder / name)
            write_checkout(store, oid, folder / name, changes, events)
            for kernel in manifest.kernels.values():
                generate(folder / name, kernel, record["archs"])
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return open_prepared(folder)


def windows_branches(data: bytes, patch: Patch) -> bytes:
    """The patched file `data` with the `_MSC_VER` guards that `patch` adds switched on."""
    added = {
        line[1:]
        for hunk in patch.change.hunks
        for line in hunk.lines
        if line[:1] == b"+" and b"_MSC_VER" in line
    }
    return b"".join(
        line.replace(b"_MSC_VER", BRANCH.encode()) if line in added else line
        for line in split_lines(data)
    )


def generated(tree: Path, patterns: Iterable[str]) -> list[str]:
    """The generated sources in `tree`, below it, in order."""
    return sorted(
        file.relative_to(tree).as_posix() for pattern in patterns for file in tree.glob(pattern)
    )


def generate(tree: Path, kernel: Kernel, archs: Iterable[str]) -> None:
    """Run upstream's generator of the kernel in `tree`, if it has one, as upstream's CMake does."""
    if kernel.generator is None:
        return
    script = tree / kernel.generator
    command = [sys.executable, "-c", _GENERATE, str(script), ",".join(archs)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{kernel.generator} failed: {last}")


def _recorded(folder: Path) -> Mapping[str, object] | None:
    try:
        found: Mapping[str, object] = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _by_number(arch: str) -> tuple[int, str]:
    return int(arch.partition(".")[0]), arch
