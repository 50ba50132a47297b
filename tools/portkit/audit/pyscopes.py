"""Code that is never run still says which names are local and whether a function is a generator.

`if sys.platform == "win32": x = 1` in a function makes `x` local to it on Linux too.  So, before
dead branches are cut out, what every function binds is noted, and compared afterwards.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from portkit.audit.doubt import Doubt

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)


class Scopes:
    """What the functions of a module bind, before it is folded (folding changes it in place)."""

    def __init__(self, module: ast.Module) -> None:
        functions = (node for node in ast.walk(module) if isinstance(node, _FUNCTIONS))
        self._before = {id(one): (one, _local_names(one), _yields(one)) for one in functions}

    def check(self, folded: ast.Module) -> None:
        """Raise `Doubt` if a branch that was cut out decides on what is left."""
        for node in ast.walk(folded):
            if id(node) not in self._before or not isinstance(node, _FUNCTIONS):
                continue
            _, names, yielded = self._before[id(node)]
            where = getattr(node, "name", "a lambda")
            used = loaded_names(ast.walk(node))
            if lost := sorted((names - _local_names(node)) & used):
                raise Doubt(f"a dead branch makes {lost[0]} local to {where}")
            if yielded and not _yields(node):
                raise Doubt(f"a dead branch makes a generator of {where}")

    @staticmethod
    def bindings(module: ast.Module, name: str) -> list[ast.AST]:
        """Every node of the module that binds `name`, in any scope."""
        return [node for node in ast.walk(module) if name in set(_binds(node))]


def bound_names(body: Iterable[ast.stmt]) -> set[str]:
    """The names that statements bind in their own scope."""
    return {name for statement in body for node in _own(statement) for name in _binds(node)}


def loaded_names(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are read, changed by `del`, or declared `global`."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            found.update(node.names)
    return found


def _local_names(function: ast.AST) -> set[str]:
    found: set[str] = set()
    for part in _children(function):
        for node in _own(part):
            found.update(_binds(node))
    return found


def _yields(function: ast.AST) -> bool:
    kinds = (ast.Yield, ast.YieldFrom)
    return any(isinstance(n, kinds) for part in _children(function) for n in _own(part))


def _children(function: ast.AST) -> Sequence[ast.AST]:
    """The parts of a function that belong to its own scope."""
    if isinstance(function, ast.Lambda):
        return [function.args, function.body]
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    return [function.args, *function.body]


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is below it in the same scope; of an inner scope only the node itself."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _own(child)


def _binds(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.arg(arg=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
