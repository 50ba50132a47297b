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

from portkit.syntax import python_module

# What upstream's tests of the platform give on Windows with CUDA, by the end of the dotted name.
_CALLS = {
    **dict.fromkeys(("is_cuda", "is_cuda_alike", "_is_cuda", "is_windows", "_is_windows"), True),
    **dict.fromkeys(
        (
            "is_rocm", "is_cpu", "is_xpu", "is_tpu", "is_hpu", "is_npu", "is_neuron",
            "is_out_of_tree", "is_zen_cpu", "is_hip", "_is_hip", "_is_cpu", "_is_xpu", "_is_tpu",
            "is_linux", "_is_linux", "is_macos", "is_wsl", "in_wsl",
        ),
        False,
    ),
}  # fmt: skip
_CONSTANTS = {
    **dict.fromkeys(("IS_WINDOWS", "_IS_WINDOWS", "ON_WINDOWS", "WINDOWS"), True),
    **dict.fromkeys(("TYPE_CHECKING", "IS_LINUX", "_IS_LINUX", "IS_MACOS"), False),
}
# Import names of packages that publish binaries for Linux only.
LINUX_ONLY = frozenset(
    (
        "aiter", "cufile", "deep_ep", "deep_gemm", "flash_attn", "flash_attn_3", "flash_mla",
        "flashinfer", "flexkv", "hf3fs_utils", "lmcache", "mooncake", "mori", "nixl", "nvshmem",
        "pplx_kernels", "runai_model_streamer", "tokenspeed_mla", "triton", "uvloop",
    )
)  # fmt: skip
_VALUES = {
    "sys.platform": "win32",
    "os.name": "nt",
    "platform.system()": "Windows",
    "platform.machine()": "AMD64",
    "os.sep": "\\",
    "torch.version.hip": None,
}
_EXISTENCE = ("exists", "isfile", "isdir", "is_file", "is_dir")
_POSIX_FOLDERS = ("/proc", "/sys", "/dev/", "/etc/", "/usr/")
_PRESENT = re.compile(r"(?:has|is|use|supports?)_(\w+?)(?:_available)?|(\w+)_available")
_MENTIONS = re.compile(rb"\b(if|try|and|or|suppress|assert)\b")

# An operand on a line of its own.
_OPERAND = re.compile(rb"^\s*(?:and|or|else)\b(?!\s*:)|\b(?:and|or)[ \t]*$", re.MULTILINE)

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
        return [*_dead(self.module.body), *self._dead_expressions(self.module)]

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
                for name in _presence(node.test):
                    found.append((node.body[0].lineno, _end(node.body[-1]), name, _why(node.test)))
                if isinstance(node.test, ast.UnaryOp) and node.orelse:
                    first, last = node.orelse[0].lineno, _end(node.orelse[-1])
                    for name in _presence(node.test.operand):
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
                    if isinstance(call, ast.Call) and _last(call.func) == "suppress":
                        names = tuple(_last(argument) for argument in call.args)
                        found.append((node.body[0].lineno, _end(node.body[-1]), names))
        return found


def truth(test: ast.expr) -> bool | None:
    """What `test` gives on Windows with CUDA; None when the text does not say."""
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        answer = truth(test.operand)
        return None if answer is None else not answer
    if isinstance(test, ast.BoolOp):
        answers = [truth(value) for value in test.values]
        ends_it = isinstance(test.op, ast.Or)
        if ends_it in answers:
            return ends_it
        return None if None in answers else not ends_it
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _comparison(test.left, test.ops[0], test.comparators[0])
    if isinstance(test, ast.Call):
        return _call(test)
    return _known_name(test)


def _call(call: ast.Call) -> bool | None:
    function = call.func
    if _last(function) in _EXISTENCE and _is_posix_path(call):
        return False
    if isinstance(function, ast.Attribute) and function.attr == "startswith" and call.args:
        known, value = _value(function.value)
        if known and isinstance(value, str):
            prefixes = _constant(call.args[0])
            if isinstance(prefixes, str | tuple):
                return value.startswith(prefixes)
        return None
    return _CALLS.get(_last(function), _known_name(function))


def _known_name(node: ast.expr) -> bool | None:
    """What a constant of the platform, or one such as HAS_TRITON, is on Windows."""
    name = _last(node)
    asked = _asked_for(name)
    if any(asked == package or asked.startswith(f"{package}_") for package in LINUX_ONLY):
        return False
    return _CONSTANTS.get(name)


def _asked_for(name: str) -> str:
    """The package whose presence a name such as `has_deep_ep` or `HAS_TRITON` tells."""
    match = _PRESENT.fullmatch(name.lower().strip("_"))
    return (match[1] or match[2]) if match else ""


def _is_posix_path(call: ast.Call) -> bool:
    """Whether a test for existence is about a fixed path of POSIX: `isdir("/sys/…")`."""
    function = call.func
    asked: ast.expr | None = call.args[0] if call.args else None
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Call):
        asked = function.value.args[0] if function.value.args else asked  # Path("/sys").exists()
    if isinstance(asked, ast.JoinedStr) and asked.values:
        asked = asked.values[0]
    return (
        isinstance(asked, ast.Constant)
        and isinstance(asked.value, str)
        and asked.value.startswith(_POSIX_FOLDERS)
    )


def _comparison(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> bool | None:
    known, value = _value(left)
    other = _constant(right)
    if not known:
        known, value = _value(right)
        other = _constant(left)
    if not known or other is _UNKNOWN:
        return None
    if isinstance(operator, ast.Eq | ast.Is):
        return bool(value == other)
    if isinstance(operator, ast.NotEq | ast.IsNot):
        return bool(value != other)
    if isinstance(operator, ast.In) and isinstance(other, str | tuple):
        return value in other
    if isinstance(operator, ast.NotIn) and isinstance(other, str | tuple):
        return value not in other
    return None


_UNKNOWN = object()


def _value(node: ast.expr) -> tuple[bool, str | None]:
    """Whether `node` is a value known for Windows, and that value; `.lower()` is seen through."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("lower", "casefold")
    ):
        known, value = _value(node.func.value)
        return known, value.lower() if value else value
    if isinstance(node, ast.Attribute | ast.Call):
        text = ast.unparse(node)
        if text in _VALUES:
            return True, _VALUES[text]
    return False, None


def _constant(node: ast.expr) -> object:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return _UNKNOWN
    return tuple(value) if isinstance(value, list | set) else value


def _presence(test: ast.expr) -> Iterator[str]:
    """The names whose presence `test` asks for: attributes of `hasattr`, packages of the rest."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for value in test.values:
            yield from _presence(value)
    elif isinstance(test, ast.BoolOp):
        open_values = [value for value in test.values if truth(value) is not False]
        if len(open_values) == 1:
            yield from _presence(open_values[0])
    elif isinstance(test, ast.Compare) and len(test.ops) == 1:
        # find_spec("x") is not None, getattr(os, "x", None) is not None
        if isinstance(test.ops[0], ast.IsNot) and _constant(test.comparators[0]) is None:
            yield from _presence(test.left)
    elif isinstance(test, ast.Call) and _last(test.func) in ("hasattr", "getattr"):
        name = _constant(test.args[1]) if len(test.args) > 1 else None
        if isinstance(name, str):
            yield f"{ast.unparse(test.args[0])}.{name}"
            yield name
    elif isinstance(test, ast.Call) and _last(test.func) in ("find_spec", "_has_module"):
        name = _constant(test.args[0]) if test.args else None
        if isinstance(name, str):
            yield name.partition(".")[0]
    else:
        name = _asked_for(_last(test))
        if name:
            yield name


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
            yield _last(element)
    else:
        yield _last(node)


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


def _last(node: ast.AST) -> str:
    """The last part of a dotted name, "" for anything else; a call is named by its function."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.id if isinstance(node, ast.Name) else ""


def _alone(node: ast.expr, test: ast.expr) -> bool:
    """Whether a line names the operand alone: guards are told by lines."""
    return node.lineno != test.lineno or _end(node) != _end(test)


def _end(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0) or getattr(node, "lineno", 0))


def _why(test: ast.expr) -> str:
    return f"line {test.lineno}: {ast.unparse(test)}"[:100]
