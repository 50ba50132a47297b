"""Conditions of CMake and of the C preprocessor on Windows: true, false, or unknown (None)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from packaging.version import InvalidVersion, Version

Truth = bool | None

# What nvcc and cl define or leave undefined when they build for CUDA on Windows.
_DEFINED = {"_WIN32", "_WIN64", "WIN32", "_MSC_VER", "_M_X64", "_M_AMD64", "USE_CUDA"}
_UNDEFINED = {
    "__linux__", "__linux", "linux", "__gnu_linux__", "__unix__", "__unix", "unix", "__APPLE__",
    "__GNUC__", "__clang__", "__GLIBC__", "__GLIBCXX__", "_LIBCPP_VERSION", "__x86_64__",
    "__i386__", "__amd64__", "__SIZEOF_INT128__", "O_DIRECT", "CLOCK_MONOTONIC_RAW", "MAP_POPULATE",
    "__aarch64__", "__arm__", "__ARM_NEON", "__powerpc__", "__powerpc64__", "__s390x__", "__riscv",
    "USE_ROCM", "USE_HIP", "__HIPCC__", "__HIP_PLATFORM_AMD__", "__HIP_DEVICE_COMPILE__",
    "__HIP__GFX9__", "__SYCL_DEVICE_ONLY__", "__MINGW32__", "__CYGWIN__",
}  # fmt: skip

_CMAKE = {"WIN32": True, "MSVC": True, "UNIX": False, "APPLE": False, "LINUX": False,
          "HIP_FOUND": False, "PYTORCH_FOUND_HIP": False, "CUDA_FOUND": True}  # fmt: skip
_CMAKE_VALUES = {
    "VLLM_GPU_LANG": "CUDA",
    "VLLM_TARGET_DEVICE": "cuda",
    "CMAKE_CXX_COMPILER_ID": "MSVC",
    "CMAKE_SYSTEM_NAME": "Windows",
}
_TOKEN = re.compile(r"\s*(defined\s*\(\s*\w+\s*\)|defined\s+\w+|&&|\|\||[<>=!]=|!|[()<>]|\w+)")


def directive(text: str, undefined: frozenset[str] = frozenset()) -> Truth:
    """Whether a branch is compiled on Windows: `ifdef X`, `if defined(X) && Y`, `else of if X`.

    `undefined` are macros that the build leaves undefined there.
    """
    if text.startswith("else of "):
        return _not(directive(text.removeprefix("else of "), undefined))
    word, _, condition = text.partition(" ")
    tokens = _TOKEN.findall(re.sub(r"//.*|/\*.*?\*/|\\$", "", condition))
    if word in ("ifdef", "ifndef"):
        known = _is_defined(tokens[0], undefined) if tokens else None
        return known if word == "ifdef" else _not(known)

    def atom(words: list[str]) -> Truth:
        head = words.pop(0)
        if head.startswith("defined"):
            return _is_defined(re.sub(r"defined|[\s()]", "", head), undefined)
        if words and words[0] in ("<", ">", "<=", ">=", "==", "!="):
            del words[:2]
            return None
        if head.isdigit():
            return head != "0"
        known = _is_defined(head, undefined)
        return False if known is False else None

    return _Parser(tokens, atom, {"!": "not", "&&": "and", "||": "or"}).value()


def _is_defined(name: str, undefined: frozenset[str]) -> Truth:
    if name in _DEFINED:
        return True
    return False if name in _UNDEFINED or name in undefined else None


def cmake(
    words: Sequence[str],
    variables: Mapping[str, Truth],
    versions: Mapping[str, Version] = MappingProxyType({}),
) -> Truth:
    """Whether an `if` of CMake holds in a CUDA build on Windows.

    `variables` are known truths, `versions` variables that hold a known version.
    """

    def value(word: str) -> str | None:
        name = word.strip('"').removeprefix("${").removesuffix("}")
        return _CMAKE_VALUES.get(name)

    def atom(rest: list[str]) -> Truth:
        head = rest.pop(0)
        if head in ("DEFINED", "EXISTS", "TARGET", "COMMAND") and rest:
            rest.pop(0)
            return None
        if rest and (rest[0] in _TESTS or rest[0].startswith("VERSION_")):
            test, other = rest.pop(0), rest.pop(0) if rest else ""
            if test in _ORDER and head in versions:
                return _ordered(test, versions[head], other)
            known = value(head)
            if known is None or test not in ("STREQUAL", "MATCHES"):
                return None
            if test == "MATCHES":
                return re.search(other.strip('"'), known) is not None
            return known == other.strip('"')
        name = head.strip('"').removeprefix("${").removesuffix("}")
        return variables[name] if name in variables else _CMAKE.get(name)

    return _Parser(list(words), atom, {"NOT": "not", "AND": "and", "OR": "or"}).value()


_ORDER: Mapping[str, Callable[[Version, Version], bool]] = {
    "VERSION_LESS": operator.lt,
    "VERSION_LESS_EQUAL": operator.le,
    "VERSION_EQUAL": operator.eq,
    "VERSION_GREATER": operator.gt,
    "VERSION_GREATER_EQUAL": operator.ge,
}


def _ordered(test: str, version: Version, other: str) -> Truth:
    try:
        return _ORDER[test](version, Version(other.strip('"')))
    except InvalidVersion:
        return None


_TESTS = {"STREQUAL", "MATCHES", "EQUAL", "LESS", "GREATER", "LESS_EQUAL", "GREATER_EQUAL",
          "IN_LIST", "STRLESS", "STRGREATER", "IS_NEWER_THAN"}  # fmt: skip


def _not(value: Truth) -> Truth:
    return None if value is None else not value


def _and(one: Truth, other: Truth) -> Truth:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _or(one: Truth, other: Truth) -> Truth:
    return _not(_and(_not(one), _not(other)))


class _Parser:
    """`or` of `and` of `not` of atoms; what it cannot read makes the whole unknown."""

    def __init__(
        self, tokens: list[str], atom: Callable[[list[str]], Truth], words: Mapping[str, str]
    ) -> None:
        self._tokens = tokens
        self._atom = atom
        self._words = words

    def value(self) -> Truth:
        found = self._any()
        return None if self._tokens else found

    def _next_is(self, word: str) -> bool:
        if self._tokens and self._words.get(self._tokens[0]) == word:
            self._tokens.pop(0)
            return True
        return False

    def _any(self) -> Truth:
        found = self._all()
        while self._next_is("or"):
            found = _or(found, self._all())
        return found

    def _all(self) -> Truth:
        found = self._one()
        while self._next_is("and"):
            found = _and(found, self._one())
        return found

    def _one(self) -> Truth:
        if not self._tokens:
            return None
        if self._next_is("not"):
            return _not(self._one())
        if self._tokens[0] == "(":
            self._tokens.pop(0)
            found = self._any()
            if self._tokens[:1] == [")"]:
                self._tokens.pop(0)
            return found
        return self._atom(self._tokens)
