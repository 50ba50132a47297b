"""The result of a scan as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from portkit.report.text import count
from portkit.scan.entries import Entry, entries
from portkit.scan.judge import area, counts
from portkit.scan.model import Judged
from portkit.scan.rules import Rule, Rules
from portkit.scan.scanning import Scan

_WIDTH = 100


def lines(scan: Scan, rules: Rules, *, aside: bool = False) -> Iterator[str]:
    """The entries that count, the surest and earliest first; with `aside` the others as well."""
    shown = entries(scan.findings)
    what = f"{scan.name}, new since {scan.since}" if scan.since else scan.name
    yield f"{what}: {count(len(shown), 'entry', 'entries')}, {scan.seconds:.1f} s"
    heading = ""
    for entry in shown:
        first = entry.first
        if heading != (heading := f"{first.tier.value}, {first.stage.value}"):
            yield ""
            yield heading
        yield from _entry(entry, rules[first.rule])
    yield ""
    yield from _explained(scan)
    yield from _aside(scan, listed=aside)
    for silence in scan.stale:
        yield f"silences nothing: patch_series/rules/silenced.toml:{silence.line}: {silence.rule}"


def _entry(entry: Entry, rule: Rule) -> Iterator[str]:
    first = entry.first
    code = f", {rule.error}" if rule.error else ""
    yield f"  {first.path}:{entry.lines}"
    yield f"    {rule.title} ({rule.id}{code})"
    detail = f"  [{first.detail}]" if first.detail else ""
    yield f"    > {_cut(first.excerpt)}{detail}"


def _explained(scan: Scan) -> Iterator[str]:
    reasons = {one.finding: one.note for one in scan.explained}
    found = entries(reasons)
    if found:
        yield f"explained: {count(len(found), 'entry that breaks', 'entries that break')}, left so"
    for entry in found:
        yield f"  {entry.first.path}:{entry.lines}: {entry.first.rule}"
        yield f"    {reasons[entry.first]}"


def _aside(scan: Scan, *, listed: bool) -> Iterator[str]:
    totals = counts(scan.judged)
    if not totals:
        return
    said = ", ".join(f"{number} {reason.value}" for reason, number in totals.items())
    yield f"set aside: {said}" + ("" if listed else " (--aside lists them)")
    for one in scan.judged if listed else ():
        if one.reason is not None:
            note = f": {one.note}" if one.note else ""
            found = one.finding
            yield f"  {found.path}:{found.line}: {found.rule}: {one.reason.value}{note}"


def explained(rule: Rule) -> Iterator[str]:
    """A rule as a page of text."""
    yield f"{rule.id}: {rule.title}"
    yield f"{rule.tier.value}, {rule.stage.value}{', ' + rule.error if rule.error else ''}"
    yield f"({rule.place})"
    yield ""
    yield f"why   {rule.why.strip()}"
    yield f"fix   {rule.fix.strip()}"
    yield "rewrite: --fix writes it" if rule.rewrite is not None else "rewrite: none, by hand"
    for title, snippets in (("found", rule.bad), ("not found", rule.good)):
        for snippet in snippets:
            yield ""
            yield f"{title}:"
            files = snippet if isinstance(snippet, dict) else {"": snippet}
            for path, text in files.items():
                if path:
                    yield f"  -- {path}"
                yield from (f"  {_cut(line)}" for line in text.splitlines())


def as_json(scan: Scan, rules: Rules, *, aside: bool = False) -> dict[str, Any]:
    """The result for machines; docs/scan.md describes it."""
    found = scan.judged if aside else [one for one in scan.judged if one.reason is None]
    return {
        "tree": scan.name,
        "since": scan.since,
        "seconds": round(scan.seconds, 2),
        "entries": len(entries(scan.findings)),
        "aside": {reason.name.lower(): n for reason, n in counts(scan.judged).items()},
        "findings": list(_plain(found, rules)),
        "notes": list(scan.notes),
        "stale_silences": [
            {"line": s.line, "rule": s.rule, "path": s.path, "reason": s.reason} for s in scan.stale
        ],
    }


def _plain(found: Iterable[Judged], rules: Rules) -> Iterator[dict[str, Any]]:
    for one in found:
        finding = one.finding
        yield {
            "rule": finding.rule,
            "title": rules[finding.rule].title,
            "error": rules[finding.rule].error,
            "tier": finding.tier.value,
            "stage": finding.stage.value,
            "area": area(finding.path),
            "path": finding.path,
            "line": finding.line,
            "column": finding.column,
            "excerpt": finding.excerpt,
            "detail": finding.detail,
            "aside": None if one.reason is None else one.reason.name.lower(),
            "note": one.note,
        }


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
