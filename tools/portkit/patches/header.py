"""The header of a patch as a value: DEP-3 fields, and ours that the tools use.

The fields are read with the mail parser of the standard library, DEP-3 being a mail header; the
raw bytes stay the truth, so that writing a patch never rewrites what a person wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from email.parser import HeaderParser

SUMMARY_WIDTH = 72
WAIVER = "Audit-Waiver"  # the reason to accept a patch that the audit cannot prove
STUB = "TODO"

_REQUIRED = ("Description", "Author", "Forwarded", "Last-Update", "Diagnostic", "Test", "Archs")
_OPTIONAL = re.compile(
    r"Origin|Bug(-\w+)?|Reviewed-by|Acked-by|Applied-Upstream|Audit-Waiver|X-[\w-]+", re.I
)
_ALIASES = {"subject": "description", "from": "author"}  # DEP-3 allows a git mail's names
_ARCH = re.compile(r"\d+\.\d[af]?")
_FORWARDED = re.compile(r"no|not-needed|yes|https?://\S+")
_TEST = re.compile(r"[\w.-]+(/[\w.-]+)*\.\w+(::[\w.\[\]:-]+)?")


@dataclass(frozen=True)
class Field:
    """One field: its name as written, its value with folded lines, its 1-based line."""

    name: str
    value: str
    line: int

    @property
    def key(self) -> str:
        """What the field is known by: lower case, DEP-3's aliases resolved."""
        return _ALIASES.get(self.name.lower(), self.name.lower())


@dataclass(frozen=True)
class Header:
    """A parsed header; `raw` is the bytes as written, `text_line` the first line of no field."""

    raw: bytes
    fields: tuple[Field, ...] = ()
    text_line: int | None = None

    def value(self, name: str) -> str:
        """The value of a field, the empty string when it is missing."""
        return next((field.value for field in self.fields if field.key == name.lower()), "")

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.value("Description").partition("\n")[0].strip()

    @property
    def body(self) -> str:
        """The description below its first line: unfolded, paragraphs apart by an empty line."""
        return "\n".join(_unfolded(self.value("Description").partition("\n")[2]))

    @property
    def author(self) -> str:
        return self.value("Author")

    @property
    def forwarded(self) -> str:
        return self.value("Forwarded")

    @property
    def last_update(self) -> str:
        return self.value("Last-Update")

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """What the patch cures: compiler codes, exception names, short ids."""
        return _items(self.value("Diagnostic"))

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that cover it, `file::name`."""
        return _items(self.value("Test"))

    @property
    def archs(self) -> tuple[str, ...]:
        """CUDA architectures it is built for (`8.0`), or the one word `all` or `none`."""
        return _items(self.value("Archs"))


def parse(raw: bytes) -> Header:
    """The header of a patch; never fails, see `validate` for what is wrong with it."""
    text = raw.decode("utf-8", "replace")
    message = HeaderParser().parsestr(text)
    fields: list[Field] = []
    line = 1
    for name, value in message.items():
        fields.append(Field(name, str(value).strip(), line))
        line += str(value).count("\n") + 1
    rest = str(message.get_payload())
    return Header(raw, tuple(fields), line if rest.strip() or message.defects else None)


def stub(path: str, *, author: str, today: date) -> bytes:
    """The header of an imported patch: every field that a person has to write says `TODO`."""
    return (
        f"Description: {STUB}: one line\n"
        f" {STUB}: what fails on Windows in {path}, with the error, and what this changes.\n"
        f"Author: {author}\n"
        "Forwarded: no\n"
        f"Last-Update: {today.isoformat()}\n"
        f"Diagnostic: {STUB}\n"
        f"Test: {STUB}\n"
        f"Archs: {STUB}\n"
    ).encode()


def validate(header: Header) -> list[tuple[int, str]]:
    """What is wrong with a header, as (line, message), in the order of lines."""
    return sorted([*_shape_faults(header), *_value_faults(header)])


def _shape_faults(header: Header) -> Iterator[tuple[int, str]]:
    try:
        header.raw.decode()
    except UnicodeDecodeError as error:
        yield header.raw.count(b"\n", 0, error.start) + 1, "is not UTF-8"
    if header.text_line is not None:
        yield header.text_line, "text outside of fields (continued lines begin with a space)"
    known = {name.lower() for name in _REQUIRED}
    seen: set[str] = set()
    for field in header.fields:
        if field.key in seen:
            yield field.line, f"field {field.name} is given twice"
        elif field.key not in known and not _OPTIONAL.fullmatch(field.name):
            yield field.line, f"unknown field {field.name}"
        seen.add(field.key)
    for name in _REQUIRED:
        if name.lower() not in seen:
            yield 1, f"field {name} is missing"


def _value_faults(header: Header) -> Iterator[tuple[int, str]]:
    for field in header.fields:
        if STUB in field.value.split() or f"{STUB}:" in field.value:
            yield field.line, f"{field.name} is still a stub"
        elif not field.value:
            yield field.line, f"{field.name} is empty"
        elif fault := _fault(field, header):
            yield field.line, fault


def _fault(field: Field, header: Header) -> str:
    if field.key == "description":
        if len(header.summary) > SUMMARY_WIDTH:
            return f"the summary is longer than {SUMMARY_WIDTH} characters"
        if not header.body:
            return "Description has no body: say what fails on Windows and what the change does"
    if field.key == "forwarded" and not _FORWARDED.fullmatch(field.value):
        return "Forwarded is not one of no, not-needed, yes or an address"
    if field.key == "last-update" and not _is_date(field.value):
        return "Last-Update is not a date (YYYY-MM-DD)"
    if field.key == "archs" and header.archs not in (("all",), ("none",)):
        for arch in header.archs:
            if not _ARCH.fullmatch(arch):
                return f"Archs: {arch!r} is not all, none or an architecture such as 8.6"
    if field.key == "test":
        for test in header.tests:
            if not _TEST.fullmatch(test):
                return f"Test: {test!r} is not of the form file.py::name"
    if field.name == WAIVER:
        if len(field.value.split()) < 3:
            return f"{WAIVER} gives no reason: say why the patch is harmless though unproved"
        if not header.value("Reviewed-by"):
            return f"{WAIVER} needs a Reviewed-by field: who agreed to it"
    if field.key == "diagnostic":
        for item in header.diagnostics:
            if re.search(r"\s", item):
                return f"Diagnostic: {item!r} is not one word"
    return ""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _items(value: str) -> tuple[str, ...]:
    return tuple(item for part in value.split(",") if (item := " ".join(part.split())))


def _unfolded(folded: str) -> Iterator[str]:
    """Lines without their leading space; ` .` is an empty line."""
    for line in folded.splitlines():
        text = line[1:] if line[:1] in (" ", "\t") else line
        yield "" if text.strip() == "." else text.rstrip()
