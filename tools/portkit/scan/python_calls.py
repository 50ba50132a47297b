"""What more than one place of a file, or of the tree, decides: packages, children, kernels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language, Tier
from portkit.scan.python_reach import imports, is_run, reach_of
from portkit.scan.python_truth import LINUX_ONLY
from portkit.scan.rules import Rule
from portkit.text.syntax import python_module

NAME = "python-calls"
LOCAL_TARGET = "python-local-process-target"
TRITON = "python-triton-launch"
PACKAGES = "python-linux-package"
TEXT_MODE = "python-open-text-mode"

_IMPORTS = tuple(f"{word} {name}".encode() for name in LINUX_ONLY for word in ("import", "from"))
# What every model runs, whatever its architecture.
_CORE = ("vllm/v1/worker/", "vllm/v1/sample/", "vllm/v1/core/", "vllm/v1/engine/")

_RAW = tuple(f"os.{name}" for name in ("read", "write", "readv", "writev", "sendfile"))

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def detect(context: Context) -> Iterator[Finding]:
    """Targets that `spawn` cannot send, text descriptors; packages, kernels a server needs."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(NAME, ())}
    if not rules:
        return
    paths = [path for path in context.tree.of_language(Language.PYTHON) if is_run(path)]
    for path, data in context.tree.read_all(paths).items():
        if LOCAL_TARGET in rules and b"Process(" in data:
            yield from _local_targets(rules[LOCAL_TARGET], path, data)
        if TEXT_MODE in rules and b"os.open(" in data and b"O_BINARY" not in data:
            yield from _text_mode(rules[TEXT_MODE], path, data)
        if path not in reach_of(context.tree).imported:
            continue
        if TRITON in rules and b"](" in data and (b"triton" in data or b"_kernel[" in data):
            yield from _launches(rules[TRITON], path, data)
        if PACKAGES in rules and any(text in data for text in _IMPORTS):
            yield from _packages(rules[PACKAGES], path, data)


def _local_targets(rule: Rule, path: str, data: bytes) -> Iterator[Finding]:
    module = python_module(data)
    if module is None:
        return
    for call in ast.walk(module):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Process")):
            continue
        for keyword in call.keywords:
            if keyword.arg == "target" and _is_local(module, call, keyword.value):
                yield _at(rule, path, data, keyword.value, f"target {ast.unparse(keyword.value)}")


def _is_local(module: ast.Module, call: ast.Call, target: ast.expr) -> bool:
    """Whether `target` is a lambda, or a function defined in the function that holds the call."""
    if isinstance(target, ast.Lambda):
        return True
    return isinstance(target, ast.Name) and any(
        isinstance(inner, _Function) and inner.name == target.id
        for outer in ast.walk(module)
        if isinstance(outer, _Function) and outer.lineno <= call.lineno <= (outer.end_lineno or 0)
        for inner in ast.walk(outer)
        if inner is not outer
    )


def _text_mode(rule: Rule, path: str, data: bytes) -> Iterator[Finding]:
    """Descriptors that os.read or os.write uses; file objects made of one set its mode."""
    module = python_module(data)
    if module is None:
        return
    used = {
        ast.unparse(call.args[0])
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func) in _RAW
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            opened = ast.unparse(node.value.func) == "os.open"
            if opened and used.intersection(map(ast.unparse, targets)):
                yield _at(rule, path, data, node.value, ast.unparse(targets[0]))


def _packages(rule: Rule, path: str, data: bytes) -> Iterator[Finding]:
    """One finding per package that importing the module imports."""
    module = python_module(data)
    seen: set[str] = set()
    for node in imports(module.body) if module is not None else ():
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [] if node.level else [node.module or ""]
        # uvloop has a rule of its own.
        for name in {name.partition(".")[0] for name in names} & LINUX_ONLY - {*seen, "uvloop"}:
            seen.add(name)
            yield _at(rule, path, data, node, name)


def _launches(rule: Rule, path: str, data: bytes) -> Iterator[Finding]:
    """One finding at the first launch of a kernel that the file defines or imports."""
    module = python_module(data)
    if module is None:
        return
    kernels: set[str] = set()
    calls: list[ast.Name] = []
    for node in ast.walk(module):
        kernels.update(_kernels(node))
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Subscript) and isinstance(called.value, ast.Name):
            calls.append(called.value)
    launches = [name for name in calls if name.id in kernels]
    if launches:
        first = min(launches, key=lambda node: node.lineno)
        names = ", ".join(sorted({node.id for node in launches}))
        tier = Tier.LIKELY if path.startswith(_CORE) else rule.tier
        yield replace(_at(rule, path, data, first, names), tier=tier)


def _kernels(node: ast.AST) -> Iterator[str]:
    """The name of a function that Triton compiles, or imported names that are called like one."""
    if isinstance(node, _Function):
        if any("triton" in ast.unparse(decorator) for decorator in node.decorator_list):
            yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (a.asname or a.name for a in node.names if a.name.endswith("kernel"))


def _at(rule: Rule, path: str, data: bytes, node: ast.expr | ast.stmt, detail: str) -> Finding:
    excerpt = data.decode("utf-8", "replace").split("\n")[node.lineno - 1]
    return rule.at(path, node.lineno, node.col_offset + 1, excerpt.strip(), detail)
