"""The pull request that proposes a port: title, branch and text, from what a refresh answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_BODY = 65_536  # characters a pull request's text may have
_CUT = "\n\n(The report goes on in `{report}` of this branch.)\n"

# What was known of the old release is not known of this one; `check` fails until it says so.
_EVIDENCE = (
    "- [ ] `tools/scan.py`: mend what breaks, or explain it in `patch_series/rules/silenced.toml`",
    "- [ ] `tools/audit.py`, `python -m kernel_tests --compile-only --record`, and the kernel "
    "tests on a GPU",
    "- [ ] `ci/status.py --write`",
)


@dataclass(frozen=True)
class Proposal:
    """A pull request to open; a draft while something waits for a person."""

    title: str
    branch: str
    body: str
    draft: bool


def proposal(result: Mapping[str, Any], report: str, report_path: str) -> Proposal:
    """The proposal for a refresh.

    `result` is the report as JSON (docs/report-schema.md), `report` the same as Markdown, and
    `report_path` the file of the branch that holds it whole.
    """
    tag = str(result["new_tag"])
    conflicts = [one for patch in result["patches"] for one in patch["conflicts"]]
    body = "\n".join([*_tasks(result, conflicts), "", report])
    if len(body) > LONGEST_BODY:
        cut = _CUT.format(report=report_path)
        body = body[: LONGEST_BODY - len(cut)].rpartition("\n### ")[0] + cut
    title = f"Port to vLLM {tag}"
    if conflicts:
        many = "conflict waits" if len(conflicts) == 1 else "conflicts wait"
        title += f": {len(conflicts)} {many}"
    return Proposal(title, f"port/{tag}", body, draft=bool(conflicts))


def _tasks(result: Mapping[str, Any], conflicts: list[dict[str, Any]]) -> Iterator[str]:
    """What a person has to do, as a task list."""
    if conflicts:
        tag = result["new_tag"]
        yield f"The series is not carried yet: run `tools/refresh.py --to {tag}` on this branch,"
        yield "settle these, then `tools/refresh.py --continue`, and push.\n"
    for one in conflicts:
        yield f"- [ ] settle `{one['path']}` line {one['line']}: {one['reason']} (`{one['patch']}`)"
    for patch in result["patches"]:
        for drop in patch["drops"]:
            place = f"`{drop['path']}` line {drop['line']}"
            yield f"- [ ] confirm the drop of {place}: {drop['why']} (`{patch['name']}`)"
    for use in result["stale"]:
        name = f"`{use['name']}` as it was before `{use['patch']}`"
        yield f"- [ ] `{use['path']}` line {use['line']} uses {name}: extend the series"
    yield "- [ ] read every hunk below that is not exact"
    yield from _EVIDENCE
