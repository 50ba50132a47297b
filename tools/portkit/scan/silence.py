"""What a person has read and settled: `patch_series/rules/silenced.toml`, one table each.

`[[silenced]]` is a false alarm, `[[explained]]` a place that does break and is left.  Each names a
rule, a path (or a glob), a piece of the line, and the reason.  An explanation has to name the
piece, so that it says nothing of a line that comes later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import tomli

from portkit.errors import BadFile
from portkit.scan.model import Finding, Reason
from portkit.scan.rules import FOLDER, Rules

FILE = f"{FOLDER}/silenced.toml"

_TABLES = {"silenced": Reason.SILENCED, "explained": Reason.EXPLAINED}


@dataclass(frozen=True)
class Silence:
    """One entry; `line` is where it stands in the file, `excerpt` what the finding's line holds."""

    rule: str
    path: str
    reason: str
    line: int
    excerpt: str = ""
    settled: Reason = Reason.SILENCED

    def covers(self, finding: Finding) -> bool:
        """Whether the entry is about this finding."""
        return (
            finding.rule == self.rule
            and fnmatchcase(finding.path, self.path)
            and self.excerpt in finding.excerpt
        )


def load(root: Path, rules: Rules) -> tuple[Silence, ...]:
    """The silences of the repository at `root`; raises `BadFile` for an entry that is wrong."""
    file = root / FILE
    if not file.is_file():
        return ()
    text = file.read_bytes().decode("utf-8", "replace")
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise BadFile(FILE, getattr(error, "lineno", None), f"not TOML: {error}") from None
    silences: list[Silence] = []
    for name, entries in tables.items():
        if name not in _TABLES:
            raise BadFile(FILE, None, f"unknown table {name}", hint=f"one of {sorted(_TABLES)}")
        heads = rf"\s*\[\[\s*{name}\s*\]\]"
        lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(heads, line)]
        if not isinstance(entries, list) or len(entries) != len(lines):
            raise BadFile(FILE, 1, f"every entry is a table [[{name}]]")
        for entry, line in zip(entries, lines, strict=True):
            silences.append(_silence(entry, line, rules, _TABLES[name]))
    return tuple(silences)


def _silence(entry: dict[str, object], line: int, rules: Rules, settled: Reason) -> Silence:
    known = {"rule", "path", "reason", "excerpt"}
    for name in entry:
        if name not in known:
            raise BadFile(FILE, line, f"unknown field {name}", hint=f"one of {sorted(known)}")
    for name in ("rule", "path", "reason", *(["excerpt"] if settled is Reason.EXPLAINED else [])):
        if not str(entry.get(name, "")).strip():
            raise BadFile(FILE, line, f"{name} is missing or empty")
    if entry["rule"] not in rules:
        raise BadFile(FILE, line, f"there is no rule {entry['rule']}", hint="scan.py --list-rules")
    text = {name: str(entry.get(name, "")) for name in known}
    return Silence(text["rule"], text["path"], text["reason"], line, text["excerpt"], settled)


def stale(silences: Sequence[Silence], findings: Sequence[Finding]) -> tuple[Silence, ...]:
    """The entries that silence nothing any more."""
    return tuple(
        silence for silence in silences if not any(silence.covers(finding) for finding in findings)
    )
