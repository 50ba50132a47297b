"""The result of a scan in SARIF 2.1.0, for the code-scanning views of git hosts and editors."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

from portkit.scan.judge import key
from portkit.scan.model import Judged, Reason, Tier
from portkit.scan.rules import Rule, Rules
from portkit.scan.scanning import Scan

_LEVELS = {Tier.CERTAIN: "error", Tier.LIKELY: "warning", Tier.POSSIBLE: "note"}
# A code-scanning view shows these as dismissed; the others are no findings to it.
_DISMISSED = (Reason.PATCHED, Reason.SILENCED, Reason.EXPLAINED)


def sarif(scan: Scan, rules: Rules) -> dict[str, Any]:
    """One run; a silenced, explained or patched finding is a suppressed result."""
    found = [one for one in scan.judged if one.reason is None or one.reason in _DISMISSED]
    used = sorted({one.finding.rule for one in found})
    numbers = {rule: number for number, rule in enumerate(used)}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "vllm-windows-build scan",
                        "rules": [_rule(rules[name]) for name in used],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "automationDetails": {"id": f"portability/{scan.name}"},
                "results": [_result(one, numbers) for one in found],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    code = f" ({rule.error})" if rule.error else ""
    return {
        "id": rule.id,
        "shortDescription": {"text": f"{rule.title}{code}"},
        "fullDescription": {"text": rule.why.strip()},
        "help": {"text": f"{rule.why.strip()}\n\nFix: {rule.fix.strip()}"},
        "defaultConfiguration": {"level": _LEVELS[rule.tier]},
        "properties": {"tags": ["windows", rule.language.value, rule.stage.value]},
    }


def _result(one: Judged, numbers: dict[str, int]) -> dict[str, Any]:
    finding = one.finding
    text = finding.detail or finding.excerpt
    mark = hashlib.sha256("\0".join(key(finding)).encode("utf-8", "replace")).hexdigest()
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": numbers[finding.rule],
        "level": _LEVELS[finding.tier],
        "message": {"text": text or finding.rule},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(finding.path), "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": finding.line, "startColumn": finding.column},
                }
            }
        ],
        "partialFingerprints": {"ruleAndLine/v1": mark},
    }
    if one.reason is not None:
        why = f"{one.reason.value}: {one.note}"
        result["suppressions"] = [{"kind": "external", "justification": why}]
    return result
