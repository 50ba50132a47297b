"""Which findings count: the one place where a finding is set aside, each time with the evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from portkit.scan.buildfiles import CmakeGuards
from portkit.scan.built import Build
from portkit.scan.cppguards import CppGuards
from portkit.scan.model import Finding, Judged, Language, Reason, Stage
from portkit.scan.python_reach import reach_of
from portkit.scan.rules import Rules
from portkit.scan.silence import Silence
from portkit.scan.tree import SourceTree, language_of

_OTHER_DEVICES = re.compile(
    r"(?:^|/)(?:csrc/(?:rocm|cpu)/|platforms/(?:rocm|cpu|xpu|tpu|hpu|zen_cpu)\.py|amd/|rocm/|xpu/|tpu/)"
    r"|(?:^|[/_.])(?:rocm|rdna|aiter|xpu|tpu|hpu|gfx\w+)(?:[/_.]|$)"
    r"|worker/cpu_|backends/cpu_|cmake/(?:cpu_extension|hipify)|requirements/\w*(?:cpu|rocm|xpu|tpu)"
)
_RUST_TESTS = re.compile(r"/(?:tests|benches|examples)/|/tests\.rs$")


def area(path: str) -> str:
    """The part of the tree a path belongs to: `csrc`, `vllm` or `build`."""
    top = path.partition("/")[0]
    return top if top in ("csrc", "vllm") and not path.endswith("generate_kernels.py") else "build"


class Judge:
    """Judges findings of one tree."""

    def __init__(
        self,
        tree: SourceTree,
        rules: Rules,
        silences: Sequence[Silence] = (),
        build: Build | None = None,
    ) -> None:
        self._tree = tree
        self._rules = rules
        self._silences = silences
        self._build = build or Build(tree)
        self._cpp: dict[str, CppGuards] = {}
        self._cmake: dict[str, CmakeGuards] = {}

    def judge(self, finding: Finding) -> Judged:
        """A finding with the reason for which it is set aside, if there is one."""
        path = finding.path
        if _OTHER_DEVICES.search(path):
            return Judged(finding, Reason.NOT_BUILT, "another device's code")
        language = language_of(path)
        if path.startswith("rust/") and _RUST_TESTS.search(path):
            return Judged(finding, Reason.NOT_BUILT, "built for Rust's tests alone")
        if path.startswith("tools/") and not self._build.names(path):
            return Judged(finding, Reason.NOT_BUILT, "nothing of the build names this script")
        if language is Language.CPP and (why := self._build.left_out(path)):
            return Judged(finding, Reason.NOT_BUILT, why)
        if why := self._guard(finding, language):
            return Judged(finding, Reason.GUARDED, why)
        if language is Language.CMAKE and (why := self._build.not_run(path, finding.line)):
            return Judged(finding, Reason.NOT_BUILT, why)
        for silence in self._silences:
            if silence.covers(finding):
                return Judged(finding, silence.settled, silence.reason)
        return Judged(finding)

    def _guard(self, finding: Finding, language: Language) -> str:
        path, line = finding.path, finding.line
        if language is Language.CPP:
            if path not in self._cpp:
                self._cpp[path] = CppGuards(self._tree.read(path), self._build.undefined)
            return self._cpp[path].at(line)
        if language is Language.PYTHON:
            reach = reach_of(self._tree)
            guards = reach.guards(path)
            error = self._rules[finding.rule].error
            return (
                guards.platform(line, finding.detail)
                or (guards.handler(line, error) if error else "")
                or (reach.not_called(path) if finding.stage is not Stage.IMPORT else "")
            )
        if language is Language.CMAKE:
            if path not in self._cmake:
                self._cmake[path] = CmakeGuards(self._tree.read(path))
            return self._cmake[path].at(line)
        return ""


def key(finding: Finding) -> tuple[str, str, str]:
    """What stays the same when lines move: rule, path and the line's text."""
    return finding.rule, finding.path, " ".join(finding.excerpt.split())


def without(findings: Iterable[Judged], others: Iterable[Finding]) -> list[Judged]:
    """`findings` that `others` do not hold; a file that moved or was renamed is the same one."""
    known = Counter(map(key, others))
    rest: list[Judged] = []
    for judged in findings:
        if known[key(judged.finding)] > 0:
            known[key(judged.finding)] -= 1
        else:
            rest.append(judged)
    moved = Counter((rule, text) for (rule, _, text), n in known.items() for _ in range(n))
    fresh: list[Judged] = []
    for judged in rest:
        rule, _, text = key(judged.finding)
        if moved[rule, text] > 0:
            moved[rule, text] -= 1
        else:
            fresh.append(judged)
    return fresh


def counts(judged: Iterable[Judged]) -> Mapping[Reason, int]:
    """How many findings are set aside, by reason."""
    return Counter(one.reason for one in judged if one.reason is not None)
