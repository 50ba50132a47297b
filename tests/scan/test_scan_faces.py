"""The command and its faces: text, JSON, SARIF, the page, and `--fix`."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import html5lib
import pytest
from desk import Desk
from scantree import CMAKE, FILES, ROOT, RULES, scanned

from portkit.commands import scan
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import series
from portkit.scan import page, sarif, text
from portkit.scan.entries import entries
from portkit.scan.model import Reason
from portkit.scan.silence import Silence
from portkit.upstream.cache import CACHE_VARIABLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source tree in a folder whose name has a space."""
    place = tmp_path / "a source"
    for path, data in FILES.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return place


def run(*arguments: object, root: Path = ROOT) -> int:
    return console.run(functools.partial(scan.main, root=root), [*map(str, arguments)])


def test_a_folder_is_scanned_as_it_lies_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--quick", "--offline") == Exit.WAITING
    said = capsys.readouterr().out
    assert "certain, compile\n  csrc/" in said
    assert "csrc/a.cu:3\n" in said and "(cpp-uint, C2061)" in said
    assert "set aside: " in said and "csrc/mla.cu" not in said
    assert run(folder, "--quick", "--offline", "--only", "vllm") == Exit.OK
    assert run(folder, "--quick", "--offline", "--aside") == Exit.WAITING
    assert "csrc/mla.cu:1: cpp-uint: not built for CUDA on Windows" in capsys.readouterr().out


def test_machines_read_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "--quick", "--offline", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == console.JSON_SCHEMA and told["tree"] == str(folder)
    assert told["entries"] == len(entries(scanned(FILES).findings))
    first = told["findings"][0]
    assert first["tier"] == "certain" and first["error"] and first["area"] == "csrc"
    assert told["aside"] == {"not_built": 3, "guarded": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere is not a folder"),
        (["--only", "docs"], "error: --only docs: there is no such part"),
        (["--explain", "cpp-uin"], "error: there is no rule cpp-uin"),
        (["--tag", "v0.14.1", "--since", "pin"], "error: --since v0.14.1 is the release"),
        (["--fix", "cpp-ssize-t"], "error: cpp-ssize-t has no rewrite"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == Exit.BAD_INPUT
    assert capsys.readouterr().err.startswith(message)


def test_a_rule_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--explain", "cpp-uint") == Exit.OK
    said = capsys.readouterr().out
    assert "C2061" in said and "fix   Write" in said and "not found:" in said
    assert run("--list-rules") == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == len(RULES)


def test_the_page_stands_alone() -> None:
    hostile = {**FILES, "csrc/b.cu": b"uint f(); // <script>alert(1)</script>\n"}
    stale = Silence("cpp-uint", "nowhere", "gone", 7)
    found = scanned(hostile, silences=(stale,))
    made = page.html(found, RULES)
    document = html5lib.HTMLParser(strict=True).parse(made)
    assert "<script>alert" not in made
    assert "://" not in made.partition("<body>")[0] and " src=" not in made
    rows = document.findall(".//{*}tr[@data-tier]")
    assert len(rows) == len(entries(found.findings))


def test_sarif_says_where_and_what_is_dismissed() -> None:
    quiet = Silence("cpp-uint", "csrc/deep/*", "a reason", 1)
    told = sarif.sarif(scanned(FILES, silences=(quiet,)), RULES)["runs"][0]
    results = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]: r
               for r in told["results"]}  # fmt: skip
    assert set(results) == {"csrc/a.cu", "csrc/b.cu", "csrc/deep/a.cuh", "csrc/fp4.cu"}
    assert results["csrc/a.cu"]["level"] == "error"
    assert "suppressions" not in results["csrc/a.cu"]
    assert "a reason" in results["csrc/deep/a.cuh"]["suppressions"][0]["justification"]
    rules = told["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in told["results"])


def test_text_says_what_is_explained_and_which_silence_is_stale() -> None:
    left = Silence("cpp-uint", "csrc/a.cu", "why it is left", 1, "uint", Reason.EXPLAINED)
    found = scanned(FILES, silences=(left,))
    said = "\n".join(text.lines(replace(found, stale=(Silence("a", "b", "c", 7),)), RULES))
    assert "explained: 1 entry that breaks, left so\n  csrc/a.cu:3: cpp-uint\n    why it" in said
    assert "silences nothing: patch_series/rules/silenced.toml:7: a" in said


# fixing

ASM = b'__global__ void k() {\n  __asm__ __volatile__("bar.sync 0;");\n}\n'
UPSTREAM = {
    "CMakeLists.txt": CMAKE,
    "csrc/a.cu": b"int a;\n" + ASM,
    "csrc/b.cu": b"int b;\n" + ASM,
    "csrc/hip.cu": ASM,
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A series that has a patch of csrc/a.cu, and the rules."""
    monkeypatch.setenv(CACHE_VARIABLE, "put back afterwards")
    made = Desk.make(tmp_path, UPSTREAM, {"csrc/a.cu": b"int c;\n" + ASM})
    shutil.copytree(ROOT / "patch_series/rules", made.root / "patch_series/rules")
    return made


def test_a_rewrite_becomes_a_hunk_or_a_patch(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--fix", "cpp-asm-spelling", root=desk.root) == Exit.OK
    said = capsys.readouterr().out
    assert "added  kernels/csrc/b.cu.patch" in said and "changed  kernels/csrc/a.cu.patch" in said
    patches = {patch.path: patch for patch in series.load(desk.root).upstream}
    assert set(patches) == {"csrc/a.cu", "csrc/b.cu"}  # not what Windows does not build
    for patch in patches.values():
        added = [line for h in patch.change.hunks for line in h.lines if line[:1] == b"+"]
        assert b'+  asm volatile("bar.sync 0;");\n' in added
    head = patches["csrc/b.cu"].header
    assert b"TODO" not in head and b"Diagnostic: C2065" in head
    assert run("--fix", "cpp-asm-spelling", root=desk.root) == Exit.OK
    assert "finds nothing" in capsys.readouterr().out
