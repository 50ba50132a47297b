"""Registrations of a few ops, with schemas taken from upstream's `torch_bindings.cpp`.

A whole vLLM registers all its ops in two files that need every kernel to link.  For a few kernels
a small file serves: the same `def` and `impl` statements, word for word, for the ops asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.errors import BadInput

FILES = {"_C": "csrc/torch_bindings.cpp", "_moe_C": "csrc/moe/torch_bindings.cpp"}

_BLOCK = re.compile(r"^TORCH_LIBRARY_EXPAND\((.+), *(\w+)\) *\{$", re.MULTILINE)
_STATEMENT = r"^ *{variable}\.(def|impl)\(\s*(.*?)\);\n"
_INCLUDE = re.compile(r'^#include [<"].*[>"]$', re.MULTILINE)
_SUFFIX = re.compile(r"CONCAT\(TORCH_EXTENSION_NAME, *(\w+)\)")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Statement:
    """One `def` or `impl` of upstream, as it is written."""

    kind: str
    op: str
    text: str

    @property
    def schema(self) -> str:
        """The schema of a `def`, its string literals joined."""
        return "".join(_STRING.findall(self.text))


@dataclass(frozen=True)
class Bindings:
    """What upstream registers in one library (`_C`, `_C_cache_ops`, `_moe_C`)."""

    library: str
    variable: str
    includes: tuple[str, ...]
    statements: tuple[Statement, ...]

    def schema(self, op: str) -> str:
        """Upstream's schema of `op`; raises `BadInput` for one that it does not define."""
        for statement in self.statements:
            if statement.kind == "def" and statement.op == op:
                return statement.schema
        raise BadInput(f"upstream's {self.library} defines no op {op}")


def read(tree: Path, library: str) -> Bindings:
    """The registrations of `library` in the source at `tree`; raises `BadInput`."""
    module = "_moe_C" if library == "_moe_C" else "_C"
    file = tree / FILES[module]
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise BadInput(f"{file}: {(error.strerror or str(error)).lower()}") from None
    blocks = list(_BLOCK.finditer(text))
    for block in blocks:
        suffix = _SUFFIX.match(block[1])
        if module + (suffix[1] if suffix else "") != library:
            continue
        body = text[block.end() : text.index("\n}\n", block.end()) + 1]
        statements = re.finditer(
            _STATEMENT.format(variable=block[2]), body, re.MULTILINE | re.DOTALL
        )
        found = tuple(Statement(one[1], _op_of(one[2]), one[0].strip()) for one in statements)
        return Bindings(library, block[2], tuple(_INCLUDE.findall(text)), found)
    raise BadInput(f"{file} registers no library {library}")


def write(tree: Path, ops: Sequence[str], prefix: str = "") -> str:
    """The C++ file that registers `ops` (`library::name`) in libraries called `prefix` + library.

    It stands for upstream's file of the first op's library and is compiled with its includes.
    """
    libraries = list(dict.fromkeys(op.partition("::")[0] for op in ops))
    parts: list[str] = []
    for library in libraries:
        bindings = read(tree, library)
        if not parts:
            parts.append("\n".join(bindings.includes))
        wanted = {op.partition("::")[2] for op in ops if op.partition("::")[0] == library}
        for op in sorted(wanted):
            bindings.schema(op)
        lines = [one.text for one in bindings.statements if one.op in wanted]
        name = f"{prefix}{library}"
        body = "\n".join(f"  {line}" for line in lines)
        parts.append(f"TORCH_LIBRARY_FRAGMENT({name}, {bindings.variable}) {{\n{body}\n}}")
    return "\n\n".join(parts) + "\n"


def _op_of(arguments: str) -> str:
    """The name of the op in the arguments of a `def` or an `impl`."""
    first = _STRING.search(arguments)
    return re.split(r"\W", first[1].strip(), maxsplit=1)[0] if first else ""
