"""One scan from its tree to its result, and the difference of two.

What detectors find is kept in the cache by the contents that were read, the rules and this code;
judging is quick and done anew, so that a silence or a patch shows at once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from portkit.change import durable
from portkit.model import Events, silent
from portkit.scan import silence
from portkit.scan.built import Build
from portkit.scan.cover import Cover
from portkit.scan.detectors import Context, Detector, applicable, detectors
from portkit.scan.judge import Judge, area, key, without
from portkit.scan.model import Finding, Judged, Reason, Stage, Tier
from portkit.scan.python_reach import reach_of
from portkit.scan.rules import Rules
from portkit.scan.silence import Silence
from portkit.scan.tree import SourceTree, is_shipped

AREAS = ("csrc", "vllm", "build")


@dataclass(frozen=True)
class Options:
    """What a scan looks at.

    `slow` runs the type checker and asks the package index; `areas` limits the parts of the tree;
    `cache` is the folder to keep results in, None to keep none.  `pin` says that the tree is the
    one that silences are kept for, so that one which silences nothing there is stale.
    """

    areas: frozenset[str] = frozenset(AREAS)
    slow: bool = True
    offline: bool = False
    cache: Path | None = None
    pin: bool = False


@dataclass(frozen=True)
class Scan:
    """The result: every finding judged, what counts first and in order of weight.

    `since` names the tree whose findings were taken out; `seconds` is the time it took; `notes`
    say what could not be looked at.
    """

    name: str
    judged: tuple[Judged, ...]
    seconds: float
    stale: tuple[Silence, ...] = ()
    since: str = ""
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What counts."""
        return tuple(one.finding for one in self.judged if one.reason is None)

    @property
    def explained(self) -> tuple[Judged, ...]:
        """What breaks and is left, each with the reason."""
        return tuple(one for one in self.judged if one.reason is Reason.EXPLAINED)

    @property
    def certain(self) -> bool:
        """Whether something that counts breaks for sure."""
        return any(finding.tier is Tier.CERTAIN for finding in self.findings)


def scan(
    tree: SourceTree,
    rules: Rules,
    *,
    cover: Cover | None = None,
    silences: Sequence[Silence] = (),
    options: Options | None = None,
    events: Events = silent,
) -> Scan:
    """Scan `tree` as the series in `cover` leaves it."""
    options = options or Options()
    cover = cover or Cover()
    begun = time.perf_counter()
    patched = cover.on(tree) if cover.files else tree
    judge = Judge(patched, rules, silences)
    notes: list[str] = []
    raw = _found(patched, rules, options, events, notes)
    found = [judge.judge(finding) for finding in reach_of(patched).placed(raw)]
    if cover.files:
        found = [replace(one, finding=cover.placed(one.finding)) for one in found]
        found += _covered(cover.untouched(tree), rules, cover, found, Build(tree))
    found = [one for one in found if area(one.finding.path) in options.areas]
    found.sort(key=lambda one: (one.reason is not None, one.finding.order))
    able = [one for one in silences if options.pin and _judgeable(one, rules, options, notes)]
    stale = silence.stale(able, [one.finding for one in found])
    seconds = time.perf_counter() - begun
    return Scan(tree.name, tuple(found), seconds, stale, notes=tuple(notes))


def since(new: Scan, old: Scan) -> Scan:
    """What of `new` is not in `old`."""
    before = [one.finding for one in old.judged]
    # What was explained is no news where it has moved to and counts again.
    moved = without(old.explained, (one.finding for one in new.explained))
    known = [*old.findings, *(one.finding for one in moved)]
    kept = without((one for one in new.judged if one.reason is None), known)
    aside = without((one for one in new.judged if one.reason is not None), before)
    return replace(
        new,
        judged=(*kept, *aside),
        seconds=new.seconds + old.seconds,
        since=old.name,
        notes=tuple(dict.fromkeys((*new.notes, *old.notes))),
    )


def _judgeable(silence: Silence, rules: Rules, options: Options, notes: Sequence[str]) -> bool:
    """Whether everything that the silence may be about was looked at."""
    slow = {one.name: one.online for one in detectors() if one.slow}
    online = slow.get(rules[silence.rule].detector or "")
    ran = online is None or (options.slow and not (online and notes))
    return ran and area(silence.path) in options.areas


def _covered(
    upstream: SourceTree, rules: Rules, cover: Cover, remaining: Sequence[Judged], build: Build
) -> list[Judged]:
    """The findings of upstream's files that the series has made an end of."""
    judge = Judge(upstream, rules, build=build)
    raw = _found(upstream, rules, Options(slow=False), silent, [])
    left = {key(one.finding) for one in remaining if one.reason is None}
    return [
        Judged(finding, Reason.PATCHED, cover.patches(finding.path))
        for finding in raw
        if finding.path in cover.files
        if key(finding) not in left and judge.judge(finding).reason is None
    ]


# running detectors


def _found(
    tree: SourceTree, rules: Rules, options: Options, events: Events, notes: list[str]
) -> tuple[Finding, ...]:
    found: list[Finding] = []
    rules = applicable(rules, tree)
    for detector in detectors():
        if options.slow or not detector.slow:
            context = Context(tree, rules, events, options.cache, options.offline, notes.append)
            kept = _kept(detector, context)
            found += [finding for finding in kept if is_shipped(finding.path)]
    return tuple(found)


def _kept(detector: Detector, context: Context) -> Sequence[Finding]:
    """What a detector finds, from the cache where the same was read before."""
    identity, cache = context.tree.identity, context.cache
    if cache is None or not identity or detector.slow:
        return tuple(detector.detect(context))  # slow ones keep their own results
    name = hashlib.sha256(
        "\0".join((detector.name, identity, context.rules.digest, _code_digest())).encode()
    ).hexdigest()
    file = cache / f"{name}.json"
    known = _read(file)
    if known is None:
        known = tuple(detector.detect(context))
        durable.put(file, json.dumps([_plain(finding) for finding in known]).encode())
    return known


def _read(file: Path) -> tuple[Finding, ...] | None:
    """Findings kept earlier; None for a file that is missing or not ours."""
    try:
        return tuple(_finding(value) for value in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _plain(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "tier": finding.tier.value, "stage": finding.stage.value}


def _finding(value: Mapping[str, Any]) -> Finding:
    return Finding(**{**value, "tier": Tier(value["tier"]), "stage": Stage(value["stage"])})


def _code_digest() -> str:
    """Changes with this package, so that an old result never passes for a new one."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
