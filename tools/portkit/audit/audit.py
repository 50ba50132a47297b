"""The audit of a series: a verdict for each patch, the strongest level that holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portkit.audit import generators, level1
from portkit.audit.doubt import Doubt
from portkit.audit.level2 import ARCHS, SameCode, Undecided
from portkit.audit.sources import Sources
from portkit.audit.verdict import Level, Verdict
from portkit.model import Event, Events, Patch, silent
from portkit.patches import header
from portkit.text.syntax import Language, language_of

Tested = Callable[[Patch], str]  # what GPU results say of a patch; "" where there are none


def no_results(_: Patch) -> str:
    """The `Tested` of an audit without GPU results."""
    return ""


@dataclass
class Audit:
    """What an audit has: both trees, the comparisons of level 2 (None leaves it out), results.

    `archs` are the architectures that compiled code is compared for, within those of a patch.
    """

    sources: Sources
    same_code: SameCode | None = None
    archs: tuple[str, ...] = ARCHS
    tested: Tested = no_results
    events: Events = silent
    _first: dict[str, str | Doubt] = field(default_factory=dict)

    def run(self, patches: Sequence[Patch]) -> tuple[Verdict, ...]:
        """The verdicts of `patches`, in order."""
        for number, patch in enumerate(patches):
            self.events(Event("comparing", number, len(patches), "patches"))
            self._first[patch.name] = self._identical(patch)
        self._compile(patches)
        return tuple(self._verdict(patch) for patch in patches)

    def _identical(self, patch: Patch) -> str | Doubt:
        """What level 1 found, or why it does not hold."""
        old, new = patch.change.old_path, patch.change.new_path
        if old is None or new is None or old != new:
            return Doubt("the patch adds, removes or renames its file")
        before, after = self.sources.upstream(old), self.sources.patched(new)
        try:
            return level1.compare(old, before or b"", after or b"", self.sources.upstream)
        except Doubt as doubt:
            return doubt

    def _compile(self, patches: Sequence[Patch]) -> None:
        """All comparisons of compiled code at once, so that they can run side by side."""
        if self.same_code is not None:
            wanted = [
                pair
                for patch in patches
                if isinstance(self._first[patch.name], Doubt) and _is_compiled(patch)
                for pair in self.same_code.pairs(patch.path, self._archs(patch))
            ]
            self.same_code.prepare(wanted)

    def _verdict(self, patch: Patch) -> Verdict:
        def verdict(level: Level, evidence: str, doubt: str = "", rocm: str = "") -> Verdict:
            return Verdict(patch.name, patch.path, level, evidence, doubt, rocm, _waiver(patch))

        first = self._first[patch.name]
        compiled = _is_compiled(patch)
        if isinstance(first, str):
            rocm = "identical with USE_ROCM" if compiled else ""
            return verdict(Level.IDENTICAL, first, rocm=rocm)
        if patch.change.old_path != patch.change.new_path:
            return verdict(Level.UNPROVED, "", str(first))
        try:
            evidence, rocm = self._same_code(patch)
            return verdict(Level.SAME_CODE, evidence, str(first), rocm)
        except Undecided as open_question:
            doubt, level = f"{first}; {open_question}", Level.OPEN
        except Doubt as second:
            doubt, level = f"{first}; {second}", Level.UNPROVED
        if evidence := self.tested(patch):
            return verdict(Level.TESTED, evidence, doubt)
        return verdict(level, "", doubt)

    def _same_code(self, patch: Patch) -> tuple[str, str]:
        """What level 2 found, and what is known of ROCm; raises `Doubt` or `Undecided`."""
        if self.same_code is None:
            raise Undecided("level 2 was left out")
        if generators.is_generator(patch.path):
            return self.same_code.compare_generator(patch.path), "not compiled for ROCm"
        if language_of(patch.path) is Language.CMAKE:
            return self.same_code.compare_cmake(patch.path), ""
        if not _is_compiled(patch):
            raise Doubt("only compiled files, CMake and generators can be compared at level 2")
        rocm = self.same_code.rocm(patch.path)
        return self.same_code.compare(patch.path, self._archs(patch)), rocm

    def _archs(self, patch: Patch) -> tuple[str, ...]:
        """The architectures to compare a patch for: ours that its header names, else its last."""
        named = header.parse(patch.header).archs
        if named in (("all",), ("none",)):
            return self.archs
        return tuple(arch for arch in self.archs if arch in named) or named[-1:]


def _is_compiled(patch: Patch) -> bool:
    return language_of(patch.path) is Language.CUDA


def _waiver(patch: Patch) -> str:
    return " ".join(header.parse(patch.header).value(header.WAIVER).split())
