"""`series.py import`, `export` and `docs`: the series as one big patch, and the patch reference."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import date, datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portkit import console
from portkit.errors import BadInput, Exit
from portkit.model import Event
from portkit.series import GROUPS

if TYPE_CHECKING:
    from portkit import monolith

AUTHOR = "vllm-windows-build maintainers"


def add(subcommands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    """Add the commands of this module."""
    _add_import(subcommands, root)
    _add_export(subcommands, root)
    _add_docs(subcommands, root)


# import


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "import",
        help="split a git or unified diff against the pin into per-file patches",
        description="Split a git or unified diff into per-file patches with header stubs. Every "
        "file must apply exactly to the pinned source; nothing is written unless all do.",
    )
    parser.add_argument("patch", type=Path, metavar="MONOLITH.patch")
    parser.add_argument("--group", choices=GROUPS, help="put new patches here, not by their path")
    parser.add_argument(
        "--existing",
        choices=[choice.value for choice in monolith.Existing],
        default=monolith.Existing.REFUSE.value,
        help="what to do with files that are patched already (default: %(default)s)",
    )
    parser.add_argument("--author", default=AUTHOR, help="author of the new patches")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    console.add_upstream(parser)
    console.add_json(parser)


def _import(given: argparse.Namespace, root: Path) -> int:
    data = _read(given.patch)
    with console.repository(root) as journal, console.progress() as events:
        expect = fingerprint(root)
        pin = pinfile.read(root / pinfile.PIN_FILE)
        old = series.load(root)
        cache = Cache.default()
        tree = obtain(pin.tag, cache=cache, upstream=given.upstream, pins=[pin], events=events).tree
        with cache.store as store:
            events(Event(f"checking {given.patch.name} against {pin.tag}"))
            split = monolith.split(
                data,
                str(given.patch),
                monolith.Base(store, tree),
                old,
                existing=monolith.Existing(given.existing),
                group=given.group,
                author=given.author,
                today=_today(),
            )
            patched_tree = patched.patched_tree(store, tree, split.series.upstream)
        if not given.dry_run:
            moved = pinfile.render(replace(pin, patched_tree=patched_tree))
            files = {**series.changes(root, split.series), pinfile.PIN_FILE: moved}
            journal.switch(files, message=f"import of {given.patch.name}", expect=expect)
    _report(given, split)
    return Exit.OK


def _report(given: argparse.Namespace, split: monolith.Split) -> None:
    if given.json:
        console.print_json(
            "import",
            {
                "added": list(split.added),
                "changed": list(split.changed),
                "series": [patch.name for patch in split.series.patches],
                "written": not given.dry_run,
            },
        )
        return
    for word, names in (("added", split.added), ("changed", split.changed)):
        for name in names:
            print(f"{word:8}{name}")
    count = len(split.added) + len(split.changed)
    print(f"{count} patches {'would be ' if given.dry_run else ''}written")
    if split.added and not given.dry_run:
        print("fill in their headers: each TODO in patch_series/")


# export


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "export",
        help="the whole series as one patch for `git apply`",
        description="Write the whole series as one git patch on the pinned source.",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="not standard output")


def _export(given: argparse.Namespace, root: Path) -> int:
    console.settle(root)
    data = monolith.join(series.load(root), pinfile.read(root / pinfile.PIN_FILE))
    if given.output is None:
        console.write_bytes(data)
    else:
        given.output.write_bytes(data)
    return Exit.OK


# docs


def _add_docs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "docs",
        help=f"write {patchdoc.DOC_FILE} from the headers",
        description=f"Write {patchdoc.DOC_FILE} from the headers of the patches.",
    )
    parser.add_argument("--check", action="store_true", help="only say whether it is current")


def _docs(given: argparse.Namespace, root: Path) -> int:
    with console.repository(root) as journal:
        expect = fingerprint(root)
        pin = pinfile.read(root / pinfile.PIN_FILE)
        patches = series.load(root)
        if patchdoc.is_current(root, patches, pin):
            print(f"{patchdoc.DOC_FILE} is current")
            return Exit.OK
        if given.check:
            print(f"{patchdoc.DOC_FILE} is not what the headers say: run tools/series.py docs")
            return Exit.WAITING
        files = {patchdoc.DOC_FILE: patchdoc.render(patches, pin)}
        journal.switch(files, message="docs", expect=expect)
    print(f"wrote {patchdoc.DOC_FILE}")
    return Exit.OK


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from None


def _today() -> date:
    return datetime.now(timezone.utc).date()
