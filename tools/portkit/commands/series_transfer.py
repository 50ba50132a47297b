"""`series.py import`, `export` and `docs`: the series as one big patch, and the patch reference."""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from datetime import date, datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.commands.arguments import add_patch, subcommand
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.model import Event
from portkit.patches.series import GROUPS

if TYPE_CHECKING:
    from portkit.model import Patch
    from portkit.patches import monolith
    from portkit.patches.outgoing import Sender

AUTHOR = "vllm-windows-build maintainers"


def add(subcommands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    """Add the commands of this module."""
    _add_import(subcommands, root)
    _add_export(subcommands, root)
    _add_docs(subcommands, root)


# import


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    parser = subcommand(
        commands,
        "import",
        "split a git or unified diff against the pin into per-file patches",
        "series.py import all.patch --dry-run",
        description="Split a git or unified diff into per-file patches with header stubs. Every "
        "file must apply exactly to the pinned source; nothing is written unless all do.",
    )
    parser.add_argument("patch", type=Path, metavar="MONOLITH.patch")
    parser.add_argument("--group", choices=GROUPS, help="put new patches here, not by their path")
    parser.add_argument(
        "--existing",
        choices=("refuse", "merge", "replace"),
        default="refuse",
        help="what to do with files that are patched already (default: %(default)s)",
    )
    parser.add_argument("--author", default=AUTHOR, help="author of the new patches")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    console.add_upstream(parser)
    console.add_json(parser)
    parser.set_defaults(run=partial(_import, root=root))


def _import(given: argparse.Namespace, root: Path) -> int:
    from portkit.change.journal import fingerprint  # noqa: PLC0415
    from portkit.patches import monolith, patchdoc, patched, series  # noqa: PLC0415
    from portkit.patches import pin as pinfile  # noqa: PLC0415
    from portkit.upstream.source import Cache, obtain  # noqa: PLC0415

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
            moved = replace(pin, patched_tree=patched_tree)
            files = {
                **series.changes(root, split.series),
                pinfile.PIN_FILE: pinfile.render(moved),
                patchdoc.DOC_FILE: patchdoc.render(split.series, moved),
            }
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


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    parser = subcommand(
        commands,
        "export",
        "the whole series as one patch for `git apply`, or patches as mails for upstream",
        "series.py export -o series.patch",
        "series.py export --upstream math.hpp -o outgoing",
        description="Write the whole series as one git patch on the pinned source; or with "
        "--upstream each patch as a mail for `git am`: the change and its reasons, without the "
        "fields that are of use here alone.",
    )
    add_patch(parser, "*")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PLACE",
        help="a file, or with --upstream a folder; not standard output",
    )  # fmt: skip
    mails = parser.add_argument_group("with --upstream")
    mails.add_argument("--upstream", action="store_true", help="mails, fit to be sent upstream")
    mails.add_argument("--author", metavar="WHO", help="Name <mail@example.org>, for all of them")
    mails.add_argument("--signoff", action="store_true", help="add your Signed-off-by")
    mails.add_argument("--source", type=Path, metavar="PATH", help="where upstream's source is")
    parser.set_defaults(run=partial(_export, root=root))


def _export(given: argparse.Namespace, root: Path) -> int:
    from portkit.patches import monolith, series  # noqa: PLC0415
    from portkit.patches import pin as pinfile  # noqa: PLC0415

    if given.upstream:
        return _export_mails(given, root)
    if given.patch:
        raise BadInput(
            "without --upstream the whole series is exported",
            hint="tools/series.py diff PATCH writes the change of one patch",
        )
    console.settle(root)
    data = monolith.join(series.load(root), pinfile.read(root / pinfile.PIN_FILE))
    if given.output is None:
        console.write_bytes(data)
    else:
        given.output.write_bytes(data)
    return Exit.OK


def _export_mails(given: argparse.Namespace, root: Path) -> int:
    from portkit.patches import outgoing, series  # noqa: PLC0415
    from portkit.patches import pin as pinfile  # noqa: PLC0415
    from portkit.patches.choose import choose  # noqa: PLC0415
    from portkit.upstream.pristine import Pristine  # noqa: PLC0415

    console.settle(root)
    patches = series.load(root).upstream
    if given.patch:
        chosen = [choose(patches, name) for name in given.patch]
    else:
        chosen = outgoing.forwardable(patches)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    mails: list[tuple[str, bytes]] = []
    with Pristine(pin, upstream=given.source, progress=console.progress) as old:
        for number, patch in enumerate(chosen, 1):
            data = outgoing.mail(
                patch,
                old,
                sender=_sender(given, patch),
                sign_off=given.signoff,
                number=number,
                total=len(chosen),
            )
            mails.append((outgoing.file_name(patch, number), data))
    if given.output is None:
        console.write_bytes(b"".join(data for _, data in mails))
        return Exit.OK
    given.output.mkdir(parents=True, exist_ok=True)
    for name, data in mails:
        (given.output / name).write_bytes(data)
        print(given.output / name)
    return Exit.OK


def _sender(given: argparse.Namespace, patch: Patch) -> Sender:
    """Who sends: as the person says, as the header says, as their git knows them."""
    from portkit.patches import header, outgoing  # noqa: PLC0415

    if given.author is not None:
        return outgoing.Sender.parse(given.author)
    author = header.parse(patch.header).author
    if "@" in author:
        return outgoing.Sender.parse(author)
    found = []
    for key in ("user.name", "user.email"):
        done = subprocess.run(["git", "config", key], capture_output=True, check=False)
        found.append(done.stdout.decode("utf-8", "replace").strip())
    return outgoing.Sender.parse(f'"{found[0]}" <{found[1]}>' if found[1] else author)


# docs


def _add_docs(commands: argparse._SubParsersAction[argparse.ArgumentParser], root: Path) -> None:
    parser = subcommand(
        commands,
        "docs",
        "write docs/patches.md from the headers",
        "series.py docs --check",
        description="Write docs/patches.md from the headers of the patches.",
    )
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    parser.set_defaults(run=partial(_docs, root=root))


def _docs(given: argparse.Namespace, root: Path) -> int:
    from portkit.change.journal import fingerprint  # noqa: PLC0415
    from portkit.patches import patchdoc, series  # noqa: PLC0415
    from portkit.patches import pin as pinfile  # noqa: PLC0415

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
