"""Every rule against its own snippets, through the real detectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from portkit.scan.detectors import Context, applicable, detectors
from portkit.scan.rules import Rule, Rules, Snippet, files_of, load
from portkit.scan.tree import SourceTree

ROOT = Path(__file__).resolve().parents[2]
RULES = load(ROOT)
ONLINE = {detector.name for detector in detectors() if detector.online}
SNIPPETS = [
    pytest.param(rule, snippet, kind == "bad", id=f"{rule.id}-{kind}{number}")
    for rule in RULES.values()
    if rule.detector not in ONLINE  # their own tests serve an index
    for kind, snippets in (("bad", rule.bad), ("good", rule.good))
    for number, snippet in enumerate(snippets, 1)
]


def found_in(rule: Rule, snippet: Snippet) -> bool:
    tree = SourceTree.of_files(files_of(rule, snippet))
    only = applicable(Rules({rule.id: rule}), tree)
    return any(
        finding.rule == rule.id
        for detector in detectors()
        for finding in detector.detect(Context(tree, only, offline=True))
    )


@pytest.mark.parametrize(("rule", "snippet", "expected"), SNIPPETS)
def test_rule_on_its_snippets(rule: Rule, snippet: Snippet, expected: bool) -> None:
    assert found_in(rule, snippet) is expected
