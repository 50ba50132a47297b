"""C++ and CUDA as preprocessing tokens, so that spelling and white space do not count.

Alternative tokens (`or`, `<:`) and alternative keywords (`__asm__`) get their usual spelling: the
compilers that build vLLM on Linux take both for the same token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ALTERNATIVES = {
    "and": "&&", "or": "||", "not": "!", "bitand": "&", "bitor": "|", "xor": "^", "compl": "~",
    "and_eq": "&=", "or_eq": "|=", "xor_eq": "^=", "not_eq": "!=",
    "<%": "{", "%>": "}", "<:": "[", ":>": "]", "%:": "#", "%:%:": "##",
    "__asm__": "asm", "__asm": "asm", "__volatile__": "volatile", "__volatile": "volatile",
    "__inline__": "inline", "__inline": "inline", "__const__": "const", "__const": "const",
    "__signed__": "signed", "__restrict__": "__restrict", "__alignof__": "__alignof",
    "__typeof__": "__typeof",
}  # fmt: skip

_TOKEN = re.compile(
    r"""
    (?: //(?: \\[ \t]*\r?\n | [^\n] )* | /\*[\s\S]*?\*/ | \\[ \t]*\r?\n | [ \t\r\f\v]+ )
  | (?P<newline> \n )
  | (?P<token>
        (?:u8|[uUL])?R"([^()\\\s]{0,16})\([\s\S]*?\)\3"   # raw string
      | (?:u8|[uUL])?"(?:\\[\s\S]|[^"\\\n])*"             # string
      | (?:u8|[uUL])?'(?:\\[\s\S]|[^'\\\n])+'             # character
      | \.?\d(?:[eEpP][+-]|'?[\w.])*                      # number
      | [^\W\d][\w$]*                                     # name
      | %:%: | <=> | ->\* | <<= | >>= | \.\.\. | \#\# | <: | :> | <% | %> | %: | :: | ->
      | \+\+ | -- | << | >> | <= | >= | == | != | && | \|\| | \+= | -= | \*= | /= | %= | &= | \|=
      | \^= | \.\* | [\s\S]
    )
    """,
    re.VERBOSE,
)
FUNCTION_LIKE = "#("  # the parenthesis that makes a macro function-like: no space before it


def logical_lines(data: bytes) -> Iterator[list[str]]:
    """The tokens of each logical line that has any, without comments.

    The line of a directive begins with `#`.  A comment or raw string over several lines joins
    them, and so does a backslash at the end of a line.
    """
    text = data.decode("utf-8", "surrogateescape")
    line: list[str] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "newline":
            if line:
                yield line
            line = []
        elif kind == "token":
            token = _ALTERNATIVES.get(match[0], match[0])
            if token == "(" and line[:2] == ["#", "define"] and len(line) == 3:
                glued = text[match.start() - 1].isalnum() or text[match.start() - 1] == "_"
                token = FUNCTION_LIKE if glued else token
            line.append(token)
    if line:
        yield line
