"""Detectors of C++ constructs that a pattern cannot tell: names, nesting and lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator

from portkit.scan.built import Build
from portkit.scan.code import Code
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language
from portkit.scan.rules import Rule

_NESTING = 120  # MSVC's limit is 128, and a chain stands in other blocks already
_LITERAL = 16_380  # bytes of one string literal
_JOINED = 65_535  # bytes of adjacent ones


def _files(context: Context, *literals: bytes) -> Iterator[tuple[str, Code]]:
    """The C++ files that hold any of `literals`."""
    paths = context.tree.of_language(Language.CPP)
    for path, data in context.tree.read_all(paths).items():
        if any(text in data for text in literals):
            yield path, Code(data, Language.CPP)


def _at(rule: Rule, path: str, code: Code, index: int, detail: str = "") -> Finding:
    line, column = code.place(index)
    return rule.at(path, line, column, code.line(line).strip(), detail)


# variable templates with an execution space

_VARIABLE_TEMPLATE = re.compile(
    r"\btemplate\s*<[^;{}()]*?>\s*"
    r"(?:(?:static|inline|constexpr|const)\s+)*"
    r"(?P<space>(?:__host__|__device__|\w*HOST_DEVICE\w*|\w*_DEVICE)\s+)+"
    r"[^;{}()=]*?\b(?P<name>\w+)\s*(?:<[^;{}()=]*>\s*)?=(?!=)"
)


def variable_templates(context: Context) -> Iterator[Finding]:
    """Variable templates annotated for a device, and every use of them as a variable."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get("variable-templates", ())}
    if not rules:
        return
    names: dict[str, str] = {}
    defined: dict[str, list[int]] = {}
    for path, code in _files(context, b"__device__", b"DEVICE"):
        for match in _VARIABLE_TEMPLATE.finditer(code.code):
            names[match["name"]] = path
            defined.setdefault(path, []).append(match.start("name"))
            if (rule := rules.get("cpp-device-variable-template")) is not None:
                yield _at(rule, path, code, match.start("name"), match["name"])
    use = rules.get("cpp-device-variable-template-use")
    if not names or use is None:
        return
    word = re.compile(rf"\b(?P<name>{'|'.join(sorted(names))})\s*<[^;{{}}()]*?>(?!\s*\()")
    for path, code in _files(context, *(name.encode() for name in names)):
        seen: set[int] = set()
        for match in word.finditer(code.code):
            line, _ = code.place(match.start())
            if match.start() not in defined.get(path, ()) and line not in seen:
                seen.add(line)
                detail = f"{match['name']} is defined in {names[match['name']]}"
                yield _at(use, path, code, match.start(), detail)


# functions that Python looks up in a library

_EXTERN_C = re.compile(r'extern\s+"C"\s*(?P<block>\{)?')
_C_FUNCTION = re.compile(
    r"(?P<head>[\w*&\s()]*?)\b(?P<name>\w+)\s*\([^;{}]*\)\s*(?:noexcept\s*)?\{"
)
_QUOTED = re.compile(rb"[\"'](\w{3,})[\"']")


def exports(context: Context) -> Iterator[Finding]:
    """C functions that no declaration exports, whose names Python code has in quotes."""
    rules = context.rules.by_detector.get("exports", ())
    files = [(path, code) for path, code in _files(context, b'extern "C"') if rules]
    if not files:
        return
    python = [path for path in context.tree.of_language(Language.PYTHON) if path[:5] == "vllm/"]
    texts = context.tree.read_all(python).values()
    named = {name.decode() for text in texts for name in _QUOTED.findall(text)}
    for rule in rules:
        for path, code in files:
            for match in _c_functions(code):
                exported = re.search(r"dllexport|PyMODINIT_FUNC|\bstatic\b|EXPORT", match["head"])
                if match["name"] in named and not exported:
                    yield _at(rule, path, code, match.start("name"), match["name"])


def _c_functions(code: Code) -> Iterator[re.Match[str]]:
    """The functions that `extern "C"` defines, alone or in a block."""
    for start in _EXTERN_C.finditer(code.strings):
        if not start["block"]:
            one = _C_FUNCTION.match(code.code, start.end())
            yield from [one] if one is not None else []
            continue
        end = _block_end(code.code, start.end())
        for match in _C_FUNCTION.finditer(code.code, start.end(), end):
            if code.code.count("{", start.end(), match.start("name")) == code.code.count(
                "}", start.end(), match.start("name")
            ):
                yield match


def _block_end(text: str, start: int) -> int:
    """Where the block that begins before `start` ends."""
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return start + brace.start()
    return len(text)


# directives inside macro arguments

_MACRO_CALL = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\s*$")
_DEFINITION = re.compile(r"^[ \t]*#[ \t]*define\b(?:\\\n|[^\n])*", re.MULTILINE)
_PART = re.compile(r"^[ \t]*#[ \t]*(?P<word>if\w*|el\w+|endif)\b(?:\\\n|[^\n])*|[()]", re.MULTILINE)


def macro_arguments(context: Context) -> Iterator[Finding]:
    """Conditionals between the parentheses of a macro that is written in capitals."""
    for rule in context.rules.by_detector.get("macro-arguments", ()):
        for path, code in _files(context, b"#if", b"# if"):
            text = _DEFINITION.sub(lambda match: " " * len(match[0]), code.code)
            yield from _inside_calls(rule, path, code, text)


def _inside_calls(rule: Rule, path: str, code: Code, text: str) -> Iterator[Finding]:
    opened: list[str] = []  # for each open parenthesis, the macro it belongs to or ""
    saved: list[list[str]] = []  # `opened` at each #if: its branches begin alike
    for part in _PART.finditer(text):
        word = part["word"]
        if word is None and part[0] == "(":
            before = _MACRO_CALL.search(text[max(0, part.start() - 80) : part.start()])
            opened.append(before[0].strip() if before else "")
        elif word is None:
            if opened:
                opened.pop()
        elif word.startswith("if"):
            macro = next((name for name in opened if name), "")
            if macro:
                yield _at(rule, path, code, part.start(), f"in the arguments of {macro}")
            saved.append(list(opened))
        elif word.startswith("el") and saved:
            opened = list(saved[-1])
        elif word == "endif" and saved:
            saved.pop()


# what the compiler takes a byte for

_UNUSUAL = re.compile(rb"[^\x00-\x7f]")


def source_encoding(context: Context) -> Iterator[Finding]:
    """One finding for all sources with characters outside of ASCII: one flag cures them."""
    rules = context.rules.by_detector.get("source-encoding", ())
    sources = Build(context.tree).sources if rules else ()
    files = context.tree.read_all(path for path in sources if path.endswith(_COMPILED))
    unusual = sorted(path for path, data in files.items() if _UNUSUAL.search(data))
    for rule in rules if unusual else ():
        excerpt = context.tree.read("CMakeLists.txt").decode("utf-8", "replace").partition("\n")[0]
        detail = f"{len(unusual)} files, {unusual[0]} the first"
        yield rule.at("CMakeLists.txt", 1, 1, excerpt, detail)


_COMPILED = (".cu", ".cuh", ".h", ".hpp", ".cpp", ".cc", ".c")


# limits of the compiler

_TOKEN = re.compile(r"[{}]|\belse\s+if\b|\bif\b")
_STRINGS = re.compile(r'"(?:\\.|[^"\\\n])*"(?:\s*"(?:\\.|[^"\\\n])*")*')
_ONE = re.compile(r'"(?:\\.|[^"\\\n])*"')


def limits(context: Context) -> Iterator[Finding]:
    """Chains of `else if` and string literals that are too long for MSVC."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get("limits", ())}
    nesting, strings = rules.get("cpp-nesting-limit"), rules.get("cpp-string-limit")
    if nesting is not None:
        for path, code in _files(context, b"else if"):
            for start, length in chains(code.code):
                yield _at(nesting, path, code, start, f"{length} branches")
    if strings is not None:
        paths = context.tree.of_language(Language.CPP)
        for path, data in context.tree.read_all(paths).items():
            if len(data) > _LITERAL:
                code = Code(data, Language.CPP)
                for start, size in long_strings(code.strings):
                    yield _at(strings, path, code, start, f"{size} bytes")


def chains(text: str) -> Iterator[tuple[int, int]]:
    """Start and length of each chain of `else if` that nests too deep."""
    if text.count("else if") < _NESTING:
        return
    chains: dict[int, tuple[int, int]] = {}  # by depth of braces: start, length
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            depth += 1
        elif token[0] == "}":
            if (done := chains.pop(depth, (0, 0)))[1] >= _NESTING:
                yield done
            depth -= 1
        elif token[0] == "if":
            if (done := chains.pop(depth, (0, 0)))[1] >= _NESTING:
                yield done
            chains[depth] = (token.start(), 1)
        elif depth in chains:
            start, length = chains[depth]
            chains[depth] = (start, length + 1)
    yield from (chain for chain in chains.values() if chain[1] >= _NESTING)


def long_strings(text: str) -> Iterator[tuple[int, int]]:
    """Start and bytes of each string literal, or run of adjacent ones, that is too long."""
    for match in _STRINGS.finditer(text):
        longest = max(len(part) - 2 for part in _ONE.findall(match[0]))
        if longest > _LITERAL or len(match[0]) > _JOINED:
            yield match.start(), max(longest, len(match[0]))
