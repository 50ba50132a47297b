"""Detectors over build files that a pattern cannot tell, and which lines of CMake Windows runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from portkit.scan import ternary
from portkit.scan.code import Code
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language
from portkit.scan.rules import Rule
from portkit.text.syntax import Language as Syntax
from portkit.text.syntax import Outline

NAME = "build-files"
MACRO_PATH = "cmake-macro-path"
CUBLAS = "cmake-cublas"

_MACRO = re.compile(r"^[ \t]*macro\s*\(\s*\w+([^)]*)\)(.*?)^[ \t]*endmacro\b", re.DOTALL | re.M)
_PATHLIKE = re.compile(r"(EXECUTABLE|PATH|DIR|FILE|ROOT|HOME)$")
_CUBLAS_CALL = re.compile(rb"\bcublas[A-Z]\w+\s*\(")
_CUBLAS_LINKED = re.compile(r"CUDA::cublas|CUDA_CUBLAS_LIBRARIES")


class CmakeGuards:
    """The lines of one CMake file that a CUDA build on Windows does not run."""

    def __init__(self, data: bytes) -> None:
        self._branches = Outline(data, Syntax.CMAKE).branches

    def at(self, line: int) -> str:
        """The condition that keeps `line` (1-based) from Windows; empty when there is none."""
        for condition in self._branches[line - 1] if line <= len(self._branches) else ():
            if _holds(condition) is False:
                return f"under `{condition}`"
        return ""


def _holds(condition: str) -> bool | None:
    """Whether a branch, `if (…)` or `else of if (…)`, is taken on Windows."""
    opened = condition.removeprefix("else of ")
    words = re.findall(r'"[^"]*"|[()]|[^\s()"]+', opened.partition("(")[2].rpartition(")")[0])
    # A function's parameter of this name is given VLLM_GPU_LANG.
    words = ["VLLM_GPU_LANG" if word.strip('"${}') == "GPU_LANG" else word for word in words]
    answer = ternary.cmake(words, {})
    return answer if opened == condition or answer is None else not answer


def detect(context: Context) -> Iterator[Finding]:
    """Unquoted paths in CMake's macros, and libraries that only a shared object may leave out."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(NAME, ())}
    if MACRO_PATH in rules:
        for path in context.tree.of_language(Language.CMAKE):
            code = Code(context.tree.read(path), Language.CMAKE)
            yield from _macro_paths(rules[MACRO_PATH], path, code)
    if CUBLAS in rules:
        yield from _cublas(context, rules[CUBLAS])


def _macro_paths(rule: Rule, path: str, code: Code) -> Iterator[Finding]:
    for macro in _MACRO.finditer(code.strings):
        names = [name for name in macro[1].split() if _PATHLIKE.search(name)]
        for name in names:
            for use in re.finditer(rf"(?<=\s)\$\{{{name}\}}(?=[\s)])", macro[2]):
                line, column = code.place(macro.start(2) + use.start())
                yield rule.at(path, line, column, code.line(line).strip(), name)


def _cublas(context: Context, rule: Rule) -> Iterator[Finding]:
    """The first listed source that calls cuBLAS, where nothing links it."""
    path = "CMakeLists.txt"
    code = Code(context.tree.read(path), Language.CMAKE)
    if _CUBLAS_LINKED.search(code.strings):
        return
    sources = context.tree.read_all(context.tree.of_language(Language.CPP))
    users = [p for p, data in sources.items() if p in code.strings and _CUBLAS_CALL.search(data)]
    if users:
        line, column = code.place(code.strings.index(users[0]))
        yield rule.at(path, line, column, code.line(line).strip(), f"used by {users[0]}")
