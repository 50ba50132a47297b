"""`tools/scan.py`: what of upstream's source will not build or run on Windows."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from portkit.commands.workbench import AUTHOR, bench, today
from portkit.errors import BadInput, Exit, Unavailable
from portkit.face import console
from portkit.model import Events
from portkit.patches import pin as pinfile
from portkit.port import porting
from portkit.scan import cover, fixing, page, rules, sarif, scanning, silence, text
from portkit.scan.cover import Cover
from portkit.scan.rules import Rule, Rules
from portkit.scan.scanning import AREAS, Options, Scan
from portkit.scan.tree import SourceTree
from portkit.upstream.cache import Cache
from portkit.upstream.source import obtain
from portkit.upstream.tags import normalise

_EXAMPLES = """\
examples:
  tools/scan.py                                the pinned release with the series
  tools/scan.py --tag v0.17.1 --since pin      what that release brings anew
  tools/scan.py --tag v0.33.0 --html -o scan.html
  tools/scan.py ../vllm --only csrc --quick    a source tree as it lies there
  tools/scan.py --explain cpp-uint             why a rule is there, and what it finds
"""


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Run the command for the repository at `root` and give its exit code."""
    given = _parse(arguments)
    console.settle(root)
    known = rules.load(root)
    if given.explain:
        _print(text.explained(_rule(known, given.explain)))
        return Exit.OK
    if given.list_rules:
        _print(f"{rule.tier.value:<9} {rule.id:<34} {rule.title}" for rule in known.values())
        return Exit.OK
    if given.fix:
        return _fix(given, root, known)
    found = _scanned(given, root, known)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    _show(given, found, known)
    return Exit.WAITING if found.certain or found.stale else Exit.OK


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = console.parser(
        "Find places in upstream's source that will not build or run on Windows and that no patch "
        "of the series covers.  Ends with 1 when one breaks for certain and is not explained.",
        prog="scan.py",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{_EXAMPLES}\n{parser.epilog}"
    what = parser.add_mutually_exclusive_group()
    what.add_argument("path", nargs="?", type=Path, metavar="PATH", help="a source tree, as it is")
    what.add_argument("--tag", metavar="TAG", help="a release (default: the pin)")
    parser.add_argument(
        "--since", metavar="TAG", help="only what is new since another release, or since the `pin`"
    )
    parser.add_argument(
        "--only", metavar="PARTS", help="parts of the tree: csrc, vllm, build, with commas"
    )
    parser.add_argument(
        "--no-series", action="store_true", help="upstream as if there were no series"
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out the type checker and the package index"
    )
    parser.add_argument("--offline", action="store_true", help="ask no package index")
    parser.add_argument("--aside", action="store_true", help="list what is set aside, and why")
    face = parser.add_mutually_exclusive_group()
    face.add_argument("--json", action="store_true", help="print the result as JSON")
    face.add_argument("--html", action="store_true", help="a page that sorts and filters")
    face.add_argument("--sarif", action="store_true", help="SARIF 2.1.0, for code-scanning views")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there, not here")
    parser.add_argument("--explain", metavar="RULE", help="print a rule, and end")
    parser.add_argument("--list-rules", action="store_true", help="print all rules, and end")
    parser.add_argument(
        "--fix", metavar="RULE", help="write the rule's rewrite into the series, at the pin"
    )
    console.add_upstream(parser)
    parser.set_defaults(work=None)
    given = parser.parse_args(arguments)
    if given.path is not None and given.since:
        parser.error("--since compares two releases, so it goes with --tag")
    if given.fix and (given.path is not None or given.tag or given.since):
        parser.error("--fix works on the pinned release, so it goes with neither PATH nor --tag")
    return given


def _rule(known: Rules, name: str) -> Rule:
    if name not in known:
        raise BadInput(f"there is no rule {name}", hint="scan.py --list-rules shows them")
    return known[name]


# scanning


def _options(given: argparse.Namespace) -> Options:
    areas = frozenset(given.only.split(",")) if given.only else frozenset(AREAS)
    if wrong := sorted(areas - frozenset(AREAS)):
        raise BadInput(
            f"--only {wrong[0]}: there is no such part", hint=f"one of {', '.join(AREAS)}"
        )
    return Options(
        areas=areas,
        slow=not given.quick,
        offline=given.offline,
        cache=Cache.default().path / "scan",
    )


def _scanned(given: argparse.Namespace, root: Path, known: Rules) -> Scan:
    options = _options(given)
    silences = silence.load(root, known)
    with console.progress(quiet=given.json) as events:
        if given.path is not None:
            tree = SourceTree.of_folder(given.path)
            return scanning.scan(tree, known, silences=silences, options=options, events=events)
        pin = pinfile.read(root / pinfile.PIN_FILE)
        tag = normalise(given.tag) if given.tag else pin.tag

        def one(tag: str) -> Scan:
            tree, covered = _release(given, root, tag, events)
            return scanning.scan(
                tree,
                known,
                cover=covered,
                silences=silences,
                options=replace(options, pin=tag == pin.tag and not given.no_series),
                events=events,
            )

        if not given.since:
            return one(tag)
        since = pin.tag if given.since == "pin" else normalise(given.since)
        if since == tag:
            raise BadInput(f"--since {since} is the release that is scanned")
        return scanning.since(one(tag), one(since))


def _release(
    given: argparse.Namespace, root: Path, tag: str, events: Events
) -> tuple[SourceTree, Cover]:
    """A release, and what the series covers of it."""
    cache = Cache.default()
    pins = [pinfile.read(root / pinfile.PIN_FILE)]
    source = obtain(tag, cache=cache, upstream=given.upstream, pins=pins, events=events)
    tree = SourceTree.of_store(cache.store, tag, source.tree)
    if given.no_series:
        return tree, Cover()
    return tree, cover.at(root, tag, tree, cache=cache, upstream=given.upstream, events=events)


# showing


def _show(given: argparse.Namespace, found: Scan, known: Rules) -> None:
    if given.json and given.output is None:
        console.print_json("scan", text.as_json(found, known, aside=given.aside))
        return
    written = _rendered(given, found, known)
    if given.output is None:
        print(written)
        return
    try:
        given.output.write_text(written + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise Unavailable(f"cannot write {given.output}: {error.strerror}") from None
    print(f"{next(iter(text.lines(found, known)))}: {given.output}")


def _rendered(given: argparse.Namespace, found: Scan, known: Rules) -> str:
    if given.json:
        return json.dumps({"schema": console.JSON_SCHEMA, **text.as_json(found, known)}, indent=2)
    if given.html:
        return page.html(found, known)
    if given.sarif:
        return json.dumps(sarif.sarif(found, known), indent=2)
    return "\n".join(text.lines(found, known, aside=given.aside))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


# fixing


def _fix(given: argparse.Namespace, root: Path, known: Rules) -> int:
    """Write the rewrite of a rule into the series; one step of the journal, so undo covers it."""
    rule = _rule(known, given.fix)
    with bench(given, root) as at:
        start = porting.read(root)
        upstream = SourceTree.of_store(at.stack.pristine.store, start.pin.tag, start.pin.tree)
        patched = cover.at_pin(start.patches, upstream).on(upstream)
        files = fixing.fixed_files(patched, rule, known)
        if not files:
            print(f"{rule.id} finds nothing in {start.pin.tag} that the series leaves")
            return Exit.OK
        edited = fixing.in_series(at.stack, rule, files, author=AUTHOR, today=today())
        at.do(at.stack.change(series=edited.series), f"scan --fix {rule.id}")
    for word, names in (("added", edited.added), ("changed", edited.changed)):
        for name in names:
            print(f"{word}  {name}")
    print("read them, then: tools/series.py lint (tools/series.py undo takes them back)")
    return Exit.OK
