"""`tools/audit.py`: the proof, patch by patch, that the series changes nothing on Linux."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portkit.audit import auditdoc, records, tested
from portkit.audit.audit import Audit, no_results
from portkit.audit.level2 import ARCHS, SameCode
from portkit.audit.records import Records
from portkit.audit.sources import Sources
from portkit.audit.verdict import Level, Verdict
from portkit.commands.arguments import PATCH_HELP
from portkit.cuda import nvcc, toolkits, torchheaders
from portkit.cuda.includes import Read
from portkit.cuda.nvcc import Environment
from portkit.errors import BadInput, Exit, Unavailable
from portkit.face import console
from portkit.model import Events, Patch
from portkit.patches import pin as pinfile
from portkit.patches import series
from portkit.upstream.pristine import Pristine

_DESCRIPTION = """\
Prove that the series changes nothing where the system is not Windows, and say how each patch was
proved: identical with the Windows guards folded (1), the same code made of another text (2), or
tested equal on a GPU (3).  A patch with none of these is unproved, and the command ends with 1.
"""
_EXAMPLES = """\
examples:
  tools/audit.py                       the series at its pin
  tools/audit.py --level 1             without compiling anything, in seconds
  tools/audit.py --patch math.hpp      one patch
  tools/audit.py --fresh --arch 9.0    compile for one architecture, whatever is recorded
"""


def main(arguments: Sequence[str], root: Path = console.ROOT) -> int:
    """Audit the series of the repository at `root`."""
    given = _parser().parse_args(arguments)
    console.settle(root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    listed = series.load(root).upstream
    chosen = _chosen(listed, given.patch)
    known = records.read(root)
    started = time.monotonic()
    with (
        Pristine(pin, upstream=given.upstream, progress=console.progress) as pristine,
        console.progress() as events,
    ):
        sources = Sources(pristine.store, pin.tree, listed)
        same_code = None
        if given.level >= Level.SAME_CODE:
            can = _compilers(sources.upstream, given, events)
            same_code = SameCode(
                sources.upstream,
                sources.patched,
                known,
                can.environment,
                missing=can.missing,
                jobs=given.jobs,
                fresh=given.fresh,
                events=events,
            )
        results = tested.results(root, pin.tag) if given.level >= Level.TESTED else no_results
        audit = Audit(sources, same_code, tuple(given.arch or ARCHS), results, events)
        verdicts = audit.run(chosen)
    seconds = time.monotonic() - started
    if given.record:
        _record(root, known, same_code, whole=given.patch is None)
    if given.document:
        _document(root, pin.tag, verdicts, given.patch)
    if given.json:
        console.print_json("audit", _as_json(pin.tag, verdicts, seconds))
    else:
        _print(verdicts, seconds)
    return Exit.WAITING if any(verdict.fails for verdict in verdicts) else Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        _DESCRIPTION, prog="audit.py", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.epilog = f"{_EXAMPLES}\n{parser.epilog}"
    parser.add_argument("--patch", metavar="PATCH", help=PATCH_HELP)
    parser.add_argument(
        "--level", type=int, choices=(1, 2, 3), default=3,
        help="the weakest level to try (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--arch", action="append", metavar="ARCH",
        help="compare compiled code for this architecture alone (9.0); may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--fresh", action="store_true", help="compile also what the recorded evidence covers"
    )
    parser.add_argument(
        "--jobs", type=int, default=_jobs(), metavar="N",
        help=f"units to compile at a time (default: {_jobs()})",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true", help=f"write what was compared to {records.FILE}"
    )
    parser.add_argument(
        "--document", action="store_true", help=f"write the table to {auditdoc.FILE}"
    )
    console.add_upstream(parser)
    console.add_json(parser)
    return parser


def _jobs() -> int:
    return max(1, (os.cpu_count() or 1))


def _chosen(patches: Sequence[Patch], name: str | None) -> Sequence[Patch]:
    if name is None:
        return patches
    fitting = [p for p in patches if name in (p.name, p.path)]
    fitting = fitting or [p for p in patches if f"/{p.path}".endswith(f"/{name.lstrip('/')}")]
    if len(fitting) == 1:
        return fitting
    if not fitting:
        raise BadInput(f"no patch is called {name}", hint="tools/series.py series lists them")
    both = " and ".join(p.name for p in fitting[:2])
    raise BadInput(f"{name} may be {both}", hint="give more of its path")


@dataclass(frozen=True)
class _Compilers:
    environment: Environment | None
    missing: str


def _compilers(read: Read, given: argparse.Namespace, events: Events) -> _Compilers:
    """What can compile here; where nothing can, why, in one clause for the report."""
    toolkit = toolkits.first()
    if toolkit is None:
        return _Compilers(None, "there is no nvcc here")
    try:
        torch = torchheaders.pinned_torch(read(torchheaders.REQUIREMENTS) or b"")
        return _Compilers(nvcc.environment(toolkit, torch, events=events), "")
    except Unavailable as error:
        return _Compilers(None, error.message)


def _record(root: Path, known: Records, same_code: SameCode | None, *, whole: bool) -> None:
    """Write what holds for the contents that were audited, and what was found just now.

    After an audit of one patch all other records are kept too.
    """
    if same_code is None:
        raise BadInput("--record needs level 2", hint="leave --level out")
    used = Records(
        units=tuple(one for one in known.units if one.key in same_code.asked_units),
        dispatches=tuple(same_code.used_dispatches),
        generators=tuple(same_code.used_generators),
    )
    kept = used if whole else known
    made = {one.key: one for one in (*kept.generators, *same_code.made_generators)}
    launched = {one.key: one for one in (*kept.dispatches, *same_code.made_dispatches)}
    records.write(
        root,
        Records(
            units=records.merged([*kept.units, *same_code.made_units]),
            dispatches=tuple(launched.values()),
            generators=tuple(made.values()),
        ),
    )


def _document(root: Path, tag: str, verdicts: Sequence[Verdict], patch: str | None) -> None:
    if patch is not None:
        raise BadInput("--document needs the whole series", hint="leave --patch out")
    auditdoc.write(root, tag, verdicts)


def _print(verdicts: Sequence[Verdict], seconds: float) -> None:
    for verdict in verdicts:
        print(f"{verdict.level}  {verdict.level.word:12}  {verdict.path}")
        for note in _notes(verdict):
            print(f"{'':17}{note}")
    counts = Counter(verdict.level for verdict in verdicts)
    summary = ", ".join(f"{counts[level]} {level.word}" for level in Level if counts[level])
    print(f"{len(verdicts)} patches: {summary} ({seconds:.1f} s)")


def _notes(verdict: Verdict) -> list[str]:
    notes = [verdict.evidence, f"ROCm: {verdict.rocm}" if verdict.rocm else ""]
    if verdict.level >= Level.UNPROVED:
        notes.append(verdict.doubt)
    if verdict.waiver:
        notes.append(f"waived: {verdict.waiver}")
    return [note for note in notes if note]


def _as_json(tag: str, verdicts: Sequence[Verdict], seconds: float) -> dict[str, Any]:
    listed = [
        {
            "patch": verdict.patch,
            "path": verdict.path,
            "level": int(verdict.level),
            "verdict": verdict.level.word,
            "evidence": verdict.evidence,
            "doubt": verdict.doubt,
            "rocm": verdict.rocm,
            "waiver": verdict.waiver,
            "fails": verdict.fails,
        }
        for verdict in verdicts
    ]
    return {"tag": tag, "seconds": round(seconds, 2), "patches": listed}
