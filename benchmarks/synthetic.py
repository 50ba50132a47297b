"""Long series for the growth of time and memory: one-line changes all over upstream's tree."""

from __future__ import annotations

import random
import re

from portkit.model import Edit, FileChange, Patch, split_lines
from portkit.patches.apply import hunks_from_edits
from portkit.port.rebase import Snapshot
from portkit.upstream.git import Store

SEED = 20261123
_STATEMENT = re.compile(rb"( *)(import|from|def|class|return|if|for) .*\n")


def series(store: Store, base: Snapshot, count: int) -> tuple[Patch, ...]:
    """`count` patches, each adding a comment line above a statement of another Python file.

    The same count always gives the same patches, and a shorter series is the start of a longer.
    """
    chosen = random.Random(SEED)
    paths = sorted(path for path in base.files if path.endswith(".py"))
    chosen.shuffle(paths)
    patches: list[Patch] = []
    for path in paths:
        if len(patches) == count:
            break
        lines = split_lines(store.read(base.files[path].oid))
        places = [n for n in range(1, len(lines)) if _fits(lines[n - 1], lines[n])]
        if places:
            place = chosen.choice(places)
            indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            edit = Edit(place, place, (indent + b"# Checked on Windows.\n",))
            change = FileChange(path, path, hunks_from_edits(lines, [edit]))
            patches.append(Patch(f"runtime/{path}.patch", b"", change))
    return tuple(patches)


def _fits(above: bytes, line: bytes) -> bool:
    return _STATEMENT.fullmatch(line) is not None and not above.rstrip().endswith(b"\\")
