"""One source file for matching: its text, without comments, without strings, and its syntax."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

from ast_grep_py import SgNode, SgRoot

from portkit.scan.model import Language

_SYNTAX = {Language.CPP: "cpp", Language.PYTHON: "python", Language.RUST: "rust"}

_STRING = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
_C_COMMENT = r"//(?:\\\n|[^\n])*|/\*[\s\S]*?\*/"
_RAW = r'R"(?P<mark>[^(\s]{0,16})\([\s\S]*?\)(?P=mark)"'
# A digit separator (1'000) is no quote.
_C_CODE = rf"(?P<comment>{_C_COMMENT})|{_RAW}|(?<![0-9a-fA-F])(?:{_STRING})|\"(?:\\.|[^\"\\\n])*\""
_PYTHON_CODE = rf'(?P<comment>#[^\n]*)|"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|{_STRING}'
_LEXERS = {
    Language.CPP: re.compile(_C_CODE),
    Language.RUST: re.compile(rf"(?P<comment>{_C_COMMENT})|\"(?:\\.|[^\"\\])*\""),
    Language.PYTHON: re.compile(_PYTHON_CODE),
    Language.CMAKE: re.compile(r'(?P<comment>#[^\n]*)|"(?:\\.|[^"\\])*"'),
    Language.REQUIREMENTS: re.compile(r"(?P<comment>(?:^|(?<=\s))#[^\n]*)", re.MULTILINE),
}
_INK = re.compile(r"[^\n]")


class Code:
    """A file as text, each view of it of the same length, so that places are the same in all.

    Views: `text` is the file as it is, `strings` is without comments, `code` without comments and
    without what stands in string literals.
    """

    def __init__(self, data: bytes, language: Language) -> None:
        self.language = language
        self.text = data.decode("utf-8", "replace")

    def view(self, name: str) -> str:
        """The view of this name."""
        if name == "text":
            return self.text
        return self.strings if name == "strings" else self.code

    @cached_property
    def strings(self) -> str:
        """The text with comments blanked."""
        return self._blanked(strings=False)

    @cached_property
    def code(self) -> str:
        """The text with comments and what stands in string literals blanked."""
        return self._blanked(strings=True)

    @cached_property
    def syntax(self) -> SgNode:
        """The root of the syntax tree; only for languages with a grammar."""
        return SgRoot(self.text, _SYNTAX[self.language]).root()

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def place(self, index: int) -> tuple[int, int]:
        """1-based line and column of a character."""
        line = bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (1-based)."""
        start = self._starts[number - 1]
        return self.text[start:].partition("\n")[0] if start < len(self.text) else ""

    def _blanked(self, *, strings: bool) -> str:
        lexer = _LEXERS.get(self.language)
        if lexer is None:
            return self.text

        def blank(match: re.Match[str]) -> str:
            text = match[0]
            if match["comment"] is not None:
                return _INK.sub(" ", text)
            return text[0] + _INK.sub(" ", text[1:-1]) + text[-1] if strings else text

        return lexer.sub(blank, self.text)
