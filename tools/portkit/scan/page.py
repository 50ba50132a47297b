"""The result of a scan as one self-contained HTML page that sorts and filters."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter

from portkit.face import pages
from portkit.scan.entries import entries
from portkit.scan.judge import area, counts
from portkit.scan.model import Stage, Tier
from portkit.scan.rules import Rules
from portkit.scan.scanning import AREAS, Scan


def html(scan: Scan, rules: Rules) -> str:
    """The page: no other files, readable without scripts, in light, dark and print."""
    shown = entries(scan.findings)
    script, style = pages.source("scan.js"), pages.source("report.css") + pages.source("scan.css")
    return (
        pages.environment()
        .get_template("scan.html.j2")
        .render(
            scan=scan,
            rules=rules,
            entries=shown,
            aside=counts(scan.judged),
            set_aside=[one for one in scan.judged if one.reason is not None],
            tiers=Counter(entry.first.tier for entry in shown),
            stages=Counter(entry.first.stage for entry in shown),
            parts=Counter(area(entry.first.path) for entry in shown),
            Tier=Tier,
            Stage=Stage,
            areas=AREAS,
            area=area,
            script=script,
            style=style,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
