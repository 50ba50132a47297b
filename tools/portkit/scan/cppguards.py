"""Which lines of a C++ or CUDA file MSVC never sees, by the preprocessor's conditionals."""

from __future__ import annotations

from portkit.scan import ternary
from portkit.text.syntax import Language, Outline


class CppGuards:
    """The guards of one file; `undefined` are macros that the build on Windows leaves undefined."""

    def __init__(self, data: bytes, undefined: frozenset[str] = frozenset()) -> None:
        self._branches = Outline(data, Language.CUDA).branches
        self._undefined = undefined

    def at(self, line: int) -> str:
        """The condition that keeps a line (1-based) from Windows; empty when there is none."""
        if line > len(self._branches):
            return ""
        for condition in self._branches[line - 1]:
            if condition != "text" and ternary.directive(condition, self._undefined) is False:
                return f"under `#{condition}`"
        return ""
