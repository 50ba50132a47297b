"""`tools/apply.py`: the patched source tree of the pin, ready to build.

Upstream's `setup.py` asks setuptools_scm for its version, which looks for git or, without it, for
the `PKG-INFO` of a source archive.  So the tree gets a minimal one with the version of the tag,
and the list of sources from which setuptools takes package data where there is no git; nothing
else is there that upstream and the series do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from portkit.build.source import packaging_files
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.upstream.source import Cache, obtain
from portkit.upstream.tree import write_checkout


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Write the patched source of the pin of the repository at `root`."""
    parser = console.parser(
        "Write the patched source tree of the pinned upstream release, ready to build.",
        prog="apply.py",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)

    console.settle(root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    patches = series.load(root).upstream
    with console.progress() as events:
        cache = Cache.default()
        obtain(pin.tag, cache=cache, upstream=given.upstream, pins=[pin], events=events)
        with cache.store as store:
            tree = patched.verified_tree(store, pin, patches)
            write_checkout(
                store, tree, given.folder, packaging_files(pin, store.files(tree)), events
            )
    if given.json:
        result = {"folder": str(given.folder), "tag": pin.tag, "patched-tree": tree}
        console.print_json("apply", {**result, "patches": [patch.name for patch in patches]})
    else:
        print(f"{given.folder}: vLLM {pin.tag} with {len(patches)} patches, tree {tree}")
    return Exit.OK
