"""A result for people: lines for a terminal, one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import jinja2

from portkit.kernels.manifest import Manifest
from portkit.kernels.results import Engine, KernelResult, Result, Sanitizer, Timing, UpstreamTests

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Kernels on {{ r.gpu.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
table { border-collapse: collapse; width: 100%; margin: 1em 0 }
th, td { border-bottom: 1px solid #ccc; padding: .3em .6em; text-align: left; vertical-align: top }
.failed, .SURVIVED { color: #b00020; font-weight: bold } .passed, .killed { color: #1b6e2f }
</style>
<h1>Kernels of vLLM {{ r.tag }} on {{ r.gpu.name }}</h1>
<p>Compute capability {{ r.gpu.capability }}, driver {{ r.gpu.driver }}, CUDA {{ r.gpu.cuda }},
torch {{ r.gpu.torch }}, {{ r.date }}, seed {{ r.seed }}, against {{ r.against }}.</p>
<table><tr><th>kernel<th>outcome<th>cases<th>worst error<th>slowest ratio<th>upstream's tests</tr>
{% for row in rows %}<tr><td>{{ row.name }}<td class="{{ row.outcome }}">{{ row.outcome }}
<td>{{ row.cases }}<td>{{ row.error }}<td>{{ row.ratio }}<td>{{ row.upstream }}</tr>
{% endfor %}</table>
{% if faults %}<h2>Faults</h2><ul>{% for one in faults %}<li>{{ one }}{% endfor %}</ul>{% endif %}
{% if r.mutants %}<h2>Mutants</h2>
<table><tr><th>mutant<th>patch<th>verdict<th>noticed by</tr>
{% for m in r.mutants %}<tr><td>{{ m.name }}<td>{{ m.patch }}
{% set verdict = "killed" if m.killed else "SURVIVED" %}
<td class="{{ verdict }}">{{ verdict }}<td>{{ m.by }}</tr>
{% endfor %}</table>{% endif %}
{% if r.sanitizer %}<h2>compute-sanitizer</h2><ul>
{% for s in r.sanitizer %}<li>{{ s.tool }}, {{ s.cases }} cases: {{ s.summary }}
{%- if s.upstream_summary %}; upstream's build: {{ s.upstream_summary }}{% endif %}{% endfor %}</ul>
{% endif %}
{% if r.engine %}<h2>Engine</h2><ul>
{% for e in r.engine %}<li>{{ engine(e) }}{% endfor %}</ul>{% endif %}
</html>
"""


def lines(result: Result, manifest: Manifest) -> Iterator[str]:
    """The result as a table and its faults."""
    gpu = result.gpu
    yield (
        f"vLLM {result.tag} on {gpu.name} ({gpu.capability}), driver {gpu.driver}, "
        f"CUDA {gpu.cuda}, torch {gpu.torch}, --seed {result.seed}"
    )
    rows = [_row(name, kernel) for name, kernel in result.kernels.items()]
    heads = {"name": "kernel", "outcome": "outcome", "cases": "cases", "error": "error",
             "ratio": "speed", "upstream": "upstream's tests"}  # fmt: skip
    widths = {key: max(len(row[key]) for row in [heads, *rows]) for key in heads}
    for row in [heads, *rows]:
        yield "  ".join(f"{row[key]:{widths[key]}}" for key in heads).rstrip()
    for name, kernel in manifest.kernels.items():
        if name in result.kernels and not kernel.runs_on(gpu.capability):
            archs = ", ".join(kernel.archs)
            yield f"note: upstream builds {name} for {archs} alone; here it was forced"
    if result.mutants:
        killed = sum(one.killed for one in result.mutants)
        yield f"{killed} of {len(result.mutants)} mutants killed"
    for run in result.sanitizer:
        beside = f"; upstream's build: {run.upstream_summary}" if run.upstream_summary else ""
        yield f"{run.tool}, {run.cases} cases: {run.summary}{beside}"
    yield from map(_engine, result.engine)
    yield from faults(result)


def html(result: Result) -> str:
    """The result as a page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rows = [_row(name, kernel) for name, kernel in result.kernels.items()]
    return environment.from_string(_PAGE).render(
        r=result, rows=rows, faults=faults(result), engine=_engine
    )


def faults(result: Result) -> list[str]:
    """What must not be, one sentence each."""
    found: list[str] = []
    for name, kernel in result.kernels.items():
        for case in kernel.cases:
            if case.outcome == "failed":
                found.append(f"{case.case}: {case.message}")
            found += [_slow(name, timing) for timing in case.timings if timing.slower]
        if kernel.upstream_tests is not None:
            found += [f"upstream's {name}: {one}" for one in kernel.upstream_tests.failures]
    found += [f"mutant {one.name} survived" for one in result.mutants if not one.killed]
    found += [f"{run.tool}: {run.summary}{_beside(run)}" for run in result.sanitizer if run.worse]
    found += [_engine(one) for one in result.engine if not one.equal]
    return found


def _row(name: str, kernel: KernelResult) -> dict[str, str]:
    outcomes = Counter(case.outcome for case in kernel.cases)
    errors = [check.error for case in kernel.cases for check in case.checks]
    timings = [timing for case in kernel.cases for timing in case.timings]
    slowest = max(timings, key=lambda one: one.ratio, default=None)
    tests = kernel.upstream_tests
    return {
        "name": name,
        "outcome": kernel.outcome,
        "cases": ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()),
        "error": f"{max(errors):.2f} of allowed" if errors else "",
        "ratio": f"{slowest.ratio:.3f} ± {slowest.noise:.3f}" if slowest else "",
        "upstream": _counts(tests) if tests else "",
    }


def _counts(tests: UpstreamTests) -> str:
    kinds = {"passed": tests.passed, "failed": tests.failed, "skipped": tests.skipped}
    kinds["not set up"] = tests.broken
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)


def _beside(run: Sanitizer) -> str:
    if run.upstream is None:
        return "; upstream's build was not asked"
    return f"; upstream's build has {run.upstream}"


def _engine(run: Engine) -> str:
    if run.message:
        return f"engine, {run.model}: {run.message}"
    verdict = "are" if run.equal else "are NOT"
    return (
        f"engine, {run.model}: {run.tokens} greedy tokens ({run.distinct} different ones) "
        f"{verdict} those of upstream's build, log-probabilities {run.difference:.2g} apart at most"
    )


def _slow(name: str, timing: Timing) -> str:
    return (
        f"{name}: {timing.op} on {timing.what} takes {timing.ratio:.3f} of upstream's time, "
        f"which is within {timing.noise:.3f} of itself"
    )
