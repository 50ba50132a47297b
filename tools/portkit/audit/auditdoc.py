"""The table in `docs/audit.md`: the verdicts at the pin, between two marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from portkit.audit.verdict import Level, Verdict
from portkit.change import durable
from portkit.errors import BadFile

FILE = "docs/audit.md"
_BEGIN = "<!-- audit: begin (written by `tools/audit.py --document`) -->"
_END = "<!-- audit: end -->"


def write(root: Path, tag: str, verdicts: Sequence[Verdict]) -> None:
    """Put the verdicts into the document of the repository at `root`; raises `BadFile`."""
    file = root / FILE
    text = file.read_text(encoding="utf-8")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise BadFile(FILE, None, f"needs one line `{_BEGIN}` and one line `{_END}`")
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    table = "\n".join(_table(tag, verdicts))
    durable.put(file, f"{before}{_BEGIN}\n{table}\n{_END}{after}".encode())


def _table(tag: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    counts = Counter(verdict.level for verdict in verdicts)
    summary = ", ".join(f"{counts[level]} {level.word}" for level in Level if counts[level])
    yield f"vLLM {tag}, {len(verdicts)} patches: {summary}."
    yield ""
    yield "| upstream file | level | what was compared | ROCm |"
    yield "|---|---|---|---|"
    for verdict in verdicts:
        evidence = verdict.evidence or verdict.doubt
        if verdict.waiver:
            evidence += f"; waived: {verdict.waiver}"
        cells = (f"`{verdict.path}`", f"{verdict.level} {verdict.level.word}", evidence)
        row = " | ".join(cell.replace("|", r"\|") for cell in (*cells, verdict.rocm))
        yield f"| {row} |"
