"""`docs/status.md` and `docs/status.html`: the same table for a repository and for a browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from portkit.ci.status import Cell, Run, Status
from portkit.face import pages

MARKS = {"failed": "✗", "stale": "?", "part": "◐", "passed": "✓"}  # the worst first
LEGEND = (
    "Per architecture: C compiled, T tested on a GPU; ✓ passed, ✗ failed, ? run on other contents, "
    "◐ some of its units, · not run; no C where nvcc has no unit of it, an empty cell where the "
    "patch compiles to nothing."
)


def summary(status: Status) -> str:
    """One sentence."""
    levels = Counter((row.level, row.verdict) for row in status.rows)
    proved = ", ".join(f"{count} {verdict}" for (_, verdict), count in sorted(levels.items()))
    return f"vLLM {status.tag}: {len(status.rows)} patches apply; audit: {proved}."


def mark(cell: Cell) -> str:
    """A cell in a few characters: `C✓ T·`."""
    return " ".join(f"{letter}{_worst(found)}" for letter, found in columns(cell))


def columns(cell: Cell) -> list[tuple[str, tuple[Run, ...]]]:
    """The letters of a cell, with what ran: none where the patch has no part in it."""
    if not cell.concerned:
        return []
    compiled = [("C", cell.compiled)] if cell.units else []
    return [*compiled, ("T", cell.tested)]


def _worst(runs: tuple[Run, ...]) -> str:
    outcomes = {run.outcome for run in runs}
    return next((MARKS[one] for one in MARKS if one in outcomes), "·")


def runs(cell: Cell) -> str:
    """All that ran, for a tooltip."""
    listed = [("compiled", run) for run in cell.compiled] + [("tested", run) for run in cell.tested]
    return "; ".join(f"{what} on {run.where}: {run.outcome} ({run.note})" for what, run in listed)


def markdown(status: Status) -> str:
    """The page as Markdown."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: Status) -> Iterator[str]:
    yield "# Status"
    yield ""
    yield "Written by `ci/status.py --write`; the same as [a page](status.html) and as"
    yield "[data](status.json)."
    yield ""
    yield summary(status)
    yield f"Compiled on: {'; '.join(status.compilers) or 'no machine yet'}."
    yield f"Tested on: {'; '.join(status.gpus) or 'no GPU yet'}."
    yield LEGEND
    yield ""
    yield f"| patch | audit | {' | '.join(status.archs)} |"
    yield "|---|---|" + "---|" * len(status.archs)
    for row in status.rows:
        cells = " | ".join(mark(row.cells[arch]) for arch in status.archs)
        yield f"| `{row.path}` | {row.level} {row.verdict} | {cells} |"


def html(status: Status) -> str:
    """The page as one self-contained HTML file."""
    return pages.environment().get_template("status.html.j2").render(
        status=status, summary=summary(status), legend=LEGEND, columns=columns, runs=runs,
        style=pages.source("report.css"), worst=_worst,
    ) + "\n"  # fmt: skip
