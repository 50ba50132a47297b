"""What a file means to a landing check: its scopes, its branches, and whether it parses.

Python is read by `ast`; C, C++, CUDA and CMake by tree-sitter, whose trees are kept even where
upstream's macros confuse the grammar.  Preprocessor and CMake conditionals are read line by line,
because that stays right where the grammar gives up.  Other files have no scopes.
"""

from __future__ import annotations

import ast
import re
import symtable
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tree_sitter
    from tree_sitter import Node, Tree


class Language(Enum):
    PYTHON = "python"
    CUDA = "cuda"  # C, C++ and CUDA: one grammar serves
    CMAKE = "cmake"
    REQUIREMENTS = "requirements"
    TEXT = "text"


_SUFFIXES = {
    **dict.fromkeys((".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inl"), Language.CUDA),
    **dict.fromkeys((".py", ".pyi"), Language.PYTHON),
    ".cmake": Language.CMAKE,
}


def language_of(path: str) -> Language:
    """The language of an upstream file, by its name."""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    if name == "CMakeLists.txt":
        return Language.CMAKE
    if not stem or not suffix:  # ".c" is the name of a hidden file
        return Language.TEXT
    if suffix == "txt" and "requirements" in path:
        return Language.REQUIREMENTS
    return _SUFFIXES.get(dot + suffix, Language.TEXT)


@dataclass(frozen=True)
class Scope:
    """A named region: lines `start` to `end` (0-based, end exclusive).

    `signature` tells overloads and specialisations of one name apart; white space is folded.
    """

    kind: str
    name: str
    signature: str
    start: int
    end: int


class Replaced(NamedTuple):
    """Lines [start, end) of a file that `lines` other lines took the place of."""

    start: int
    end: int
    lines: int


class Outline:
    """The scopes, branches and syntax errors of one file, each read when first asked for."""

    def __init__(self, data: bytes, language: Language) -> None:
        self._data = data
        self._language = language
        self._origin: _Origin | None = None

    def comes_from(
        self, origin: Outline, replaced: Sequence[Replaced], *, checking: bool = False
    ) -> None:
        """Remember an earlier version and what (ascending) replaced lines of it.

        Where that one has been parsed, only what differs is parsed here: the same tree, sooner.
        With `checking` that one must be without errors: what the parser cannot read is read anew,
        for two readings of it may find another number of errors.
        """
        self._origin = _Origin(origin, replaced, checking)

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """Named regions, outermost first."""
        if self._language is Language.PYTHON:
            module = self._module
            return tuple(_python_scopes(module.body)) if module is not None else ()
        if self._language is Language.CMAKE and not _CMAKE_DEFINITION.search(self._data):
            return ()
        if self._language in _PARSED:
            return _tree_scopes(self._tree, self._data)
        return ()

    @cached_property
    def errors(self) -> int:
        """How many syntax errors the parser reports; 0 for languages without a parser."""
        if self._language is Language.PYTHON:
            return int(not self._parses())
        if self._language in _PARSED:
            return _tree_errors(self._tree)
        return 0

    @cached_property
    def branches(self) -> tuple[tuple[str, ...], ...]:
        """What each line stands in: preprocessor or CMake conditionals, a string, a comment."""
        lines = self._data.split(b"\n")
        chains: list[tuple[str, ...]] = [() for _ in lines]
        if self._language is Language.CUDA:
            chains = list(_branches(lines, _PREPROCESSOR))
        if self._language is Language.CMAKE:
            chains = list(_branches(lines, _CMAKE_IF))
        for start, end in self._prose:
            for number in range(start, end):
                chains[number] = (*chains[number], "text")
        return tuple(chains)

    @cached_property
    def _prose(self) -> list[tuple[int, int]]:
        """The lines, after its first, of each string or comment of several lines."""
        lexer = _LEXERS.get(self._language)
        found = []
        line = counted = 0
        for match in lexer.finditer(self._data) if lexer is not None else ():
            if b"\n" in match[0]:
                line += self._data.count(b"\n", counted, match.start())
                end = line + match[0].count(b"\n")
                found.append((line + 1, end + 1))
                line, counted = end, match.end()
        return found

    def _parses(self) -> bool:
        try:
            # Parses as `ast` does, and is refused some code that `ast` takes; builds no nodes.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                symtable.symtable(self._data, "", "exec")  # type: ignore[arg-type]
        except (SyntaxError, ValueError):
            return self._module is not None
        return True

    @cached_property
    def _module(self) -> ast.Module | None:
        return python_module(self._data)

    @cached_property
    def _tree(self) -> Tree:
        parser = _parser(self._language)
        origin = self._origin
        if origin is None or "_tree" not in origin.outline.__dict__:
            return parser.parse(self._data)
        if origin.checking and origin.outline._tree.root_node.has_error:
            return parser.parse(self._data)
        return parser.parse(self._data, self._moved_tree(origin.outline, origin.replaced))

    def _moved_tree(self, origin: Outline, replaced: Sequence[Replaced]) -> Tree:
        """The tree of `origin`, told what was replaced, from the last line to the first."""
        tree = origin._tree.copy()
        shift = sum(one.lines - (one.end - one.start) for one in replaced)
        for start, end, lines in reversed(replaced):
            shift -= lines - (end - start)
            (at, point), (until, last) = origin._place(start), origin._place(end)
            size = self._place(start + shift + lines)[0] - self._place(start + shift)[0]
            tree.edit(at, until, at + size, point, last, (point[0] + lines, 0))
        return tree

    def _place(self, line: int) -> tuple[int, tuple[int, int]]:
        """The byte that a line starts at, and its row and column; the end of the file after all."""
        if line < len(self._starts):
            return self._starts[line], (line, 0)
        return len(self._data), (len(self._starts) - 1, len(self._data) - self._starts[-1])

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer(b"\n", self._data))]

    def chain(self, start: int, end: int) -> tuple[Scope, ...]:
        """The scopes that hold lines [start, end), outermost first.

        For an empty range (an insertion before line `start`) a scope holds it when the gap lies
        strictly inside.
        """
        if start == end:
            return tuple(s for s in self.scopes if s.start < start < s.end)
        return tuple(s for s in self.scopes if s.start <= start and end <= s.end)

    def branch(self, start: int, end: int) -> tuple[str, ...]:
        """The conditionals around lines [start, end), outermost first."""
        if start < end:
            return self.branches[start]
        above = self.branches[start - 1] if 0 < start <= len(self.branches) else ()
        below = self.branches[start] if start < len(self.branches) else ()
        same = takewhile(lambda pair: pair[0] == pair[1], zip(above, below, strict=False))
        return tuple(one for one, _ in same)


class _Origin(NamedTuple):
    outline: Outline
    replaced: Sequence[Replaced]
    checking: bool


# Python


def python_module(data: bytes) -> ast.Module | None:
    """The syntax of a Python file, None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # upstream's invalid escapes are its own affair
            return ast.parse(data)
    except (SyntaxError, ValueError):
        return None


def _python_scopes(body: Iterable[ast.AST]) -> Iterator[Scope]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
            yield Scope(kind, node.name, decorators, first, node.end_lineno or node.lineno)
        for field in _BODIES:
            yield from _python_scopes(getattr(node, field, ()))


# Where statements hold statements: a walk over expressions as well takes ten times as long.
_BODIES = ("body", "handlers", "orelse", "finalbody", "cases")


# C++ and CMake


@cache
def _grammar(language: Language) -> tree_sitter.Language:
    # Imported here: start-up of a command that needs no parser should not pay for it.
    import tree_sitter  # noqa: PLC0415

    if language is Language.CMAKE:
        from tree_sitter_cmake import language as grammar  # noqa: PLC0415
    else:
        from tree_sitter_cuda import language as grammar  # noqa: PLC0415
    return tree_sitter.Language(grammar())


_PARSED = (Language.CUDA, Language.CMAKE)


@cache
def _parser(language: Language) -> tree_sitter.Parser:
    import tree_sitter  # noqa: PLC0415

    return tree_sitter.Parser(_grammar(language))


def _tree_scopes(tree: Tree, data: bytes) -> tuple[Scope, ...]:
    # A walk, for a query of the grammar's node types takes longer to compile than all else here.
    found: list[Scope] = []
    pending = [tree.root_node]
    while pending:
        node = pending.pop()
        if (scope := _scope(node)) is not None:
            found.append(scope)
        if _may_hold_scopes(node, data):
            pending.extend(reversed(node.children))
    return tuple(sorted(found, key=lambda scope: (scope.start, -scope.end)))


def _may_hold_scopes(node: Node, data: bytes) -> bool:
    """Whether a node is worth entering: what is inside one line needs a body to be a scope."""
    return node.start_point[0] != node.end_point[0] or b"{" in data[node.start_byte : node.end_byte]


def _tree_errors(tree: Tree) -> int:
    count = 0
    pending = [tree.root_node]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            count += 1
        if node.has_error:
            pending.extend(node.children)
    return count


_NAMED = {
    "class_specifier": "class",
    "struct_specifier": "struct",
    "namespace_definition": "namespace",
    "preproc_function_def": "macro",
}
_CMAKE_DEFINITIONS = {"function_def": "function", "macro_def": "macro"}


def _scope(node: Node) -> Scope | None:
    if node.type == "function_definition":
        return _function(node)
    if node.type in _NAMED:
        name = node.child_by_field_name("name")
        if name is None or node.start_point[0] == node.end_point[0]:
            return None
        return _make(node, _NAMED[node.type], _text(name), "")
    if node.type in _CMAKE_DEFINITIONS:
        words = _text(node.children[0]).partition("(")[2].rstrip(")").split()
        return _make(node, _CMAKE_DEFINITIONS[node.type], " ".join(words[:1]), " ".join(words))
    return None


def _function(node: Node) -> Scope | None:
    body = node.child_by_field_name("body")
    pending = [child for child in node.children if child != body]
    while pending:
        part = pending.pop(0)
        if part.type == "function_declarator":
            name = part.child_by_field_name("declarator")
            parameters = part.child_by_field_name("parameters")
            if name is not None and not _text(name).startswith("__"):
                return _make(node, "function", _text(name), _text(parameters))
        pending.extend(part.children)
    return None


def _make(node: Node, kind: str, name: str, signature: str) -> Scope:
    end_row, end_column = node.end_point
    outer = node.parent
    start = node
    if outer is not None and outer.type == "template_declaration":
        start = outer
        signature = f"{_text(outer.child_by_field_name('parameters'))} {signature}"
    return Scope(kind, name, signature, start.start_point[0], end_row + (1 if end_column else 0))


def _text(node: Node | None) -> str:
    if node is None or node.text is None:
        return ""
    return " ".join(node.text.decode("utf-8", "replace").split())


# Strings and comments, told from each other by reading all of both in order.
_LEXERS = {
    Language.PYTHON: re.compile(
        rb'#[^\n]*|"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    ),
    Language.CUDA: re.compile(
        rb'//[^\n]*|/\*[\s\S]*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    ),
}


def without_prose(data: bytes, language: Language) -> bytes:
    """Code without its strings and comments."""
    lexer = _LEXERS.get(language)
    return data if lexer is None else lexer.sub(b" ", data)


_PREPROCESSOR = re.compile(rb"\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)")
_CMAKE_DEFINITION = re.compile(rb"^\s*(function|macro)\s*\(", re.IGNORECASE | re.MULTILINE)
_CMAKE_IF = re.compile(rb"\s*(if|elseif|else|endif)\s*(\(.*)", re.IGNORECASE)


def _branches(lines: list[bytes], directive: re.Pattern[bytes]) -> Iterator[tuple[str, ...]]:
    """The chain of conditionals each line stands in; a directive line stands outside its own."""
    stack: list[str] = []
    for line in lines:
        match = directive.match(line)
        if match is None:
            yield tuple(stack)
            continue
        word = match[1].decode().lower()
        condition = " ".join(match[2].decode("utf-8", "replace").split())
        if word.startswith("if"):
            yield tuple(stack)
            stack.append(f"{word} {condition}")
            continue
        opened = stack.pop() if stack else ""
        yield tuple(stack)
        if word != "endif":
            # `else` keeps the condition it answers: two else branches are not alike.
            stack.append(
                f"{word} {condition}"
                if word.startswith("el") and word != "else"
                else f"else of {opened}"
            )
