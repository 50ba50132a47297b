"""The portability scan over upstream's releases, and how often its findings are right.

`python benchmarks/scan.py releases v0.16.0 v0.17.0 …` scans each release with the series carried to
it, and prints a table; `python benchmarks/scan.py precision` prints what reading findings by hand
gave (`benchmarks/scan_reviewed*.toml`).  Both tables stand in docs/scan.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import tomli

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks.inputs import ROOT
from portkit.errors import BadFile
from portkit.face import console
from portkit.scan import cover, rules, scanning, silence
from portkit.scan.entries import entries
from portkit.scan.judge import area, counts
from portkit.scan.model import Reason, Tier
from portkit.scan.scanning import AREAS, Options, Scan
from portkit.scan.tree import SourceTree
from portkit.upstream.cache import Cache
from portkit.upstream.source import obtain
from portkit.upstream.tags import normalise

REVIEWS = "scan_reviewed*.toml"
GONE = "not reported any more"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and give its exit code."""
    parser = console.parser(__doc__.partition("\n")[0], prog="scan.py")
    commands = parser.add_subparsers(dest="command", required=True)
    releases = commands.add_parser("releases", help="scan releases, one row each")
    releases.add_argument("tags", nargs="+", metavar="TAG")
    releases.add_argument("--slow", action="store_true", help="run the type checker as well")
    commands.add_parser("precision", help="how often findings that were read are right")
    given = parser.parse_args(arguments)
    lines = _releases(given) if given.command == "releases" else _precision()
    for line in lines:
        print(line, flush=True)
    return 0


def _releases(given: argparse.Namespace) -> Iterator[str]:
    names = ["release", "entries", *(tier.value for tier in Tier), *AREAS, "new"]
    names += ["covered", "not built", "guarded", "s", "processor s"]
    yield f"| {' | '.join(names)} |"
    yield "|---|" + "--:|" * (len(names) - 1)
    previous: Scan | None = None
    for tag in map(normalise, given.tags):
        begun, used = time.perf_counter(), _processor()
        scan = _scan(tag, slow=given.slow)
        took = time.perf_counter() - begun, _processor() - used
        yield _row(tag, scan, previous, took)
        previous = scan


def _scan(tag: str, *, slow: bool, kept: bool = False) -> Scan:
    """A scan of a release with the series; `kept` takes what earlier scans kept."""
    cache = Cache.default()
    known = rules.load(ROOT)
    source = obtain(tag, cache=cache)
    tree = SourceTree.of_store(cache.store, tag, source.tree)
    covered = cover.at(ROOT, tag, tree, cache=cache)
    silences = silence.load(ROOT, known)
    options = Options(slow=slow, cache=cache.path / "scan" if kept else None)
    return scanning.scan(tree, known, cover=covered, silences=silences, options=options)


def _processor() -> float:
    """Seconds of processors that this process and its finished children have used."""
    return sum(os.times()[:4])


def _row(tag: str, scan: Scan, previous: Scan | None, took: tuple[float, float]) -> str:
    found = entries(scan.findings)
    tiers = Counter(entry.first.tier for entry in found)
    areas = Counter(area(entry.first.path) for entry in found)
    aside = counts(scan.judged)
    fresh = "" if previous is None else len(entries(scanning.since(scan, previous).findings))
    cells = [
        tag,
        len(found),
        *(tiers[tier] for tier in Tier),
        *(areas[name] for name in AREAS),
        fresh,
        *(aside.get(reason, 0) for reason in (Reason.PATCHED, Reason.NOT_BUILT, Reason.GUARDED)),
        *(f"{seconds:.0f}" for seconds in took),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _precision() -> Iterator[str]:
    """Right findings of those that were read, by release and tier, as today's rules report them."""
    by_tag: dict[str, list[dict[str, str]]] = defaultdict(list)
    for file in sorted((ROOT / "benchmarks").glob(REVIEWS)):
        for entry in _reviews(file):
            by_tag[entry["tag"]].append(entry)
    by_rule: dict[str, list[bool]] = defaultdict(list)
    yield "| release | tier | read | right | precision |"
    yield "|---|---|--:|--:|--:|"
    for tag, read in sorted(by_tag.items(), reverse=True):
        tiers = _reported(_scan(tag, slow=True, kept=True))
        by_tier: dict[str, list[bool]] = defaultdict(list)
        for entry in read:
            right = entry["verdict"] == "true"
            tier = tiers.get((entry["rule"], entry["path"], int(entry["line"])), GONE)
            by_tier[tier].append(right)
            if tier is not GONE:
                by_rule[entry["rule"]].append(right)
        for tier in (*(tier.value for tier in Tier), GONE):
            if verdicts := by_tier[tier]:
                share = f"{100 * sum(verdicts) / len(verdicts):.0f}%"
                yield f"| {tag} | {tier} | {len(verdicts)} | {sum(verdicts)} | {share} |"
    yield ""
    for name, verdicts in sorted(by_rule.items()):
        yield f"{name}: {sum(verdicts)} of {len(verdicts)}"


def _reported(scan: Scan) -> dict[tuple[str, str, int], str]:
    """The tier of each finding that a rule stands for, by rule and place."""
    return {
        (one.finding.rule, one.finding.path, one.finding.line): one.finding.tier.value
        for one in scan.judged
        if one.reason not in (Reason.NOT_BUILT, Reason.GUARDED)
    }


def _reviews(file: Path) -> Iterator[dict[str, str]]:
    for entry in tomli.loads(file.read_text("utf-8"))["finding"]:
        if entry.get("verdict") not in ("true", "false"):
            raise BadFile(file.name, None, f"{entry.get('path')}: verdict is not true or false")
        yield entry


if __name__ == "__main__":
    sys.exit(console.run(main))
