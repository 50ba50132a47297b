"""`ci/status.py`: the status page, from what the cells and the GPUs left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from portkit.audit import records, tested
from portkit.audit.audit import Audit
from portkit.audit.level2 import ARCHS, SameCode
from portkit.audit.records import Records
from portkit.audit.sources import Sources
from portkit.change import durable
from portkit.ci import plan as planfile
from portkit.ci import results, statuspage
from portkit.ci.status import Evidence, Status, status
from portkit.errors import Exit
from portkit.face import console
from portkit.kernels import manifest as kernelmanifest
from portkit.kernels import results as kernelresults
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.upstream.pristine import Pristine

FILES = ("docs/status.json", "docs/status.md", "docs/status.html")


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Show, write or check the status of the repository at `root`."""
    parser = console.parser(
        "What is known of each patch on each architecture: whether it applies, its audit, where it "
        "compiled, on which GPU it was tested.",
        prog="status.py",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"write {', '.join(FILES)}")
    what.add_argument("--check", action="store_true", help="end with 1 if one of them is not as is")
    console.add_upstream(parser)
    console.add_json(parser)
    given = parser.parse_args(arguments)
    console.settle(root)
    found = _status(root, given.upstream)
    texts = (_json(found), statuspage.markdown(found), statuspage.html(found))
    files = {root / name: text.encode() for name, text in zip(FILES, texts, strict=True)}
    if given.write:
        for file, data in files.items():
            durable.put(file, data)
    if given.check:
        old = [file.name for file, data in files.items() if _lines(file) != data.splitlines()]
        if old:
            print(f"{', '.join(old)}: not up to date; ci/status.py --write brings them up to date")
            return Exit.WAITING
    print(_json(found) if given.json else statuspage.summary(found))
    return Exit.OK


def _status(root: Path, upstream: Path | None) -> Status:
    """The status, from recorded evidence alone."""
    pin = pinfile.read(root / pinfile.PIN_FILE)
    patches = series.load(root).upstream
    with (
        Pristine(pin, upstream=upstream, progress=console.progress) as pristine,
        console.progress() as events,
    ):
        sources = Sources(pristine.store, pin.tree, patches)
        known = records.read(root)
        recorded = SameCode(
            sources.upstream, sources.patched, known, None,
            missing="it is not recorded", events=events,
        )  # fmt: skip
        results_of = tested.results(root, pin.tag)
        audit = Audit(sources, recorded, _recorded_archs(known), results_of, events)
        verdicts = {verdict.patch: verdict for verdict in audit.run(patches)}
    evidence = Evidence(
        root,
        pin.tag,
        kernelmanifest.load(root),
        results.read_all(root),
        tuple(kernelresults.read_all(root).values()),
    )
    return status(planfile.read(root).architectures, patches, verdicts, evidence)


def _recorded_archs(known: Records) -> tuple[str, ...]:
    """The architectures that the most units were compared for: those the record speaks of."""
    counts = Counter(arch for unit in known.units for arch in unit.archs)
    most = max(counts.values(), default=0)
    return tuple(arch for arch in ARCHS if counts[arch] == most)


def _json(found: Status) -> str:
    return json.dumps(found.as_json(), indent=1) + "\n"


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines() if file.is_file() else []
