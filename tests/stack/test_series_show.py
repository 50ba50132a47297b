"""The commands that read the series, and `header`, which also writes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import BASE, OURS, World, world

from portkit.commands import series as series_command
from portkit.face import console
from portkit.patches import series
from portkit.patches.patchfile import parse_patch

ROOT = Path(__file__).resolve().parents[2]
SETUP = "build/setup.py.patch"

Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VISUAL", raising=False)
    return world(tmp_path, tmp_path / "cache")


@pytest.fixture
def run(small: World, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def series_py(*arguments: str) -> Said:
        code = console.run(lambda given: series_command.main(given, small.root), arguments)
        said = capfdbinary.readouterr()
        decoded = [data.decode("utf-8", "surrogateescape") for data in (said.out, said.err)]
        return code, decoded[0], decoded[1]

    return series_py


def told(run: Run, *arguments: str) -> dict[str, Any]:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    assert found["command"] == arguments[0]
    return found


# show and diff


def test_show_prints_the_file_of_a_patch_byte_for_byte(small: World, run: Run) -> None:
    for patch in series.load(small.root).patches:
        code, out, _ = run("show", patch.name)
        written = small.patch_file(patch.name).read_bytes()
        assert (code, out.encode("utf-8", "surrogateescape")) == (0, written)


@pytest.mark.parametrize(
    "name",
    [SETUP, "build/setup.py", "setup.py", "patch_series/build/setup.py.patch", "build\\setup.py"],
)
def test_a_patch_is_known_by_its_name_its_file_and_their_ends(run: Run, name: str) -> None:
    assert told(run, "show", name)["patches"][0]["name"] == SETUP


def test_a_name_that_is_none_or_means_several_is_refused_with_help(run: Run) -> None:
    code, _, err = run("show", "setpu.py")
    assert (code, err) == (
        2,
        "error: there is no patch setpu.py\nhint: did you mean build/setup.py.patch?\n",
    )
    code, _, err = run("show", "xyz")
    assert (code, "tools/series.py list" in err) == (2, True)


def test_diff_is_the_change_without_the_header(small: World, run: Run) -> None:
    _, out, _ = run("diff", "setup.py", "use.cu")
    assert out.startswith("diff --git a/setup.py b/setup.py\n")
    assert "Description" not in out
    assert out.count("diff --git ") == 2
    change = told(run, "diff", "gone.cu")["changes"][0]
    assert (change["old_path"], change["new_path"], change["old_mode"]) == (
        "csrc/gone.cu", None, "100644",
    )  # fmt: skip
    assert change["hunks"][0]["lines"] == ["-a\n", "-b\n"]


def test_diff_alone_is_what_the_work_tree_has_beyond_the_patches(small: World, run: Run) -> None:
    assert run("push", "-a")[0] == 0
    assert run("diff") == (0, "", "")
    work = small.root / "work/tree"
    (work / "setup.py").write_bytes((work / "setup.py").read_bytes() + b"# more\r\n")
    (work / "vllm/win32.py").unlink()
    (work / "vllm/added.py").write_bytes(b"x\n")
    _, out, _ = run("diff")
    assert out.count("diff --git ") == 3
    assert "+# more\r\n" in out
    assert "deleted file mode" in out
    assert "new file mode" in out
    before = small.files()
    assert run("diff")[1] == out
    assert small.files() == before


def test_colours_are_for_terminals_alone(small: World, run: Run) -> None:
    assert "\x1b[" not in run("show", "setup.py")[1]
    _, coloured, _ = run("show", "setup.py", "--color=always")
    plain = run("show", "setup.py")[1]
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


# log, files, list


def test_log_tells_what_each_patch_does(run: Run) -> None:
    _, out, _ = run("log", "setup.py")
    assert out == (
        f"patch {SETUP}\nAuthor: A Maintainer <maintainer@example.org>\nDate:   2026-01-02\n\n"
        "    Let setup.py build\n\n    MSVC says C1061 here.\n"
    )
    assert len(told(run, "log")["patches"]) == len(OURS)
    assert told(run, "log", "--since", "2026-01-03")["patches"] == []
    assert len(run("log", "--oneline", "--since", "2026-01-02")[1].splitlines()) == len(OURS)
    assert run("log", "--since", "yesterday")[0] == 2


def test_files_tells_what_happens_to_each(run: Run) -> None:
    kinds = {one["path"]: one["kind"] for one in told(run, "files")["files"]}
    assert kinds == {
        path: "D" if data is None else "M" if path in BASE else "A" for path, data in OURS.items()
    }
    assert run("files", "setup.py")[1] == "M    +1    -1  setup.py\n"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--archs", "8.6"], True),
        (["--archs", "12.0"], True),  # 12.0a is a kind of it
        (["--archs", "12.0a"], True),
        (["--archs", "12.0f"], False),
        (["--archs", "9.0"], False),
        (["--diagnostic", "C1061"], True),
        (["--diagnostic", "c1061"], True),
        (["--diagnostic", "C106"], False),
        (["--archs", "8.6", "--diagnostic", "C2065"], False),
        (["--test", "test_it"], True),
        (["--forwarded", "yes"], False),
        (["--group", "build"], True),
    ],
)
def test_list_finds_by_what_the_header_says(run: Run, options: list[str], found: bool) -> None:
    names = [patch["name"] for patch in told(run, "list", *options)["patches"]]
    assert (SETUP in names) is found
    if "--group" in options:
        assert all(name.startswith("build/") for name in names)
    else:
        assert len(names) in (0, len(OURS))


def test_list_of_the_shipped_series(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.run(series_command.main, ["list", "--diagnostic", "C1061", "--json"]) == 0
    names = [patch["name"] for patch in json.loads(capsys.readouterr().out)["patches"]]
    assert len(names) == 2
    assert all(name.endswith("generate_kernels.py.patch") for name in names)


# annotate, why, graph


def test_annotate_marks_the_lines_of_the_patch(run: Run) -> None:
    found = told(run, "annotate", "setup.py")
    made = [line for line in found["lines"] if line["patch"] is not None]
    assert found["patches"] == [SETUP]
    assert [(line["line"], line["patch"]) for line in made] == [(5, SETUP)]
    assert "".join(line["text"] for line in found["lines"]).encode() == OURS["setup.py"]
    _, out, _ = run("annotate", "setup.py")
    assert ' 1 5      return "nt" if os.name == "nt" else os.name\n' in out
    assert "   1  import os\n" in out
    _, ours, _ = run("annotate", "setup.py", "--ours")
    assert ours.startswith(" 1 5 ")


@pytest.mark.parametrize("path", [path for path, data in OURS.items() if data is not None])
def test_annotate_prints_every_file_as_it_becomes(run: Run, path: str) -> None:
    lines = told(run, "annotate", path)["lines"]
    text = "".join(line["text"] for line in lines)
    assert text.encode("utf-8", "surrogateescape") == OURS[path]


def test_a_file_may_be_named_as_it_lies_in_the_work_tree(small: World, run: Run) -> None:
    for name in ("work/tree/setup.py", str(small.root / "work/tree/setup.py"), "./setup.py"):
        assert told(run, "annotate", name)["path"] == "setup.py"


def test_a_file_that_is_none_or_deleted_is_refused(run: Run) -> None:
    code, _, err = run("annotate", "csrc/no.cu")
    assert (code, err.splitlines()[0]) == (2, "error: there is no file csrc/no.cu in v0.14.1")
    code, _, err = run("annotate", "csrc/gone.cu")
    assert code == 2
    assert "kernels/csrc/gone.cu.patch deletes csrc/gone.cu" in err


def test_why_gives_the_reason_of_a_line(small: World, run: Run) -> None:
    found = told(run, "why", "setup.py:5")
    assert found["patch"] == SETUP
    assert found["instead_of"] == ["    return os.name"]
    assert found["summary"] == "Let setup.py build"
    file, _, line = found["place"].rpartition(":")
    printed = (small.root / file).read_bytes().split(b"\n")[int(line) - 1]
    assert printed == b"+" + found["text"].encode().rstrip(b"\n")
    _, out, _ = run("why", "setup.py:5")
    assert out.startswith(f"setup.py:5: made by {SETUP}\n")
    assert "MSVC says C1061 here." in out


def test_why_says_that_a_line_is_upstreams(run: Run) -> None:
    assert told(run, "why", "csrc/last.cu:20")["upstream_line"] == 21
    _, out, _ = run("why", "csrc/last.cu:10")
    said, cut = out.splitlines()[0].split("; ")
    assert said == "csrc/last.cu:10: upstream's line 11"
    assert cut == "kernels/csrc/last.cu.patch removed what stood above it"
    assert told(run, "why", "vllm/same.py:3")["patch"] is None


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("setup.py", "'setup.py' is not FILE:LINE"),
        ("setup.py:x", "'setup.py:x' is not FILE:LINE"),
        ("setup.py:0", "setup.py has 8 lines, there is no line 0"),
        ("setup.py:9", "setup.py has 8 lines, there is no line 9"),
    ],
)
def test_why_refuses_what_is_no_line(run: Run, place: str, said: str) -> None:
    code, _, err = run("why", place)
    assert (code, err.splitlines()[0]) == (2, f"error: {said}")


def test_graph_ties_a_use_to_its_definition(run: Run) -> None:
    use, type_ = "kernels/csrc/use.cu.patch", "kernels/csrc/type.cuh.patch"
    edges = told(run, "graph")["edges"]
    assert edges == [{"patch": use, "needs": type_, "by": "names", "what": ["largest"]}]
    assert told(run, "graph", "type.cuh")["patches"] == [type_, use]
    assert told(run, "graph", "setup.py") == {
        "schema": 1, "command": "graph", "patches": [SETUP], "edges": [],
    }  # fmt: skip
    _, dot, _ = run("graph", "--dot")
    assert f'"{use}" -> "{type_}" [label="largest", style=dashed];' in dot
    assert dot.startswith("digraph") and dot.endswith("}\n")
    assert f"needs {type_} by names: largest" in run("graph")[1]


def test_reading_needs_no_source_where_the_patches_suffice(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "none"))
    for command in (["show", "setup.py"], ["diff", "setup.py"], ["log"], ["files"], ["list"],
                    ["graph"], ["header", "setup.py"], ["top"], ["applied"]):  # fmt: skip
        assert run(*command)[2].startswith("error: ") is False
    assert not (tmp_path / "none").exists()


def test_reading_changes_nothing(small: World, run: Run) -> None:
    before = small.files()
    on_a_file = (["show"], ["annotate"], ["header"], ["diff"], ["log"], ["files"])
    for command in (*([*one, "setup.py"] for one in on_a_file), ["why", "setup.py:1"],
                    ["graph"], ["lint"], ["status"], ["list"], ["export"]):  # fmt: skip
        run(*command)
    assert small.files() == before


# header


def test_header_prints_and_replaces_and_can_be_undone(
    small: World, run: Run, tmp_path: Path
) -> None:
    _, text, _ = run("header", "setup.py")
    assert small.patch_file(SETUP).read_text().startswith(text + "\n")
    before = small.files()
    new = tmp_path / "new header"
    new.write_bytes(text.replace("build\n", "build again\n").replace("\n", "\r\n").encode())
    code, out, err = run("header", "setup.py", "--replace", str(new))
    assert (code, out, err) == (0, f"{SETUP}: header written\n", "")
    data = small.patch_file(SETUP).read_bytes()
    assert b"\r" not in data
    old = parse_patch(SETUP, before[f"patch_series/{SETUP}"])
    assert parse_patch(SETUP, data).change == old.change
    assert b"build again" in (small.root / "docs/patches.md").read_bytes()
    assert run("lint")[0] == 0
    assert run("header", "setup.py", "--replace", str(new))[1].endswith("header unchanged\n")
    assert run("undo")[0] == 0
    assert small.files() == before


def editor(tmp_path: Path, code: str) -> str:
    script = tmp_path / "the editor.py"
    script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    return f'"{sys.executable}" "{script}"'


def test_header_edit_takes_what_the_editor_leaves(
    small: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "file.write_bytes(file.read_bytes().replace(b'C1061 here', b'C1061 there'))"
    monkeypatch.setenv("EDITOR", editor(tmp_path, text))
    code, out, err = run("header", "setup.py", "--edit")
    assert (code, out, err) == (0, f"{SETUP}: header written\n", "")
    assert b"C1061 there" in small.patch_file(SETUP).read_bytes()
    code, out, _ = run("header", "setup.py", "--edit")
    assert (code, out) == (0, f"{SETUP}: header unchanged\n")


def test_header_notes_what_is_wrong_with_it_but_takes_it(
    small: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", editor(tmp_path, "file.write_text('Description: short\\n')"))
    code, _, err = run("header", "setup.py", "--edit")
    assert code == 0
    assert f"note: patch_series/{SETUP}:1: field Archs is missing\n" in err


def test_header_edit_loses_no_word_that_it_cannot_take(
    small: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.files()
    text = "file.write_text('my long work\\n\\ndiff --git a/x b/x\\n--- a/x\\n+++ b/x\\n')"
    monkeypatch.setenv("EDITOR", editor(tmp_path, text))
    code, _, err = run("header", "setup.py", "--edit")
    assert code == 2
    assert "holds the beginning of a diff" in err
    kept = Path(err.rpartition("your text is kept in ")[2].strip())
    assert kept.read_text().startswith("my long work\n")
    kept.unlink()
    assert small.files() == before


def test_header_edit_notices_that_the_series_moved_meanwhile(
    small: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = (
        f"place = pathlib.Path({str(small.patch_file(SETUP))!r})\n"
        "place.write_bytes(place.read_bytes().replace(b'C1061 here', b'C1061 now'))\n"
        "file.write_bytes(file.read_bytes().replace(b'Let', b'Make'))"
    )
    monkeypatch.setenv("EDITOR", editor(tmp_path, meanwhile))
    code, _, err = run("header", "setup.py", "--edit")
    assert code == 2
    assert "changed" in err
    kept = Path(err.rpartition("your text is kept in ")[2].strip())
    assert kept.read_text().startswith("Description: Make")
    kept.unlink()
    assert b"C1061 now" in small.patch_file(SETUP).read_bytes()


def test_an_editor_that_fails_changes_nothing(
    small: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.files()
    monkeypatch.setenv("EDITOR", editor(tmp_path, "sys.exit(3)"))
    code, _, err = run("header", "setup.py", "--edit")
    assert (code, "ended with 3" in err) == (2, True)
    monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
    code, _, err = run("header", "setup.py", "--edit")
    assert (code, "cannot start the editor" in err) == (2, True)
    assert small.files() == before


# help


def commands() -> list[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/series.py", "--help"], capture_output=True, check=True
    )
    block = done.stdout.decode().split("COMMAND\n")[-1]
    return [
        line.split()[0] for line in block.splitlines() if line.startswith("    ") and line[4] != " "
    ]


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_with_an_example_that_parses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        series_command.main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    examples = [line.strip() for line in said.splitlines() if "  tools/series.py " in line]
    assert examples
    parser = series_command.parser(ROOT)
    for example in examples:
        words = shlex.split(example, comments=True)[1:]
        assert parser.parse_args(words).command == command


def test_every_reading_command_speaks_json() -> None:
    parser = series_command.parser(ROOT)
    for words in (["show", "x"], ["diff"], ["log"], ["header", "x"], ["files"], ["annotate", "x"],
                  ["why", "x:1"], ["graph"], ["list"], ["lint"], ["top"], ["next"], ["applied"],
                  ["status"], ["oplog"]):  # fmt: skip
        assert parser.parse_args([*words, "--json"]).json is True
