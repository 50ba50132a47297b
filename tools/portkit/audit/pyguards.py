"""What an expression is worth where the system is not Windows, as far as it asks for the system."""

from __future__ import annotations

import ast

_WINDOWS = {
    ("sys", "platform"): frozenset({"win32"}),
    ("os", "name"): frozenset({"nt"}),
    ("platform", "system"): frozenset({"Windows", "windows"}),
}
_ELSEWHERE = {("os", "pathsep"): ":", ("os", "sep"): "/"}
_MODULES = frozenset({"sys", "os", "platform"})


def worth(node: ast.expr, modules: frozenset[str]) -> bool | str | None:
    """True, False or a string where the expression is that on every system but Windows, else None.

    `modules` are the names that surely stand for the modules `sys`, `os` and `platform` there.
    """
    if isinstance(node, ast.Attribute):
        return _ELSEWHERE.get(_asked(node, modules) or ("", ""))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _comparison(node, modules)
    if isinstance(node, ast.Call):
        return _prefix(node, modules)
    return None


def _comparison(node: ast.Compare, modules: frozenset[str]) -> bool | None:
    """`sys.platform == "win32"`, `os.name != "nt"`, `sys.platform in ("win32",)`."""
    names = _WINDOWS.get(_asked(node.left, modules) or ("", ""))
    values = _strings(node.comparators[0])
    if names is None or values is None or not values or not names.issuperset(values):
        return None
    match node.ops[0]:
        case ast.Eq() | ast.Is():
            return False if isinstance(node.comparators[0], ast.Constant) else None
        case ast.NotEq() | ast.IsNot():
            return True if isinstance(node.comparators[0], ast.Constant) else None
        case ast.In():
            return None if isinstance(node.comparators[0], ast.Constant) else False
        case ast.NotIn():
            return None if isinstance(node.comparators[0], ast.Constant) else True
    return None


def _prefix(node: ast.Call, modules: frozenset[str]) -> bool | None:
    """`sys.platform.startswith("win")`."""
    function = node.func
    if (
        isinstance(function, ast.Attribute)
        and function.attr == "startswith"
        and _asked(function.value, modules) == ("sys", "platform")
        and len(node.args) == 1
        and not node.keywords
        and _strings(node.args[0]) in (("win",), ("win32",))
    ):
        return False
    return None


def _asked(node: ast.expr, modules: frozenset[str]) -> tuple[str, str] | None:
    """The module and the name asked for: `sys.platform`, `platform.system()`, `.lower()` aside."""
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "lower":
            return _asked(function.value, modules)
        asked = _asked(function, modules)
        return asked if asked == ("platform", "system") else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module = node.value.id
        if module in _MODULES and module in modules:
            return module, node.attr
    return None


def _strings(node: ast.expr) -> tuple[str, ...] | None:
    items = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    values = [item.value for item in items if isinstance(item, ast.Constant)]
    if len(values) != len(items) or not all(isinstance(value, str) for value in values):
        return None
    return tuple(str(value) for value in values)
