"""Python with the Windows guards resolved to "not Windows", as a syntax tree that can be compared.

Folding is done on both versions of a file with the same rules, and the patched one may have two
things more: imports of the standard library that nothing uses any more, and helpers of its own
(a constant, a function without arguments) whose worth is known.  Whatever is not certain stays as
it is, and then the comparison fails.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from portkit.audit.doubt import Doubt
from portkit.audit.pyguards import worth
from portkit.audit.pyscopes import Scopes, bound_names, loaded_names

_NOT_EVERYWHERE = frozenset(
    {"msvcrt", "winreg", "winsound", "nt", "_winapi", "fcntl", "resource", "termios", "pwd", "grp",
     "posix", "this", "antigravity"}
)  # fmt: skip
_HARMLESS = sys.stdlib_module_names - _NOT_EVERYWHERE


def compare(upstream: bytes, patched: bytes) -> None:
    """Return if both are the same program on every system but Windows; raises `Doubt` if not."""
    before, after = _parsed(upstream), _parsed(patched)
    scopes = Scopes(after)
    before_folded = _fold(before, frozenset(), {})
    after_folded = _fold(after, *_helpers(after, before))
    scopes.check(after_folded)
    _drop_unused_imports(after_folded, before_folded)
    for one, other in zip(before_folded.body, after_folded.body, strict=False):
        if ast.dump(one) != ast.dump(other):
            raise Doubt(_difference(one, other))
    if len(before_folded.body) != len(after_folded.body):
        longer = max(before_folded.body, after_folded.body, key=len)
        extra = longer[min(len(before_folded.body), len(after_folded.body))]
        raise Doubt(f"statement left over: {_first_line(extra)}")


def _parsed(data: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data)
    except (SyntaxError, ValueError) as error:
        raise Doubt(f"does not parse: {error}") from None


Helpers = dict[str, ast.expr]  # a name of ours to the constant it stands for


def _fold(module: ast.Module, ours: frozenset[str], helpers: Helpers) -> ast.Module:
    folded: ast.Module = _Fold(_modules(module), helpers).visit(module)
    folded.body = [s for s in folded.body if not (bound_names([s]) and bound_names([s]) <= ours)]
    return folded


def _modules(module: ast.Module) -> frozenset[str]:
    """Names that stand for the module of that name wherever they are used.

    The import stands at the top level, before every use, and nothing else binds the name.
    """
    found = set()
    for name in ("sys", "os", "platform"):
        lines = [
            statement.lineno
            for statement in module.body
            if isinstance(statement, ast.Import)
            and any(alias.name == name and alias.asname is None for alias in statement.names)
        ]
        uses = [n.lineno for n in ast.walk(module) if isinstance(n, ast.Name) and n.id == name]
        others = [b for b in Scopes.bindings(module, name) if not isinstance(b, ast.Import)]
        if lines and not others and all(use > lines[0] for use in uses):
            found.add(name)
    return frozenset(found)


def _helpers(after: ast.Module, before: ast.Module) -> tuple[frozenset[str], Helpers]:
    """Constants and functions of the top level that only the patched version has.

    Their names, and what each stands for: `NVCC = "nvcc"`, `def on_windows(): return False`.
    """
    modules, theirs = _modules(after), _all_names(before)
    helpers: Helpers = {}
    for statement in after.body:
        found = _helper(statement, _Fold(modules, helpers))
        if found is None:
            continue
        name, value = found
        uses = [n.lineno for n in ast.walk(after) if isinstance(n, ast.Name) and n.id == name]
        once = len(Scopes.bindings(after, name)) == 1
        if name not in theirs and once and min(uses, default=10**9) >= statement.lineno:
            helpers[name] = value
    return frozenset(helpers), helpers


def _helper(statement: ast.stmt, fold: _Fold) -> tuple[str, ast.expr] | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            value = fold.visit(_copied(value))
        case ast.FunctionDef(name=name, body=[*_, ast.Return(value=ast.expr() as value)]):
            plain = not (statement.decorator_list or ast.unparse(statement.args))
            documented = [s for s in statement.body[:-1] if not _is_text(s)]
            if not plain or documented:
                return None
            value = fold.visit(_copied(value))
        case _:
            return None
    return (name, value) if isinstance(value, ast.Constant) else None


def _copied(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _all_names(module: ast.Module) -> frozenset[str]:
    nodes = list(ast.walk(module))
    return frozenset(bound_names(module.body) | loaded_names(nodes))


def _drop_unused_imports(after: ast.Module, before: ast.Module) -> None:
    """Take from `after` the top-level imports that only it has, are harmless and not used."""
    theirs = Counter(_aliases(before.body))
    used = loaded_names(list(ast.walk(after)))
    kept: list[ast.stmt] = []
    for statement in after.body:
        if isinstance(statement, ast.Import):
            statement.names = [a for a in statement.names if not _is_spare(a, theirs, used)]
            if not statement.names:
                continue
        kept.append(statement)
    after.body = kept


def _is_spare(alias: ast.alias, theirs: Counter[tuple[str, str | None]], used: set[str]) -> bool:
    key = (alias.name, alias.asname)
    if theirs[key]:
        theirs[key] -= 1
        return False
    bound = alias.asname or alias.name.partition(".")[0]
    return alias.name.partition(".")[0] in _HARMLESS and bound not in used


def _aliases(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str | None]]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from ((alias.name, alias.asname) for alias in statement.names)


class _Fold(ast.NodeTransformer):
    """Put in what guards and helpers are worth, and take out what is then never run."""

    def __init__(self, modules: frozenset[str], helpers: Helpers) -> None:
        self._modules = modules
        self._helpers = helpers

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr):
            value = worth(node, self._modules)
            if value is not None:
                return ast.Constant(value)
        result = super().visit(node)
        if isinstance(result, ast.AST):
            self._cut(result)
        return result

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self._helpers:
            return self._helpers[node.id]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        called = isinstance(node.func, ast.Name) and node.func.id in self._helpers
        self.generic_visit(node)
        if called and not node.args and not node.keywords:
            return node.func
        return _without_effect(node)

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        truth = _truth(node.test)
        return node if truth is None else (node.body if truth else node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        truth = _truth(node.test)
        return node if truth is None else (node.body if truth else node.orelse)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        truth = _truth(node.operand)
        if isinstance(node.op, ast.Not) and truth is not None:
            return ast.Constant(not truth)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        absorbing = isinstance(node.op, ast.Or)
        values: list[ast.expr] = []
        for value in node.values:
            truth = _truth(value)
            if truth is absorbing and not values:
                return ast.Constant(absorbing)
            if truth is not None and truth is not absorbing and value is not node.values[-1]:
                continue  # `True and x` is x
            values.append(value)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """`x + "a" + "b"` is `x + "ab"`."""
        self.generic_visit(node)
        left, text = node.left, _string(node.right)
        if not isinstance(node.op, ast.Add) or text is None:
            return node
        if (before := _string(left)) is not None:
            return ast.Constant(before + text)
        inner = _string(left.right) if isinstance(left, ast.BinOp) else None
        if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Add) and inner is not None:
            return ast.BinOp(left.left, ast.Add(), ast.Constant(inner + text))
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """A constant in an f-string is part of its text."""
        self.generic_visit(node)
        values: list[ast.expr] = []
        for value in map(_unformatted, node.values):
            text, before = _string(value), _string(values[-1]) if values else None
            if text is not None and before is not None:
                values[-1] = ast.Constant(before + text)
            else:
                values.append(value)
        return ast.JoinedStr(values)

    @staticmethod
    def _cut(node: ast.AST) -> None:
        """Drop what follows a `return` or `raise` that folding brought into a block."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                ends = [n for n, s in enumerate(block) if isinstance(s, _ENDS)]
                if ends:
                    del block[ends[0] + 1 :]


_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def _unformatted(value: ast.expr) -> ast.expr:
    """The text in `{"text"}` of an f-string; anything else as it is."""
    if isinstance(value, ast.FormattedValue) and value.conversion == -1 and not value.format_spec:
        return value.value if _string(value.value) is not None else value
    return value


def _without_effect(node: ast.Call) -> ast.expr:
    """`x` for `x.replace("/", "/")`, else the call."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
        texts = [_string(argument) for argument in node.args]
        if len(texts) == 2 and texts[0] is not None and texts[0] == texts[1] and not node.keywords:
            return node.func.value
    return node


def _truth(node: ast.expr) -> bool | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, bool) else None


def _string(node: ast.expr) -> str | None:
    constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if constant else None  # type: ignore[attr-defined]


def _difference(one: ast.stmt, other: ast.stmt) -> str:
    """The innermost statement in which two versions differ, as text."""
    if type(one) is type(other) and hasattr(one, "body") and hasattr(other, "body"):
        for a, b in zip(one.body, other.body, strict=False):
            if ast.dump(a) != ast.dump(b):
                return _difference(a, b)
    return f"{_first_line(one)} became {_first_line(other)} (line {other.lineno})"


def _first_line(node: ast.stmt) -> str:
    text = ast.unparse(node).strip().splitlines()[0]
    return f"`{text if len(text) < 80 else text[:77] + '…'}`"
