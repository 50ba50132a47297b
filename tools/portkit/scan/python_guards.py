"""Which lines of a Python file run on Windows, and which errors a handler around them takes.

Conditions are worked out for a CUDA build on Windows as far as the text allows; what cannot be
known (a setting, a size) guards nothing.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from portkit.scan.python_truth import last_name, presence, truth
from portkit.text.syntax import python_module

_MENTIONS = re.compile(rb"\b(if|try|and|or|suppress|assert)\b")

# An operand on a line of its own.
_OPERAND = re.compile(rb"^\s*(?:and|or|else)\b(?!\s*:)|\b(?:and|or)[ \t]*$", re.MULTILINE)

# Methods that an object's other methods come after.
_FIRST = ("__new__", "__init__", "__post_init__", "preflight")

_Interval = tuple[int, int, str]  # first and last line, and why


class Guards:
    """The guarded lines of one file; a file that does not parse has none."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def platform(self, line: int, name: str = "") -> str:
        """Why Windows with CUDA does not reach `line` (1-based), or "" if it may.

        `name` is what the line uses: a test for its presence (`hasattr`, `find_spec`, `has_…`)
        guards it too.
        """
        for start, end, why in self._skipped:
            if start <= line <= end:
                return why
        if name:
            for start, end, asked, why in self._asked:
                if start <= line <= end and asked in (name, name.partition(".")[0]):
                    return why
        return ""

    def handler(self, line: int, error: str) -> str:
        """Which handler around `line` takes `error` (an exception's name), or "" if none does.

        A handler that raises again takes nothing.
        """
        for start, end, names in self._handlers:
            if start <= line <= end and any(_takes(name, error) for name in names):
                return f"line {start}: an exception handler takes {error}"
        return ""

    def in_function(self, line: int) -> bool:
        """Whether `line` stands in the body of a function, or of a script: no import runs it."""
        return any(start <= line <= end for start, end in self._functions)

    def scope(self, line: int) -> tuple[int, int]:
        """The lines of the innermost function around `line`; the whole file where there is none."""
        around = [span for span in self._functions if span[0] <= line <= span[1]]
        return max(around, default=(1, self._data.count(b"\n") + 1))

    @cached_property
    def module(self) -> ast.Module | None:
        """The parsed file, None where it does not parse."""
        return python_module(self._data)

    @cached_property
    def _statements(self) -> list[ast.stmt]:
        return list(_within(self.module.body)) if self.module is not None else []

    @cached_property
    def _functions(self) -> list[tuple[int, int]]:
        found = []
        for node in self._statements:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            ):
                found.append((node.body[0].lineno, _end(node)))
        return found

    @cached_property
    def _skipped(self) -> list[_Interval]:
        if self.module is None or not _MENTIONS.search(self._data):
            return []
        refused = _refused(self._statements)
        return [*refused, *_dead(self.module.body), *self._dead_expressions(self.module)]

    def _dead_expressions(self, module: ast.Module) -> Iterator[_Interval]:
        """Operands that `and`, `or` and `x if c else y` never evaluate on Windows."""
        if not _OPERAND.search(self._data):
            return
        for node in ast.walk(module):
            if isinstance(node, ast.IfExp):
                answer = truth(node.test)
                if answer is not None:
                    unused = node.orelse if answer else node.body
                    if _alone(unused, node.test):
                        yield unused.lineno, _end(unused), _why(node.test)
            elif isinstance(node, ast.BoolOp):
                ends_it = isinstance(node.op, ast.Or)
                for number, value in enumerate(node.values[:-1]):
                    if truth(value) is ends_it:
                        for unused in node.values[number + 1 :]:
                            if unused.lineno > _end(value):
                                yield unused.lineno, _end(unused), _why(value)
                        break

    @cached_property
    def _asked(self) -> list[tuple[int, int, str, str]]:
        """Lines that run only where something is present: first, last, its name, and why."""
        found = []
        for node in self._statements:
            if isinstance(node, ast.If):
                for name in presence(node.test):
                    found.append((node.body[0].lineno, _end(node.body[-1]), name, _why(node.test)))
                if isinstance(node.test, ast.UnaryOp) and node.orelse:
                    first, last = node.orelse[0].lineno, _end(node.orelse[-1])
                    for name in presence(node.test.operand):
                        found.append((first, last, name, _why(node.test)))
        return found

    @cached_property
    def _handlers(self) -> list[tuple[int, int, tuple[str, ...]]]:
        found = []
        for node in self._statements:
            if isinstance(node, ast.Try):
                names = tuple(
                    name
                    for handler in node.handlers
                    if not _raises(handler.body)
                    for name in _exceptions(handler.type)
                )
                if names:
                    found.append((node.body[0].lineno, _end(node.body[-1]), names))
            elif isinstance(node, ast.With | ast.AsyncWith):
                for item in node.items:
                    call = item.context_expr
                    if isinstance(call, ast.Call) and last_name(call.func) == "suppress":
                        names = tuple(last_name(argument) for argument in call.args)
                        found.append((node.body[0].lineno, _end(node.body[-1]), names))
        return found


def _refused(statements: Sequence[ast.stmt]) -> Iterator[_Interval]:
    """The classes whose objects raise on Windows before they do anything."""
    for node in statements:
        for method in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(method, ast.FunctionDef) and method.name in _FIRST:
                for check in method.body:
                    if isinstance(check, ast.If) and _raises(check.body) and truth(check.test):
                        yield node.lineno, _end(node), _why(check.test)


def _dead(body: Sequence[ast.stmt]) -> Iterator[_Interval]:
    """The statements of a block, and of the blocks in it, that Windows never runs."""
    for number, statement in enumerate(body):
        below = body[number + 1 :]
        if isinstance(statement, ast.If):
            answer = truth(statement.test)
            if answer is False:
                yield statement.body[0].lineno, _end(statement.body[-1]), _why(statement.test)
            if answer is True and statement.orelse:
                yield statement.orelse[0].lineno, _end(statement.orelse[-1]), _why(statement.test)
            leaves = (answer is True and _leaves(statement.body)) or (
                answer is False and _leaves(statement.orelse)
            )
            if leaves and below:
                yield below[0].lineno, _end(below[-1]), _why(statement.test)
        elif isinstance(statement, ast.Assert) and truth(statement.test) is False and below:
            yield below[0].lineno, _end(below[-1]), _why(statement.test)
        for field in ("body", "orelse", "finalbody"):
            yield from _dead(getattr(statement, field, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _dead(part.body)


def _within(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block, and of the blocks in it."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from _within(getattr(statement, field, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _within(part.body)


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block never gets past its end."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ast.With):
        return _leaves(last.body)
    if isinstance(last, ast.If):
        return _leaves(last.body) and _leaves(last.orelse)
    return isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break)


def _raises(body: Sequence[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Raise)


def _exceptions(node: ast.expr | None) -> Iterator[str]:
    if node is None:
        yield "BaseException"
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield last_name(element)
    else:
        yield last_name(node)


def _takes(handler: str, error: str) -> bool:
    """Whether `except handler` takes an `error`; an unknown error is taken by the broad ones."""
    taken = getattr(builtins, handler, None)
    raised = getattr(builtins, error, None) or Exception
    return (
        isinstance(taken, type)
        and isinstance(raised, type)
        and issubclass(taken, BaseException)
        and issubclass(raised, taken)
    )


def _alone(node: ast.expr, test: ast.expr) -> bool:
    """Whether a line names the operand alone: guards are told by lines."""
    return node.lineno != test.lineno or _end(node) != _end(test)


def _end(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0) or getattr(node, "lineno", 0))


def _why(test: ast.expr) -> str:
    return f"line {test.lineno}: {ast.unparse(test)}"[:100]
