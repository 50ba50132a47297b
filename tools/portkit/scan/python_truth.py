"""What conditions in upstream's Python give on Windows with CUDA, as far as their text says it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

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
    if last_name(function) in _EXISTENCE and _is_posix_path(call):
        return False
    if isinstance(function, ast.Attribute) and function.attr == "startswith" and call.args:
        known, value = _value(function.value)
        if known and isinstance(value, str):
            prefixes = _constant(call.args[0])
            if isinstance(prefixes, str | tuple):
                return value.startswith(prefixes)
        return None
    return _CALLS.get(last_name(function), _known_name(function))


def _known_name(node: ast.expr) -> bool | None:
    """What a constant of the platform, or one such as HAS_TRITON, is on Windows."""
    name = last_name(node)
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
    if ast.unparse(right).endswith("CompilationMode.NONE"):  # models run eagerly on Windows
        answers = {ast.Eq: True, ast.Is: True, ast.NotEq: False, ast.IsNot: False}
        return answers.get(type(operator))
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


def presence(test: ast.expr) -> Iterator[str]:
    """The names whose presence `test` asks for: attributes of `hasattr`, packages of the rest."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for value in test.values:
            yield from presence(value)
    elif isinstance(test, ast.BoolOp):
        open_values = [value for value in test.values if truth(value) is not False]
        if len(open_values) == 1:
            yield from presence(open_values[0])
    elif isinstance(test, ast.Compare) and len(test.ops) == 1:
        # find_spec("x") is not None, getattr(os, "x", None) is not None
        if isinstance(test.ops[0], ast.IsNot) and _constant(test.comparators[0]) is None:
            yield from presence(test.left)
    elif isinstance(test, ast.Call) and last_name(test.func) in ("hasattr", "getattr"):
        name = _constant(test.args[1]) if len(test.args) > 1 else None
        if isinstance(name, str):
            yield f"{ast.unparse(test.args[0])}.{name}"
            yield name
    elif isinstance(test, ast.Call) and last_name(test.func) in ("find_spec", "_has_module"):
        name = _constant(test.args[0]) if test.args else None
        if isinstance(name, str):
            yield name.partition(".")[0]
    else:
        name = _asked_for(last_name(test))
        if name:
            yield name


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name, "" for anything else; a call is named by its function."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.id if isinstance(node, ast.Name) else ""
