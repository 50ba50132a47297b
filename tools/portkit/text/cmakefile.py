"""What a CMake file says: its commands in order, each with the conditions it stands under.

Read with a real parser, never run: a variable stands for what `set` gave it, where that is plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


@dataclass(frozen=True)
class Condition:
    """An `if` or `elseif` around a command; `holds` is False in the branches that follow it."""

    words: tuple[str, ...]
    holds: bool = True

    def __str__(self) -> str:
        text = " ".join(self.words)
        return text if self.holds else f"not ({text})"


@dataclass(frozen=True)
class Command:
    """A command: its lower-case name, arguments without their quotes, conditions, 1-based lines."""

    name: str
    arguments: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    line: int = 0
    last_line: int = 0

    def after(self, keyword: str) -> str | None:
        """The argument that follows `keyword`, None when there is none."""
        for word, following in zip(self.arguments, self.arguments[1:], strict=False):
            if word == keyword:
                return following
        return None

    def under(self, *words: str) -> bool:
        """Whether the command is only reached when a condition with exactly these words holds."""
        return any(c.holds and c.words == words for c in self.conditions)


def commands(data: bytes) -> tuple[Command, ...]:
    """Every command of a file, in order; what the parser cannot read is left out.

    So are the bodies of functions and macros: what they do depends on their callers.
    """
    return tuple(_commands(_parser().parse(data).root_node, ()))


@dataclass(frozen=True)
class Definition:
    """A function or a macro: its lower-case name, its lines (1-based), the commands in its body."""

    name: str
    line: int
    last_line: int
    body: tuple[Command, ...]


def definitions(data: bytes) -> tuple[Definition, ...]:
    """The functions and macros of a file."""
    found = []
    pending = [_parser().parse(data).root_node]
    while pending:
        node = pending.pop()
        if node.type in ("function_def", "macro_def"):
            head = node.named_children[0]
            name = next(iter(_arguments(head)), "").lower()
            body = tuple(_commands(node, ()))
            found.append(Definition(name, node.start_point[0] + 1, node.end_point[0] + 1, body))
        else:
            pending.extend(node.named_children)
    return tuple(found)


def first_error(data: bytes) -> int:
    """The line (1-based) of the first syntax error; 0 when there is none."""
    pending = [_parser().parse(data).root_node]
    while pending:
        node = pending.pop()
        if node.is_error or node.is_missing:
            return node.start_point[0] + 1
        if node.has_error:
            pending.extend(reversed(node.children))
    return 0


@cache
def _parser() -> Parser:
    # Imported here: start-up of a command that needs no parser should not pay for it.
    import tree_sitter  # noqa: PLC0415
    import tree_sitter_cmake  # noqa: PLC0415

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_cmake.language()))


def _commands(node: Node, conditions: tuple[Condition, ...]) -> Iterator[Command]:
    for child in node.named_children:
        if child.type == "normal_command":
            name = _text(child.children[0]).lower()
            first, last = child.start_point[0] + 1, child.end_point[0] + 1
            yield Command(name, _arguments(child), conditions, first, last)
        elif child.type == "if_condition":
            yield from _branches(child, conditions)
        elif child.type not in ("function_def", "macro_def"):
            yield from _commands(child, conditions)


def _branches(node: Node, outer: tuple[Condition, ...]) -> Iterator[Command]:
    refused: tuple[Condition, ...] = ()
    current: tuple[Condition, ...] = ()
    for child in node.named_children:
        if child.type in ("if_command", "elseif_command", "else_command"):
            refused += tuple(Condition(c.words, holds=False) for c in current[-1:])
            current = ()
            if child.type != "else_command":
                current = (Condition(_arguments(child)),)
        else:
            yield from _commands(child, (*outer, *refused, *current))


def _arguments(command: Node) -> tuple[str, ...]:
    return tuple(
        _argument(argument)
        for child in command.named_children
        if child.type == "argument_list"
        for argument in child.named_children
        if argument.type == "argument"
    )


def _argument(node: Node) -> str:
    kind = node.named_children[0].type if node.named_children else ""
    if kind == "quoted_argument":
        return _text(node)[1:-1]
    if kind == "bracket_argument":
        return _text(node).partition("[")[2].partition("[")[2].rpartition("]")[0].rpartition("]")[0]
    return _text(node)


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
