"""Level 1 for a series that was just carried: is each file still upstream's where it was before?"""

from __future__ import annotations

from dataclasses import dataclass

from portkit.audit import level1
from portkit.audit.doubt import Doubt
from portkit.port.rebase import Carried
from portkit.upstream.git import Store


@dataclass(frozen=True)
class Audited:
    """A carried patch at the new tag: whether level 1 holds, and what was found or is in doubt."""

    patch: str
    path: str
    identical: bool
    evidence: str


def audited(store: Store, carried: Carried) -> tuple[Audited, ...]:
    """The verdicts of level 1 for every file that the carried series changes without conflict."""
    waiting = {patch.name for patch, _ in carried.conflicts}
    entries = carried.target.files

    def read(path: str) -> bytes | None:
        return store.read(entries[path].oid) if path in entries else None

    found: list[Audited] = []
    for path, file in carried.files.items():
        if waiting.intersection(file.owners) or not file.edits:
            continue
        try:
            said, holds = level1.compare(path, read(path) or b"", file.result, read), True
        except Doubt as doubt:
            said, holds = str(doubt), False
        found.append(Audited(file.owners[0], path, holds, said))
    return tuple(found)
