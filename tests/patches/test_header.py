"""DEP-3 headers: what the tools read from them, and what they find wrong."""

from __future__ import annotations

from datetime import date

import pytest

from portkit.patches import header

GOOD = """\
Description: avoid __builtin_clz, which MSVC does not have
 MSVC 19.43 stops with C3861.
 .
 The caf\xe9 branch is untouched.
Author: maintainers
Forwarded: no
Last-Update: 2026-01-31
Diagnostic: C3861, cmake-path-spaces
Test: tests/port/test_math.py::test_next_pow_2,
 kernel_tests/test_x.py::test_y[8-half]
Archs: 8.0, 9.0a
"""


def test_fields() -> None:
    parsed = header.parse(GOOD.encode())
    assert header.validate(parsed) == []
    assert parsed.summary == "avoid __builtin_clz, which MSVC does not have"
    assert parsed.body == "MSVC 19.43 stops with C3861.\n\nThe caf\xe9 branch is untouched."
    assert parsed.author == "maintainers"
    assert parsed.forwarded == "no"
    assert parsed.last_update == "2026-01-31"
    assert parsed.diagnostics == ("C3861", "cmake-path-spaces")
    assert parsed.tests == (
        "tests/port/test_math.py::test_next_pow_2",
        "kernel_tests/test_x.py::test_y[8-half]",
    )
    assert parsed.archs == ("8.0", "9.0a")


def test_raw_bytes_are_kept() -> None:
    raw = b"Description: x\r\n \xff\x0c\nnot a field\n"
    assert header.parse(raw).raw == raw


def test_names_of_a_git_mail_are_aliases() -> None:
    parsed = header.parse(b"From: A <a@example.org>\nSubject: one line\n\n")
    assert (parsed.author, parsed.summary) == ("A <a@example.org>", "one line")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Author: maintainers\n", "", (1, "field Author is missing")),
        ("Author: maintainers", "Author:", (5, "Author is empty")),
        ("Forwarded: no", "Author: me", (6, "field Author is given twice")),
        (
            "Forwarded: no",
            "Forwarded: maybe",
            (6, "Forwarded is not one of no, not-needed, yes or an address"),
        ),
        ("Forwarded: no", "Fwd: no", (6, "unknown field Fwd")),
        ("2026-01-31", "2026-02-31", (7, "Last-Update is not a date (YYYY-MM-DD)")),
        ("2026-01-31", "20260131", (7, "Last-Update is not a date (YYYY-MM-DD)")),
        ("C3861, ", "C3861 C1061, ", (8, "Diagnostic: 'C3861 C1061' is not one word")),
        (
            "test_math.py::",
            "test math.py::",
            (
                9,
                "Test: 'tests/port/test math.py::test_next_pow_2' is not of the form file.py::name",
            ),
        ),
        (
            "8.0, 9.0a",
            "all, 8.0",
            (11, "Archs: 'all' is not all, none or an architecture such as 8.6"),
        ),
        (
            "8.0, 9.0a",
            "sm_80",
            (11, "Archs: 'sm_80' is not all, none or an architecture such as 8.6"),
        ),
        ("avoid", "avoid " * 9, (1, "the summary is longer than 72 characters")),
        (
            " MSVC 19.43 stops with C3861.\n .\n The caf\xe9 branch is untouched.\n",
            "",
            (1, "Description has no body: say what fails on Windows and what the change does"),
        ),
        (
            "Archs:",
            "not a field\nArchs:",
            (11, "text outside of fields (continued lines begin with a space)"),
        ),
    ],
)
def test_faults_with_their_line(old: str, new: str, fault: tuple[int, str]) -> None:
    assert old in GOOD
    assert fault in header.validate(header.parse(GOOD.replace(old, new, 1).encode()))


def test_bytes_that_are_not_utf8() -> None:
    faults = header.validate(header.parse(GOOD.encode("latin-1")))
    assert faults == [(4, "is not UTF-8")]


def test_optional_fields_of_dep3() -> None:
    raw = GOOD + "Bug: https://example.org/1\nBug-Debian: 2\nX-Note: z\nApplied-Upstream: v1\n"
    assert header.validate(header.parse(raw.encode())) == []


def test_a_stub_names_what_is_left_to_write() -> None:
    raw = header.stub("csrc/a.cu", author="me", today=date(2026, 1, 2))
    assert b"csrc/a.cu" in raw
    parsed = header.parse(raw)
    assert parsed.last_update == "2026-01-02"
    assert header.validate(parsed) == [
        (1, "Description is still a stub"),
        (6, "Diagnostic is still a stub"),
        (7, "Test is still a stub"),
        (8, "Archs is still a stub"),
    ]


def test_an_empty_header_misses_every_field() -> None:
    assert len(header.validate(header.parse(b""))) == 7
