"""False alarms that a person has silenced: `patch_series/rules/silenced.toml`, one table each.

A silence names a rule, a path (or a glob), if need be a piece of the line, and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import tomli

from portkit.errors import BadFile
from portkit.scan.model import Finding
from portkit.scan.rules import FOLDER, Rules

FILE = f"{FOLDER}/silenced.toml"


@dataclass(frozen=True)
class Silence:
    """One entry; `line` is where it stands in the file, `excerpt` what the finding's line holds."""

    rule: str
    path: str
    reason: str
    line: int
    excerpt: str = ""

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
        entries = tomli.loads(text).get("silenced", [])
    except tomli.TOMLDecodeError as error:
        raise BadFile(FILE, getattr(error, "lineno", None), f"not TOML: {error}") from None
    lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[", line)]
    if not isinstance(entries, list) or len(entries) != len(lines):
        raise BadFile(FILE, 1, "every entry is a table [[silenced]]")
    return tuple(_silence(entry, line, rules) for entry, line in zip(entries, lines, strict=True))


def _silence(entry: dict[str, object], line: int, rules: Rules) -> Silence:
    known = {"rule", "path", "reason", "excerpt"}
    for name in entry:
        if name not in known:
            raise BadFile(FILE, line, f"unknown field {name}", hint=f"one of {sorted(known)}")
    for name in ("rule", "path", "reason"):
        if not str(entry.get(name, "")).strip():
            raise BadFile(FILE, line, f"{name} is missing or empty")
    if entry["rule"] not in rules:
        raise BadFile(FILE, line, f"there is no rule {entry['rule']}", hint="scan.py --list-rules")
    text = {name: str(entry.get(name, "")) for name in known}
    return Silence(text["rule"], text["path"], text["reason"], line, text["excerpt"])


def stale(silences: Sequence[Silence], findings: Sequence[Finding]) -> tuple[Silence, ...]:
    """The entries that silence nothing any more."""
    return tuple(
        silence for silence in silences if not any(silence.covers(finding) for finding in findings)
    )
