"""Mechanical fixes: the rewrite of a rule made in every file where its findings count."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from portkit.errors import BadInput
from portkit.patches.apply import change_between
from portkit.patches.header import SUMMARY_WIDTH
from portkit.patches.patchfile import format_change
from portkit.scan.code import Code
from portkit.scan.judge import Judge
from portkit.scan.matching import Matcher, find
from portkit.scan.model import Language
from portkit.scan.rules import Rewrite, Rule, Rules
from portkit.scan.tree import SourceTree, is_shipped, language_of
from portkit.stack.editing import Edited, folded
from portkit.stack.stack import Stack

_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b[^\n]*\n", re.MULTILINE)
# What proves a rewrite: the scan of the patched source finds nothing certain any more.
_TEST = "tests/scan/test_scan_upstream.py::test_the_series_leaves_nothing_certain"


def fixed_files(tree: SourceTree, rule: Rule, rules: Rules) -> dict[str, tuple[bytes, bytes]]:
    """The files that the rule's rewrite changes: path to contents before and after.

    `tree` is the source as the series leaves it; only findings that count are rewritten.
    """
    if rule.rewrite is None:
        raise BadInput(f"{rule.id} has no rewrite: {rule.fix.strip()}")
    judge = Judge(tree, rules)
    matcher = Matcher(rule)
    changed: dict[str, tuple[bytes, bytes]] = {}
    for path in tree.of_language(rule.language):
        data = tree.read(path)
        if not (is_shipped(path) and matcher.concerns(path) and matcher.may_match(data)):
            continue
        found = [judge.judge(finding) for finding in find([matcher], path, data)]
        lines = {one.finding.line for one in found if one.reason is None}
        if lines:
            changed[path] = data, _rewritten(matcher, rule.rewrite, path, data, lines)
    return changed


def _rewritten(
    matcher: Matcher, rewrite: Rewrite, path: str, data: bytes, lines: set[int]
) -> bytes:
    """A file with the matches on `lines` (1-based) replaced."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8, so the rewrite is for a person to make") from None
    code = Code(data, language_of(path))
    text = code.text
    matches = [match for match in matcher.matches(code) if code.place(match.start)[0] in lines]
    for match in sorted(matches, key=lambda match: -match.start):
        new = rewrite.text_for(text[match.start : match.end])
        for name, captured in match.captured.items():
            new = new.replace(f"${name}", captured)
        text = text[: match.start] + new + text[match.end :]
    if rewrite.include and rewrite.include not in text:
        includes = list(_INCLUDE.finditer(text))
        at = includes[-1].end() if includes else 0
        text = text[:at] + rewrite.include + "\n" + text[at:]
    return text.encode()


def in_series(
    stack: Stack,
    rule: Rule,
    files: Mapping[str, tuple[bytes, bytes]],
    *,
    author: str,
    today: date,
) -> Edited:
    """The series with the rewritten files taken in, each in its own patch or in a new one."""
    diff = b"".join(
        format_change(change_between(path, before, after))
        for path, (before, after) in files.items()
    )
    edited = folded(stack, diff, f"scan --fix {rule.id}", author=author, today=today)
    patches = [
        replace(patch, header=_header(rule, patch.path, author, today))
        if patch.name in edited.added
        else patch
        for patch in edited.series.patches
    ]
    return replace(edited, series=edited.series.with_patches(patches))


def _header(rule: Rule, path: str, author: str, today: date) -> bytes:
    """The header of a new patch, from what the rule says."""
    assert rule.rewrite is not None
    error = f" ({rule.error})" if rule.error else ""
    why = textwrap.wrap(f"{rule.title}{error}. {rule.why.strip()}", 78)
    how = textwrap.wrap(
        f"{rule.fix.strip()} The rewrite of the rule {rule.id} did, in every place where the scan "
        "found it; to other compilers and systems it says the same.",
        78,
    )
    body = "".join(f" {line}\n" for line in [*why, ".", *how])
    archs = "all" if rule.language is Language.CPP else "none"
    summary = rule.rewrite.title or rule.title[:SUMMARY_WIDTH]
    return (
        f"Description: {summary}\n{body}Author: {author}\nForwarded: no\n"
        f"Last-Update: {today.isoformat()}\nDiagnostic: {rule.error or rule.id}\n"
        f"Test: {_TEST}\nArchs: {archs}\n"
    ).encode()
