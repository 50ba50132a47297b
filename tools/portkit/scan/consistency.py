"""Ops and modules that the patched tree leaves out on Windows and still needs there.

A patch may drop a source under `if(NOT WIN32)` or a function under `#ifndef _MSC_VER`.  What
registers, calls or imports it has to go as well: the linker, or the first request, says so late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from portkit.scan.built import Build
from portkit.scan.code import Code
from portkit.scan.cppguards import CppGuards
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language
from portkit.scan.tree import SourceTree

REGISTERED = "consistency-registered"
CALLED = "consistency-called"
IMPORTED = "consistency-imported"

_SYSTEM = re.compile(r"_WIN32|_WIN64|_MSC_VER|__linux__|__GNUC__|__unix__")
_FUNCTION = re.compile(
    r"^(?!\s)[\w:<>,&*\s]*?\b(?P<name>\w+)\s*\((?:[^(){};]|\([^()]*\))*\)\s*\{", re.M
)
_REGISTRATION = re.compile(
    r"\b(?:impl|def)\(\s*\"(?P<op>\w+)[^;]*?&\s*(?:\w+::)*(?P<function>\w+)\s*\)?\s*\)\s*;"
)
_CALL = re.compile(r"\btorch\.ops\._\w*C\w*\.(?P<op>\w+)\s*\(")


@dataclass
class _Ops:
    """Functions and registrations, of what Windows compiles and of what the system leaves out."""

    here: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    registered: dict[str, tuple[str, int, str]] = field(default_factory=dict)  # function: place
    live: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


def detect(context: Context) -> Iterator[Finding]:
    """What is registered, called or imported although the system leaves it out."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get("consistency", ())}
    if not rules:
        return
    build = Build(context.tree)
    ops = _read(context.tree, build)
    gone = ops.dropped - ops.here
    for function, (path, line, excerpt) in sorted(ops.registered.items()):
        if function in gone and (rule := rules.get(REGISTERED)) is not None:
            yield rule.at(path, line, 1, excerpt, f"{function} is left out on Windows")
    lost = (ops.lost - ops.live) | {op for op in ops.lost if op in gone}
    modules = {name for name in build.dropped if "/" not in name}
    if not lost and not modules:
        return
    for path in context.tree.of_language(Language.PYTHON):
        if not path.startswith("vllm/"):
            continue
        code = Code(context.tree.read(path), Language.PYTHON)
        for match in _CALL.finditer(code.code):
            if match["op"] in lost and (rule := rules.get(CALLED)) is not None:
                line, column = code.place(match.start())
                yield rule.at(path, line, column, code.line(line).strip(), match["op"])
        for name in modules:
            for match in re.finditer(
                rf"\bimport\s+vllm\.{name}\b|from\s+vllm\s+import\s+{name}\b", code.code
            ):
                line, column = code.place(match.start())
                if (rule := rules.get(IMPORTED)) is not None:
                    yield rule.at(path, line, column, code.line(line).strip(), name)


def _read(tree: SourceTree, build: Build) -> _Ops:
    ops = _Ops()
    for path, data in tree.read_all(tree.of_language(Language.CPP)).items():
        dropped = path in build.dropped
        if not dropped and path not in build.sources:
            continue
        code = Code(data, Language.CPP)
        guards = CppGuards(data, build.undefined) if _SYSTEM.search(code.text) else None
        for match in _FUNCTION.finditer(code.code):
            away = dropped or _away(guards, code.place(match.start("name"))[0])
            (ops.dropped if away else ops.here).add(match["name"])
        for match in _REGISTRATION.finditer(code.strings):
            line = code.place(match.start())[0]
            if dropped or _away(guards, line):
                ops.lost.add(match["op"])
            else:
                ops.live.add(match["op"])
                ops.registered[match["function"]] = (path, line, code.line(line).strip())
    return ops


def _away(guards: CppGuards | None, line: int) -> bool:
    """Whether a condition on the system keeps a line from Windows."""
    return guards is not None and _SYSTEM.search(guards.at(line)) is not None
