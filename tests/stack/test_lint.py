"""`series.py lint`: every fault, with its file and line, in one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from world import BASE, World, world

from portkit.commands import series as series_command
from portkit.face import console
from portkit.stack import lint
from portkit.upstream.git import Store

ROOT = Path(__file__).resolve().parents[2]
SETUP = "patch_series/build/setup.py.patch"
SERIES = "patch_series/series"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))
    return world(tmp_path, tmp_path / "cache")


Lint = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(small: World, capsys: pytest.CaptureFixture[str]) -> Lint:
    """Exit code and the lines of faults."""

    def lint(*options: str) -> tuple[int, list[str]]:
        code = console.run(lambda given: series_command.main(given, small.root), ["lint", *options])
        said = capsys.readouterr()
        assert said.err == ""
        return code, said.out.splitlines()[:-1]

    return lint


def change(world: World, file: str, old: bytes, new: bytes) -> None:
    place = world.root / file
    data = place.read_bytes()
    assert old in data
    place.write_bytes(data.replace(old, new))


def test_a_series_without_fault_passes_whatever_its_files_are(run: Lint) -> None:
    assert run() == (0, [])


def test_the_shipped_series_has_no_fault(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code = console.run(series_command.main, ["lint", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (code, said["faults"], said["source"]) == (0, [], True)


ARCHS = b"Archs: 8.6, 12.0a\n"
CMAKE = "patch_series/build/CMakeLists.txt.patch"
ORDER = b"build/setup.py.patch\n"
FAULTS: list[tuple[str, bytes, bytes, str]] = [
    (SETUP, ARCHS, b"", ":1: field Archs is missing [header]"),
    (SETUP, b"2026-01-02", b"2026-02-30", ":5: Last-Update is not a date"),
    (SETUP, b"2026-01-02", b"2999-01-01", ":5: Last-Update 2999-01-01 lies in the future"),
    (SETUP, b"ic: C1061", b"ic: C1061,\n Oops", ":7: Oops is no compiler code, exception or id"),
    (SETUP, b"ic: C1061", b"ic: C2065", ":6: Description does not say where C2065 comes from"),
    (SETUP, b"::test_it", b"::test_no", ":7: tests/port/test_it.py has no test test_no [test]"),
    (SETUP, b"test_it.py", b"test_no.py", ":7: there is no test file tests/port/test_no.py [test]"),
    (SETUP, b"diff --", b"index 1..2\ndiff --", ":9: text outside of fields"),
    (
        SETUP,
        b"--- a/",
        b"index 12..76 100644\n--- a/",
        ":11: is not in canonical form: ",
    ),
    (SETUP, b" @@\n", b" @@ def build():\n", ":13: is not in canonical form: expected '@@ -"),
    (SETUP, b"+    return ", b"+\treturn ", ":18: indented by a tab, the file by spaces [tab]"),
    (SETUP, b"else os.name\n", b"else os.name \n", ":18: white space at the end of the line"),
    (SETUP, b"else os.name\n", b"else os.name\r\n", ":18: the line ends in CRLF, the file's in LF"),
    (SETUP, b"+    return", b"+x\n+    return", ":13: the hunk's counts do not fit its lines"),
    (
        SETUP,
        b'+    return "nt" if',
        b'+    return "nt" of',
        ":18: setup.py does not compile",
    ),
    (SETUP, b" def build():\n", b" def make():\n", ":13: setup.py: hunk 1 does not apply at line"),
    (SETUP, b"@@ -2,7 +2,7 @@", b"@@ -2,8 +2,8 @@", ":21: the patch ends inside a hunk [patch]"),
    (CMAKE, b"+line three\r\n", b"+line three\n", ":18: the line ends in LF, the file's in CRLF"),
    (SERIES, ORDER, ORDER + b"build/no.py.patch\n", ":2: build/no.py.patch is missing [missing]"),
    (SERIES, ORDER, b"build/setup.py.patch -p0\n", ":1: option -p0 is not supported [series]"),
    (SERIES, ORDER, ORDER + ORDER, ":2: build/setup.py.patch is listed twice [series]"),
    ("docs/patches.md", b"# The", b"# My", ":1: is not what the headers say: run tools/series.py"),
    ("upstream_pin.txt", b"\npatched-tree: ", b"\npatched-tree: 1", ":8: patched-tree is '1"),
]


@pytest.mark.parametrize(("file", "old", "new", "fault"), FAULTS, ids=[row[3] for row in FAULTS])
def test_each_fault_is_one_line_with_its_place(
    run: Lint, *, small: World, file: str, old: bytes, new: bytes, fault: str
) -> None:
    change(small, file, old, new)
    code, lines = run()
    assert code == 1
    assert any(line.startswith(file + fault) for line in lines), lines


def test_a_patch_that_series_does_not_list_is_a_fault(small: World, run: Lint) -> None:
    change(small, SERIES, ORDER, b"")
    code, lines = run()
    assert code == 1
    assert f"{SETUP}:1: is not listed in patch_series/series [unused]" in lines


def test_the_patched_tree_of_the_pin_is_checked(small: World, run: Lint) -> None:
    file = small.root / "upstream_pin.txt"
    lines = file.read_text().splitlines()
    lines[-1] = "patched-tree: " + "1" * 40
    file.write_text("\n".join(lines) + "\n")
    code, (line,) = run()
    assert code == 1
    assert line.startswith("upstream_pin.txt:1: the patched tree is ")


def test_one_fault_hides_no_other(small: World, run: Lint) -> None:
    change(small, SETUP, b"Archs: 8.6, 12.0a\n", b"")
    change(small, SETUP, b"::test_it", b"::test_that")
    small.patch_file("kernels/csrc/use.cu.patch").write_bytes(b"Description: no change\n")
    shutil.copyfile(small.root / SETUP, small.patch_file("runtime/twice.patch"))
    change(small, SERIES, b"build/setup.py.patch", b"runtime/twice.patch\nbuild/setup.py.patch")
    small.patch_file("build/setup.py.patch~").write_bytes(b"")
    _, lines = run()
    for file, rule in [
        (SETUP, "header"),
        (SETUP, "test"),
        ("patch_series/kernels/csrc/use.cu.patch", "patch"),
        (SERIES, "name"),
        (SERIES, "twice"),
        ("patch_series/build/setup.py.patch~", "stray"),
    ]:
        assert any(line.startswith(f"{file}:") and line.endswith(f"[{rule}]") for line in lines)


def test_files_and_markers_left_by_tools_are_found(tmp_path: Path) -> None:
    ours: dict[str, bytes | None] = {
        "vllm/rest.py.orig": b"left\n",
        "vllm/same.py": BASE["vllm/same.py"] + b"<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n",
        "vllm/new.txt": b"Title\n=======\n",  # no marker: an underline
    }
    made = world(tmp_path, tmp_path / "cache", ours=ours)
    found = lint.check(made.root, today=date(2026, 1, 2))
    assert [(fault.rule, fault.file.rpartition("/")[2]) for fault in found.faults] == [
        ("new-file", "rest.py.orig.patch"),
        ("marker", "same.py.patch"),
        ("marker", "same.py.patch"),
        ("marker", "same.py.patch"),
    ]


def test_without_the_source_the_rest_is_checked(
    small: World, run: Lint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "empty"))
    change(small, SETUP, b" def build():\n", b" def rebuild():\n")
    assert run("--offline") == (0, [])
    change(small, SETUP, b"::test_it", b"::test_that")
    code, lines = run("--offline")
    assert (code, len(lines)) == (1, 1)
    code, lines = run("--upstream", str(small.clone))
    assert (code, len(lines)) == (1, 2)


def test_upstreams_own_syntax_errors_are_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))
    base = {"setup.py": b"print 'python 2'\n"}
    made = world(tmp_path, tmp_path / "cache", base, {"setup.py": b"print 'patched'\n"})
    assert console.run(lambda given: series_command.main(given, made.root), ["lint"]) == 0


def test_json_has_the_same_faults(small: World, capsys: pytest.CaptureFixture[str]) -> None:
    change(small, SETUP, b"::test_it", b"::test_that")
    code = console.run(lambda given: series_command.main(given, small.root), ["lint", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == 1
    assert said["faults"] == [
        {
            "file": SETUP,
            "line": 7,
            "rule": "test",
            "message": "tests/port/test_it.py has no test test_that",
        }
    ]
    assert said["patches"] == 9
