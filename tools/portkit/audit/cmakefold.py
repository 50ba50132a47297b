"""CMake with `WIN32`, `MSVC` and the like taken for false, as commands that can be compared.

The commands keep how each argument is written: `a`, `"a"` and `[[a]]` may mean different things.
Where an argument is plain text without variables, quotes make no difference and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from portkit.audit.doubt import Doubt

FALSE = frozenset({"WIN32", "MSVC", "MINGW", "CYGWIN", "MSVC_IDE"})

_TOKEN = re.compile(
    r"""
    (?P<comment> \#\[(?P<c>=*)\[[\s\S]*?\](?P=c)\] | \#[^\n]* )
  | (?P<space> \s+ )
  | (?P<bracket> \[(?P<b>=*)\[[\s\S]*?\](?P=b)\] )
  | (?P<quoted> "(?:\\[\s\S]|[^"\\])*" )
  | (?P<paren> [()] )
  | (?P<word> (?:\\.|"(?:\\.|[^"\\])*"|[^\s()\#"\\])+ )
    """,
    re.VERBOSE,
)
_PLAIN = re.compile(r"[^\s$;\\\"#()@]+")


@dataclass(frozen=True)
class Word:
    """An argument: its text without quotes, and whether a `;` in its value would split it."""

    text: str
    splits: bool

    def __str__(self) -> str:
        return self.text if self.splits or _PLAIN.fullmatch(self.text) else f'"{self.text}"'


@dataclass(frozen=True)
class Command:
    """`name(words)`; of `if`, `foreach` and their kin the words are the condition."""

    name: str
    words: tuple[Word, ...]
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}({' '.join(map(str, self.words))})"

    @property
    def text(self) -> tuple[str, ...]:
        """The command as it compares: plain words without the mark that quotes leave."""
        return (self.name, *map(str, self.words))

    @property
    def unquoted(self) -> tuple[str, ...]:
        """The command without regard to quotes."""
        return (self.name, *(word.text for word in self.words))


def fold(data: bytes) -> tuple[Command, ...]:
    """The commands that are run where the system is not Windows; raises `Doubt`."""
    out: list[Command] = []
    stack: list[_Group] = []
    for command in _commands(data):
        alive = all(group.alive for group in stack)
        if command.name == "if":
            stack.append(_Group(command))
            out += stack[-1].branch(command, alive)
        elif command.name in ("elseif", "else", "endif"):
            if not stack:
                raise Doubt(f"line {command.line}: {command.name}() without if()")
            outer = all(group.alive for group in stack[:-1])
            if command.name == "endif":
                out += stack.pop().close(outer)
            else:
                out += stack[-1].branch(command, outer)
        elif alive:
            out.append(command)
    if stack:
        raise Doubt(f"line {stack[-1].opening.line}: if() without endif()")
    return tuple(out)


@dataclass
class _Group:
    """One `if() … endif()`."""

    opening: Command
    alive: bool = False
    decided: bool = False
    written: bool = False

    def branch(self, command: Command, outer: bool) -> list[Command]:
        condition = () if command.name == "else" else _condition(command.words)
        truth = True if command.name == "else" else _truth(condition)
        if self.decided or truth is False:
            self.alive = False
            return []
        self.alive = True
        if truth is True:
            self.decided = True
            out = [Command("else", ())] if self.written else []
        else:
            name = "elseif" if self.written else "if"
            self.written = True
            out = [Command(name, condition, command.line)]
        return out if outer else []

    def close(self, outer: bool) -> list[Command]:
        return [Command("endif", ())] if self.written and outer else []


# conditions: `AND` and `OR` have the same precedence in CMake, from left to right, below `NOT`

_TRUE_WORD, _FALSE_WORD = Word("TRUE", True), Word("FALSE", True)


def _condition(words: Sequence[Word]) -> tuple[Word, ...]:
    """A condition without what is known in it: `TRUE` or `FALSE`, or what is left of it."""
    terms, operators = _split(words)
    found = _term(terms[0])
    for operator, term in zip(operators, terms[1:], strict=True):
        found = _joined(found, operator, _term(term))
    return found


def _split(words: Sequence[Word]) -> tuple[list[list[Word]], list[str]]:
    """The terms of a condition and the `AND`s and `OR`s between them."""
    terms: list[list[Word]] = [[]]
    operators: list[str] = []
    depth = 0
    for word in words:
        depth += {"(": 1, ")": -1}.get(word.text, 0) if word.splits else 0
        if depth == 0 and word.splits and word.text in ("AND", "OR"):
            operators.append(word.text)
            terms.append([])
        else:
            terms[-1].append(word)
    return terms, operators


def _term(words: Sequence[Word]) -> tuple[Word, ...]:
    if words[:1] == [Word("NOT", True)]:
        inner = _term(words[1:])
        truth = _truth(inner)
        if truth is None:
            return (words[0], *inner)
        return (_FALSE_WORD,) if truth else (_TRUE_WORD,)
    if len(words) > 2 and words[0].text == "(" and words[-1].text == ")":
        inner = _condition(words[1:-1])
        return inner if len(inner) == 1 else (words[0], *inner, words[-1])
    if len(words) == 1 and words[0].text in FALSE and words[0].splits:
        return (_FALSE_WORD,)
    return tuple(words)


def _joined(left: tuple[Word, ...], operator: str, right: tuple[Word, ...]) -> tuple[Word, ...]:
    absorbing = operator == "OR"
    for one, other in ((left, right), (right, left)):
        truth = _truth(one)
        if truth is absorbing:
            return one
        if truth is not None:
            return other
    return (*left, Word(operator, True), *right)


def _truth(condition: tuple[Word, ...]) -> bool | None:
    if condition in ((_TRUE_WORD,), (_FALSE_WORD,)):
        return condition == (_TRUE_WORD,)
    return None


# reading


def _commands(data: bytes) -> Iterator[Command]:
    text = data.decode("utf-8", "surrogateescape")
    name, line, depth = "", 0, 0
    words: list[Word] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        kind, token = match.lastgroup, match[0]
        if match["comment"] is not None or match["space"] is not None:
            continue
        if depth == 0 and token != "(":
            name, line, words = token.lower(), text.count("\n", 0, match.start()) + 1, []
        elif match["paren"] is not None:
            depth += 1 if token == "(" else -1
            if depth == 0 and token == ")":
                yield Command(name, tuple(words), line)
            elif depth > 1 or token == ")":
                words.append(Word(token, True))
        else:
            words.append(_word(token, kind or ""))
    if end != len(text) or depth:
        raise Doubt(f"line {text.count(chr(10), 0, end) + 1}: cannot be read as CMake")


def _word(token: str, kind: str) -> Word:
    if token.startswith("[") and kind != "word":
        return Word(token, False)
    if token.startswith('"') and kind == "quoted":
        inner = token[1:-1]
        return Word(inner, bool(_PLAIN.fullmatch(inner)) and inner not in _KEYWORDS)
    return Word(token, True)


# In a condition quotes decide whether such a word is text or is looked up.
_KEYWORDS = FALSE | {"AND", "OR", "NOT", "(", ")"}


# comparing


@dataclass(frozen=True)
class Quoted:
    """An argument that is written with quotes in one version and without them in the other."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def compare(upstream: bytes, patched: bytes) -> tuple[Quoted, ...]:
    """Where the versions differ in quotes alone; raises `Doubt` if they differ in anything else."""
    before = fold(upstream)
    after = _without_helpers(fold(patched), upstream)
    for one, other in zip(before, after, strict=False):
        if one.unquoted != other.unquoted:
            raise Doubt(f"`{_short(one)}` became `{_short(other)}` (line {other.line})")
    if len(before) != len(after):
        longer = max(before, after, key=len)
        raise Doubt(f"command left over: `{_short(longer[min(len(before), len(after))])}`")
    return tuple(
        Quoted(other.line, old.text)
        for one, other in zip(before, after, strict=True)
        for old, new in zip(one.words, other.words, strict=True)
        if str(old) != str(new)
    )


def _without_helpers(commands: Sequence[Command], upstream: bytes) -> list[Command]:
    """Put in the variables that only the patched version has and that are set once, to text."""
    values: dict[str, str] = {}
    out: list[Command] = []
    for command in commands:
        put = Command(
            command.name,
            tuple(Word(_expanded(word.text, values), word.splits) for word in command.words),
            command.line,
        )
        words = put.words
        name = words[0].text if words else ""
        ours = name and name.encode() not in upstream
        sets = [c for c in commands if c.words[:1] == words[:1] and c.name == "set"]
        plain = len(words) == 2 and not re.search(r"[$;]", words[1].text)
        if put.name == "set" and ours and plain and len(sets) == 1:
            values[name] = words[1].text
            continue
        out.append(put)
    return out


def _expanded(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _short(command: Command) -> str:
    text = str(command)
    return text if len(text) < 90 else text[:87] + "…"
