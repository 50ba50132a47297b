"""What can be wrong with one patch: its form, its header, its lines, what Python makes of it."""

from __future__ import annotations

import builtins
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from portkit.errors import BadInput
from portkit.model import Patch, split_lines
from portkit.patches import header
from portkit.patches.header import Header
from portkit.patches.patchfile import SERIES_FOLDER, canonical_change, format_patch
from portkit.stack.blame import printed_at


@dataclass(frozen=True, order=True)
class Fault:
    """Something wrong in `file` (below the repository's root) at `line` (1-based), by `rule`."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Listed:
    """A patch that `series` lists at `line` and that reads as one, with its file's bytes."""

    patch: Patch
    data: bytes
    line: int

    @property
    def file(self) -> str:
        return f"{SERIES_FOLDER}/{self.patch.name}"

    def fault(self, line: int, rule: str, message: str) -> Fault:
        return Fault(self.file, line, rule, message)

    def added(self) -> Iterator[tuple[int, bytes]]:
        """The added lines, each with its line in the patch file."""
        for hunk, numbers in zip(self.patch.change.hunks, self._printed, strict=True):
            for line, number in zip(hunk.lines, numbers, strict=True):
                if line[:1] == b"+":
                    yield number, line[1:]

    def at_hunk(self, number: int) -> int:
        """The line of the `@@` of hunk `number` (1-based; 0 is the change itself)."""
        if number and self._printed:
            return self._printed[number - 1][0] - 1
        return split_lines(self.data).index(_first(self.data)) + 1

    @cached_property
    def _printed(self) -> list[list[int]]:
        return printed_at(self.data, self.patch.change)


# the patch as a file


def of_form(one: Listed) -> Iterator[Fault]:
    """Whether writing the patch again changes nothing."""
    try:
        written = split_lines(format_patch(one.patch))
    except BadInput as error:
        yield one.fault(1, "canonical", error.message)
        return
    there = split_lines(one.data)
    if written == there:
        return
    pairs = zip([*written, b""], [*there, b""], strict=False)
    at = next((n for n, (new, old) in enumerate(pairs) if new != old), len(written))
    if at < len(written):
        wanted = written[at].decode("utf-8", "replace").rstrip("\n")
        message = f"is not in canonical form: expected {wanted[:60]!a}"
    else:
        message = "is not in canonical form: the patch ends above"
    yield one.fault(at + 1, "canonical", message)


def _first(data: bytes) -> bytes:
    """The first line of the diff."""
    lines = split_lines(data)
    return next((line for line in lines if line.startswith((b"diff --git ", b"--- "))), lines[0])


# the header


class Tests:
    """The tests there are, file by file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str] | None] = {}

    def fault(self, reference: str) -> str:
        """What is wrong with `file::name`, or the empty string."""
        file, _, name = reference.partition("::")
        if file not in self._names:
            self._names[file] = self._read(file)
        names = self._names[file]
        if names is None:
            return f"there is no test file {file}"
        wanted = name.partition("[")[0]
        if wanted and not set(wanted.split("::")) <= names:
            return f"{file} has no test {wanted}"
        return ""

    def _read(self, file: str) -> set[str] | None:
        try:
            text = (self._root / file).read_text("utf-8", "replace")
        except OSError:
            return None
        return set(re.findall(r"^\s*(?:async\s+)?(?:def|class)\s+(\w+)", text, re.MULTILINE))


# MSVC, its linker and tools; nvcc's numbered warnings; ids of our own.
_CODE = re.compile(r"(C|D|LNK|CVT|RC|U|NMAKE|MSB|WinError-)\d{2,5}")
_ID = re.compile(r"#?[a-z0-9]+(-[a-z0-9]+)+(-D)?|#\d+-[A-Z]")
_EXCEPTION = re.compile(r"([a-z_]\w*\.)+[A-Z]\w*")


def of_header(one: Listed, tests: Tests, today: date) -> Iterator[Fault]:
    if not one.patch.header:
        yield one.fault(1, "header", "has no header")
        return
    head = header.parse(one.patch.header)
    for line, message in header.validate(head):
        yield one.fault(line, "header", message)
    lines = {field.key: field.line for field in head.fields}
    if _is_future(head.last_update, today):
        message = f"Last-Update {head.last_update} lies in the future"
        yield one.fault(lines["last-update"], "date", message)
    for reference in head.tests:
        if "TODO" not in reference and (message := tests.fault(reference)):
            yield one.fault(_line_of(one, reference, lines["test"]), "test", message)
    yield from _of_diagnostics(one, head, lines)


def _of_diagnostics(one: Listed, head: Header, lines: Mapping[str, int]) -> Iterator[Fault]:
    for item in head.diagnostics:
        line = _line_of(one, item, lines["diagnostic"], last=True)
        known = _is_exception(item) or _CODE.fullmatch(item) is not None
        if item == header.STUB or re.search(r"\s", item) or _ID.fullmatch(item):
            continue
        if not known:
            message = f"{item} is no compiler code, exception or id-with-dashes"
            yield one.fault(line, "diagnostic", message)
        elif item not in head.value("Description"):
            message = f"Description does not say where {item} comes from"
            yield one.fault(line, "diagnostic", message)


def _is_exception(name: str) -> bool:
    kind = getattr(builtins, name, None)
    return (isinstance(kind, type) and issubclass(kind, BaseException)) or bool(
        _EXCEPTION.fullmatch(name)
    )


def _is_future(text: str, today: date) -> bool:
    try:  # a day's grace: it is tomorrow already somewhere
        return date.fromisoformat(text) > today + timedelta(days=1)
    except ValueError:
        return False


def _line_of(one: Listed, text: str, otherwise: int, *, last: bool = False) -> int:
    """The line of the header, from `otherwise` on, that holds `text`."""
    lines = split_lines(one.patch.header)
    found = [n for n, line in enumerate(lines, 1) if text.encode() in line and n >= otherwise]
    return found[0] if found else otherwise


# the added lines

_MARKERS = (b"<<<<<<< ", b"||||||| ", b">>>>>>> ")


def of_lines(one: Listed) -> Iterator[Fault]:
    hunks = one.patch.change.hunks
    theirs = [line[1:] for hunk in hunks for line in hunk.lines if line[:1] != b"+"]
    known = {line.rstrip(b"\r\n") for line in theirs}
    ends = _line_ends(one.patch.path, theirs)
    tabs = any(b"\t" in _indent(line) for line in theirs) or _is_makefile(one.patch.path)
    marked = False
    for number, line in one.added():
        text = line.rstrip(b"\r\n")
        if text.startswith(_MARKERS) or (marked and text == b"======="):
            marked = True
            yield one.fault(number, "marker", "a conflict marker is left")
        if ends == "LF" and line.endswith(b"\r\n"):
            yield one.fault(number, "cr", "the line ends in CRLF, the file's in LF")
        if ends == "CRLF" and line.endswith(b"\n") and not line.endswith(b"\r\n"):
            yield one.fault(number, "cr", "the line ends in LF, the file's in CRLF")
        if b"\t" in _indent(line) and not tabs:
            yield one.fault(number, "tab", "indented by a tab, the file by spaces")
        if text != text.rstrip(b" \t") and text not in known:
            yield one.fault(number, "space", "white space at the end of the line")


def _line_ends(path: str, theirs: Sequence[bytes]) -> str:
    """How upstream's lines around the change end: LF, CRLF, or the empty string for both."""
    found = {line.endswith(b"\r\n") for line in theirs if line.endswith(b"\n")}
    if not found:
        return "CRLF" if path.endswith((".bat", ".cmd")) else "LF"
    if len(found) > 1:
        return ""
    return "CRLF" if True in found else "LF"


def _indent(line: bytes) -> bytes:
    return line[: len(line) - len(line.lstrip(b" \t"))]


def _is_makefile(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name in ("Makefile", "GNUmakefile") or name.endswith(".mk")


# files that are there by accident

_ACCIDENTS = (
    *(
        "*.orig",
        "*.rej",
        "*.bak",
        "*.swp",
        "*.swo",
        "*~",
        "#*#",
        "*.tmp",
        "*.log",
        "*.pyc",
        "*.pyd",
    ),
    *("*.obj", "*.o", "*.so", "*.dll", "*.exe", "*.pdb", "*.patch", "*.diff"),
    *(".DS_Store", "Thumbs.db", "desktop.ini", "CMakeCache.txt", "a.out", "core"),
)
_ACCIDENT_FOLDERS = ("__pycache__", ".pc", ".git", ".vs", ".vscode", ".idea")


def _is_accident(path: str) -> bool:
    *folders, name = path.split("/")
    return any(fnmatch(name, pattern) for pattern in _ACCIDENTS) or any(
        folder in _ACCIDENT_FOLDERS or folder.endswith(".egg-info") for folder in folders
    )


def of_file(one: Listed) -> Iterator[Fault]:
    change = one.patch.change
    if change.old_path is None and _is_accident(change.path):
        message = f"adds {change.path}, which looks like a file left by a tool"
        yield one.fault(one.at_hunk(0), "new-file", message)


# what the patches make of upstream's source


def of_python(one: Listed, before: bytes | None, after: bytes) -> Iterator[Fault]:
    path = one.patch.path
    error = _syntax_error(after) if path.endswith((".py", ".pyi")) else None
    if error is not None and (before is None or _syntax_error(before) is None):
        wrong = error.lineno or 1
        message = f"{path} does not compile at line {wrong}: {error.msg}"
        yield one.fault(_printed_near(one, wrong), "compiles", message)


def _syntax_error(data: bytes) -> SyntaxError | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, "<patched>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error
    except ValueError as error:  # a NUL byte
        return SyntaxError(str(error))
    return None


def _printed_near(one: Listed, line: int) -> int:
    """Where the patch file has line `line` of the patched file, or else the hunk above it."""
    best = one.at_hunk(0)
    change = canonical_change(one.patch.change)
    for hunk, numbers in zip(change.hunks, printed_at(one.data, one.patch.change), strict=True):
        new = hunk.new_start
        if new <= line:
            best = numbers[0] - 1
        for text, number in zip(hunk.lines, numbers, strict=True):
            if text[:1] != b"-":
                if new == line:
                    return number
                new += 1
    return best
