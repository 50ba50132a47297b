"""The scan inside a refresh: what the new tag brings, for the port report.

The type checker and the package index are left out here, since a refresh should not take minutes;
`scan.py --tag TAG --since pin` runs them too.
"""

from __future__ import annotations

from pathlib import Path

from portkit.model import Events
from portkit.port.porting import Plan
from portkit.report.model import FoundReport, ScanReport, plain
from portkit.scan import cover, rules, scanning, silence
from portkit.scan.entries import Entry, entries
from portkit.scan.judge import counts
from portkit.scan.rules import Rule
from portkit.scan.scanning import Options
from portkit.scan.tree import SourceTree
from portkit.upstream.cache import Cache


def difference(root: Path, plan: Plan, cache: Cache, events: Events) -> ScanReport | None:
    """What the carried series leaves at the new tag and not at the pin; None without rules."""
    known = rules.load(root)
    if not known:
        return None
    silences = silence.load(root, known)
    options = Options(slow=False, cache=cache.path / "scan")
    pin, target = plan.start.pin, plan.sources[-1]
    at_pin = SourceTree.of_store(cache.store, pin.tag, pin.tree)
    at_target = SourceTree.of_store(cache.store, target.tag, target.tree)
    old, new = (
        scanning.scan(tree, known, cover=covered, silences=silences, options=options, events=events)
        for tree, covered in (
            (at_pin, cover.at_pin(plan.start.patches, at_pin)),
            (at_target, cover.carried(plan.carried)),
        )
    )
    found = scanning.since(new, old)
    return ScanReport(
        tuple(_told(entry, known[entry.first.rule]) for entry in entries(found.findings)),
        tuple((reason.value, number) for reason, number in counts(found.judged).items()),
        found.seconds,
    )


def _told(entry: Entry, rule: Rule) -> FoundReport:
    first = entry.first
    return FoundReport(
        first.tier.value,
        first.stage.value,
        rule.id,
        rule.title,
        rule.error,
        rule.fix.strip(),
        plain(first.path),
        entry.lines,
        plain(first.excerpt),
    )
