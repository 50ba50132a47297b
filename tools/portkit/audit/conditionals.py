"""Preprocessor conditionals resolved for the macros that are known, all others left as they are.

The known ones say which system compiles: `_MSC_VER` and its kin are not defined on Linux.  What
stands under an unknown condition stays, with its condition in one normal form, so that
`#ifdef A` and `#if defined(A)`, or an `|| defined(_MSC_VER)` that says nothing, compare equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from portkit.audit.ctokens import logical_lines
from portkit.audit.doubt import Doubt

WINDOWS_MACROS = (
    "_MSC_VER", "_MSC_FULL_VER", "_MSVC_LANG", "_MSVC_TRADITIONAL", "_WIN32", "_WIN64", "WIN32",
    "__WIN32__", "__MINGW32__", "__MINGW64__", "__CYGWIN__", "_M_IX86", "_M_X64", "_M_AMD64",
    "_M_ARM64", "C10_MSVC",
)  # fmt: skip
NOT_WINDOWS: Mapping[str, str | None] = dict.fromkeys(WINDOWS_MACROS)
CUDA: Mapping[str, str | None] = {**NOT_WINDOWS, "USE_ROCM": None}
ROCM: Mapping[str, str | None] = {**NOT_WINDOWS, "USE_ROCM": "1"}

# A condition is a token tuple in normal form, or its truth where that is known.
Condition = bool | tuple[str, ...]
Known = Mapping[str, "str | None"]  # a macro to its value, None where it is not defined


def fold(data: bytes, known: Known = NOT_WINDOWS) -> tuple[str, ...]:
    """The tokens of a file that are compiled with `known`; each directive ends with a newline.

    Raises `Doubt` where conditionals do not nest or a known macro is defined or undefined.
    """
    out: list[str] = []
    for line in folded_lines(logical_lines(data), known):
        out += [*line, "\n"] if line[0] == "#" else line
    return tuple(out)


def folded_lines(lines: Iterable[list[str]], known: Known) -> list[list[str]]:
    """Those of `lines` that are compiled with `known`; conditions that stay are lines too."""
    out: list[list[str]] = []
    stack: list[_Group] = []
    for line in lines:
        word = line[1] if line[0] == "#" and len(line) > 1 else ""
        alive = all(group.alive for group in stack)
        if word in ("if", "ifdef", "ifndef"):
            stack.append(_Group())
            out += stack[-1].branch(_condition(word, line[2:], known), alive)
        elif word in ("elif", "else", "elifdef", "elifndef", "endif"):
            if not stack:
                raise Doubt(f"#{word} without #if")
            outer = all(group.alive for group in stack[:-1])
            if word == "endif":
                out += stack.pop().close(outer)
            else:
                out += stack[-1].branch(_condition(word, line[2:], known), outer)
        elif alive:
            if word in ("define", "undef") and len(line) > 2 and line[2] in known:
                raise Doubt(f"#{word} {line[2]}: the audit takes it for known")
            out.append(line)
    if stack:
        raise Doubt("#if without #endif")
    return out


@dataclass
class _Group:
    """One `#if … #endif`: what is written of it, and whether its present branch is compiled."""

    alive: bool = False
    decided: bool = False  # a branch above is certainly taken
    opened: bool = False  # an `#if` was written
    pending: list[str] = field(default_factory=list)

    def branch(self, condition: Condition, outer: bool) -> list[list[str]]:
        """Begin a branch; the lines to write for it, none unless `outer` is compiled."""
        if self.decided or condition is False:
            self.alive = False
            return []
        self.alive = True
        if condition is True:
            self.decided = True
            written = [["#", "else"]] if self.opened else []
        else:
            assert not isinstance(condition, bool)
            written = [["#", "elif" if self.opened else "if", *condition]]
            self.opened = True
        return written if outer else []

    def close(self, outer: bool) -> list[list[str]]:
        return [["#", "endif"]] if self.opened and outer else []


def _condition(word: str, tokens: Sequence[str], known: Known) -> Condition:
    if word == "else":
        return True
    if word.endswith("def"):
        defined = _defined(tokens[0] if tokens else "", known)
        return _negated(defined) if "ndef" in word else defined
    return _Parser(tokens, known).parse()


def _defined(name: str, known: Known) -> Condition:
    if name in known:
        return known[name] is not None
    return ("defined", "(", name, ")")


def _negated(condition: Condition) -> Condition:
    if isinstance(condition, bool):
        return not condition
    if condition[0] == "!" and _closes_at_end(condition[1:]):
        return condition[2:-1]
    return ("!", "(", *condition, ")")


class _Parser:
    """`||`, `&&`, `!`, parentheses and `defined`; anything else is an operand left as it is."""

    def __init__(self, tokens: Sequence[str], known: Known) -> None:
        self._tokens = list(tokens)
        self._known = known
        self._at = 0

    def parse(self) -> Condition:
        found = self._either()
        if self._at != len(self._tokens):  # nothing we can take apart, such as `a ? b : c`
            return tuple(self._tokens)
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else ""

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._peek() == "||":
            self._take()
            parts.append(self._both())
        return _joined(parts, "||", absorbing=True)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._peek() == "&&":
            self._take()
            parts.append(self._one())
        return _joined(parts, "&&", absorbing=False)

    def _one(self) -> Condition:
        if self._peek() == "!":
            self._take()
            return _negated(self._one())
        if self._peek() == "defined":
            self._take()
            bracketed = self._peek() == "("
            name = [self._take(), self._take()][1] if bracketed else self._take()
            if bracketed:
                self._take()
            return _defined(name, self._known)
        return self._operand()

    def _operand(self) -> Condition:
        """A comparison or the like, or a condition in parentheses."""
        words: list[str] = []
        depth = 0
        while self._peek() and (depth or self._peek() not in ("||", "&&", ")")):
            word = self._take()
            depth += {"(": 1, ")": -1}.get(word, 0)
            words.append(word)
        if words[:1] == ["("] and _closes_at_end(words):
            return _Parser(words[1:-1], self._known).parse()
        return _value(words, self._known)


def _closes_at_end(words: Sequence[str]) -> bool:
    """Whether the first parenthesis is closed by the last word."""
    depth = 0
    for at, word in enumerate(words):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth == 0:
            return at == len(words) - 1
    return False


def _value(words: Sequence[str], known: Known) -> Condition:
    """An operand with the known macros put in; its truth where a number or comparison remains."""
    put = [(known[word] or "0") if word in known else word for word in words]
    if len(put) == 1 and put[0].isdigit():
        return int(put[0]) != 0
    if len(put) == 3 and put[0].isdigit() and put[2].isdigit() and put[1] in _COMPARE:
        return _COMPARE[put[1]](int(put[0]), int(put[2]))
    return tuple(put)


_COMPARE = {
    "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, "<=": int.__le__, ">": int.__gt__,
    ">=": int.__ge__,
}  # fmt: skip


def _joined(parts: Sequence[Condition], word: str, *, absorbing: bool) -> Condition:
    """`a || b` without what is known to be false in it, or True; `&&` likewise."""
    if any(part is absorbing for part in parts):
        return absorbing
    unknown = [part for part in parts if not isinstance(part, bool)]
    if not unknown:
        return not absorbing
    if len(unknown) == 1:
        return unknown[0]
    return tuple(_interleaved(unknown, word))


def _interleaved(parts: Sequence[tuple[str, ...]], word: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            yield word
        simple = len(part) == 1 or (part[0] in ("defined", "!") and _closes_at_end(part[1:]))
        yield from part if simple else ("(", *part, ")")
