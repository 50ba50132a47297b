"""`tools/series.py` and `tools/apply.py` on a small upstream of our own, with no network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from faults import faults

from portkit.change.journal import Journal
from portkit.commands import apply as apply_command
from portkit.commands import series as series_command
from portkit.face import console
from portkit.model import Pin
from portkit.patches import patchdoc, series
from portkit.patches import pin as pinfile
from portkit.patches.patchfile import format_patch
from portkit.upstream.git import environment, git

TAG = "v0.14.1"
LINES = b"".join(b"line %d\n" % number for number in range(40))
UPSTREAM: dict[str, bytes] = {
    "setup.py": LINES,
    "CMakeLists.txt": LINES.replace(b"\n", b"\r\n"),
    "csrc/core/math.hpp": LINES + b"no newline",
    "csrc/old.cu": LINES,
    "csrc/gone.cu": b"a\n",
    "vllm/__init__.py": b"\xff\x0c\n" + LINES,
}
CHANGED: dict[str, bytes | None] = {
    "setup.py": LINES.replace(b"line 20\n", b"line twenty\n"),
    "CMakeLists.txt": LINES.replace(b"line 3\n", b"line three\n").replace(b"\n", b"\r\n"),
    "csrc/core/math.hpp": LINES + b"newline\n",
    "csrc/old.cu": None,
    "csrc/new.cu": LINES.replace(b"line 9\n", b""),
    "csrc/gone.cu": None,
    "vllm/__init__.py": b"\xff\x0cx\n" + LINES,
    "vllm/win32.py": b"fresh\n",
}
NAMES = [
    "build/CMakeLists.txt.patch",
    "build/setup.py.patch",
    "kernels/csrc/core/math.hpp.patch",
    "kernels/csrc/gone.cu.patch",
    "kernels/csrc/new.cu.patch",
    "runtime/vllm/__init__.py.patch",
    "runtime/vllm/win32.py.patch",
]


@dataclass(frozen=True)
class World:
    """A repository with an empty series, and the clone of upstream that its pin names."""

    root: Path
    upstream: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def pin(self) -> Pin:
        return pinfile.read(self.root / "upstream_pin.txt")

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, output and errors of a `series.py` command, or of `apply.py`."""
        command, *words = map(str, arguments)
        if command in ("apply", "import"):
            words += ["--upstream", str(self.upstream)]
        if command == "apply":
            code = console.run(lambda given: apply_command.main(given, self.root), words)
        else:
            words = [command, *words]
            code = console.run(lambda given: series_command.main(given, self.root), words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def edit(self, content: Mapping[str, bytes | None]) -> None:
        for name, data in content.items():
            file = self.upstream / name
            if data is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)

    def diff(self, content: Mapping[str, bytes | None], *options: str) -> Path:
        """A file with the diff that makes `content` of upstream."""
        self.edit(content)
        git("add", "--all", cwd=self.upstream)
        data = git("diff", "--cached", "-M", *options, TAG, cwd=self.upstream)
        git("reset", "--quiet", "--hard", TAG, cwd=self.upstream)
        patch = self.root / "monolith.patch"
        patch.write_bytes(data)
        return patch

    def files(self) -> dict[str, bytes]:
        folder = self.root / "patch_series"
        files = [*folder.rglob("*"), self.root / "upstream_pin.txt"]
        return {file.name: file.read_bytes() for file in files if file.is_file()}


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "the cache"))
    world = World(tmp_path / "repo", tmp_path / "up stream", capsys)
    git("init", "--quiet", "--template=", str(world.upstream))
    world.edit(UPSTREAM)
    git("add", "--all", cwd=world.upstream)
    git("commit", "--quiet", "-m", "release", cwd=world.upstream)
    git("tag", TAG, cwd=world.upstream)
    commit, tree = git("rev-parse", TAG, f"{TAG}^{{tree}}", cwd=world.upstream).decode().split()
    (world.root / "patch_series").mkdir(parents=True)
    (world.root / "patch_series/series").write_bytes(b"")
    pin = Pin("https://example.org/vllm.git", TAG, commit, None, tree, tree)
    (world.root / "upstream_pin.txt").write_bytes(pinfile.render(pin))
    return world


def expected_files() -> dict[str, bytes]:
    return {name: data for name, data in (UPSTREAM | CHANGED).items() if data is not None}


def written_files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("options", [(), ("-U0",), ("-U9", "--no-renames"), ("--no-prefix",)])
def test_import_apply_export_and_import_again(world: World, options: tuple[str, ...]) -> None:
    code, out, _ = world.run("import", world.diff(CHANGED, *options))
    assert code == 0
    loaded = series.load(world.root)
    names = [patch.name for patch in loaded.patches]
    if "--no-renames" in options:
        names.remove("kernels/csrc/old.cu.patch")
    assert names == NAMES
    assert f"added   {NAMES[0]}" in out

    code, out, _ = world.run("apply", world.root / "the tree")
    assert code == 0
    assert world.pin.patched_tree in out
    written = written_files(world.root / "the tree")
    assert written.pop("PKG-INFO") == b"Metadata-Version: 2.1\nName: vllm\nVersion: 0.14.1\n"
    listed = written.pop("vllm.egg-info/SOURCES.txt").decode().split("\n")
    assert [one for one in listed if one] == sorted(expected_files())
    assert written == expected_files()

    code, _, _ = world.run("export", "-o", world.root / "all.patch")
    assert code == 0
    git("apply", "--index", str(world.root / "all.patch"), cwd=world.upstream)
    assert git("write-tree", cwd=world.upstream).decode().strip() == world.pin.patched_tree
    git("reset", "--quiet", "--hard", TAG, cwd=world.upstream)

    before = world.files()
    code, out, _ = world.run("import", world.root / "all.patch")
    assert (code, out) == (0, "0 patches written\n")
    assert world.files() == before


def test_import_is_one_step_that_can_be_undone(world: World) -> None:
    before = world.files()
    world.run("import", world.diff(CHANGED))
    after = world.files()
    journal = Journal(world.root)
    with journal.lock("another command"):
        assert [entry.message for entry in journal.log()] == ["import of monolith.patch"]
        journal.undo()
        assert world.files() == before
        code, _, err = world.run("import", world.root / "monolith.patch")
        assert code == 4
        assert err.startswith("error: `another command` is at work here since ")
        journal.redo()
        assert world.files() == after


def test_an_import_that_was_killed_is_finished_by_whatever_comes_next(world: World) -> None:
    def kill(kind: str, path: str) -> None:
        if Path(path).is_relative_to(world.root) and ".port" not in path:
            raise Killed

    class Killed(BaseException):
        pass

    patch = world.diff(CHANGED)
    faults.arm(0, kill, frozenset({"rename"}))
    with pytest.raises(Killed):
        world.run("import", patch)
    faults.disarm()
    half_done = world.files()
    code, _, err = world.run("export", "-o", world.root / "all.patch")
    assert (code, err) == (
        0,
        'note: finished what a stopped command had begun: "import of monolith.patch"\n',
    )
    assert world.files() != half_done
    exported = (world.root / "all.patch").read_bytes()
    assert exported.count(b"diff --git ") == len(series.load(world.root).patches) == len(NAMES)


def test_patches_are_canonical_whatever_context_the_diff_had(world: World) -> None:
    world.run("import", world.diff(CHANGED, "-U0"))
    narrow = world.files()
    for file in (world.root / "patch_series").rglob("*.patch"):
        file.unlink()
    (world.root / "patch_series/series").write_bytes(b"")
    world.run("import", world.diff(CHANGED, "-U20"))
    assert world.files() == narrow


def test_new_patches_have_headers_to_fill_in_and_stand_behind_their_group(world: World) -> None:
    world.run("import", world.diff({name: CHANGED[name] for name in ("setup.py", "vllm/win32.py")}))
    code, out, _ = world.run("import", "--json", world.diff({"csrc/core/math.hpp": b"x"}))
    assert code == 0
    result = json.loads(out)
    assert result["added"] == ["kernels/csrc/core/math.hpp.patch"]
    assert result["series"] == [NAMES[1], NAMES[2], NAMES[6]]
    assert result["written"] is True
    assert (world.root / "patch_series" / NAMES[2]).read_bytes().startswith(b"Description: TODO")


def test_dry_run_writes_nothing(world: World) -> None:
    before = world.files()
    code, out, _ = world.run("import", "--dry-run", world.diff(CHANGED))
    assert code == 0
    assert "would be written" in out
    assert world.files() == before


def test_one_file_that_does_not_fit_and_nothing_is_written(world: World) -> None:
    patch = world.diff({"setup.py": CHANGED["setup.py"], "csrc/gone.cu": b"b\n"})
    patch.write_bytes(
        patch.read_bytes().replace(b" line 18\n", b" line x\n").replace(b"-a\n", b"-z\n")
    )
    before = world.files()
    code, out, err = world.run("import", patch)
    assert (code, out) == (2, "")
    assert err == (
        f"error: {patch}: 2 of 2 files cannot be imported:\n"
        "  csrc/gone.cu: hunk 1 does not apply at line 1: expected 'z\\n', found 'a\\n'\n"
        "  setup.py: hunk 1 does not apply at line 19: expected 'line x\\n', found 'line 18\\n'\n"
        "hint: nothing was written; --existing merge or replace takes files patched already\n"
    )
    assert world.files() == before


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("vllm", "vllm is both a file and a folder"),
        ("setup.py/x.py", "setup.py is both a file and a folder"),
        ("setup.py", "the new file exists already"),
        ("with space.py", "quilt's series cannot hold a name with spaces"),
    ],
)
def test_new_files_that_cannot_be(world: World, path: str, problem: str) -> None:
    patch = world.root / "x.patch"
    section = f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
    patch.write_bytes(section.encode())
    code, _, err = world.run("import", patch)
    assert code == 2
    assert f"  {path}: {problem}\n" in err


def test_a_file_patched_already_is_refused_merged_or_replaced(world: World) -> None:
    world.run("import", world.diff({"setup.py": LINES.replace(b"line 5\n", b"line five\n")}))
    other = world.diff({"setup.py": LINES.replace(b"line 30\n", b"line thirty\n")})
    before = world.files()
    code, _, err = world.run("import", other)
    assert code == 2
    assert "setup.py: is patched already by build/setup.py.patch" in err
    assert world.files() == before

    code, out, _ = world.run("import", "--existing", "merge", other)
    assert (code, out.split()[:2]) == (0, ["changed", NAMES[1]])
    (patch,) = series.load(world.root).patches
    assert len(patch.change.hunks) == 2

    near = world.diff({"setup.py": LINES.replace(b"line 31\n", b"line 31b\n")})
    code, _, err = world.run("import", "--existing", "merge", near)
    assert code == 2
    assert "setup.py: overlaps the existing patch at line 32 of the pin" in err

    code, _, _ = world.run("import", "--existing", "replace", near)
    assert code == 0
    (patch,) = series.load(world.root).patches
    assert [line for line in patch.change.hunks[0].lines if line[:1] != b" "] == [
        b"-line 31\n",
        b"+line 31b\n",
    ]


def test_a_file_changed_twice_in_one_patch(world: World) -> None:
    patch = world.diff({"setup.py": CHANGED["setup.py"]})
    patch.write_bytes(patch.read_bytes() * 2)
    code, _, err = world.run("import", patch)
    assert code == 2
    assert "setup.py is changed 2 times in one patch" in err


def test_no_such_patch_and_no_patch(world: World) -> None:
    code, _, err = world.run("import", world.root / "none.patch")
    assert code == 2
    assert "none.patch: No such file or directory" in err
    garbage = world.root / "garbage.patch"
    garbage.write_bytes(b"\0\1\2")
    code, _, err = world.run("import", garbage)
    assert (code, err.splitlines()[0]) == (2, f"error: {garbage}: no change found")


def test_apply_refuses_a_dirty_target_and_leaves_it(world: World) -> None:
    target = world.root / "dirty"
    target.mkdir()
    (target / "mine.txt").write_bytes(b"mine")
    code, _, err = world.run("apply", target)
    assert code == 2
    assert "is not empty" in err
    assert written_files(target) == {"mine.txt": b"mine"}


def test_apply_refuses_a_series_that_is_not_the_pinned_one(world: World) -> None:
    world.run("import", world.diff({"setup.py": CHANGED["setup.py"]}))
    file = world.root / "patch_series" / NAMES[1]
    file.write_bytes(file.read_bytes().replace(b"+line twenty", b"+line 20 "))
    code, _, err = world.run("apply", world.root / "out")
    assert code == 5
    assert "the patched tree is" in err
    assert not (world.root / "out").exists()


def test_apply_names_the_patch_that_does_not_apply(world: World) -> None:
    world.run("import", world.diff({"setup.py": CHANGED["setup.py"]}))
    file = world.root / "patch_series" / NAMES[1]
    file.write_bytes(file.read_bytes().replace(b" line 19", b" line nine"))
    code, _, err = world.run("apply", world.root / "out")
    assert code == 2
    assert err.startswith("error: build/setup.py.patch: setup.py: hunk 1 does not apply at line 20")


def test_apply_as_json(world: World) -> None:
    code, out, _ = world.run("apply", world.root / "out", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["patched-tree"] == world.pin.patched_tree
    assert result["patches"] == []


def test_setuptools_scm_takes_its_version_from_the_written_tree(world: World) -> None:
    pytest.importorskip("setuptools_scm")
    world.upstream.joinpath("pyproject.toml").write_bytes(b"[tool.setuptools_scm]\n")
    world.run("apply", world.root / "out")
    # A repository around the tree must not give its own version.
    git("init", "--quiet", "--template=", str(world.root))
    code = "import setuptools_scm; print(setuptools_scm.get_version(write_to='vllm/_version.py'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=world.root / "out",
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [b"0.14.1"]
    assert b"'0.14.1'" in (world.root / "out/vllm/_version.py").read_bytes()


# docs

HEADER = b"""\
Description: quote __host__ | <paths> in `a_b`
 First *line*.
 .
 Second.
Author: me
Forwarded: no
Last-Update: 2026-01-02
Diagnostic: C1061, cmake-path-spaces
Test: tests/test_x.py::test_y
Archs: all
"""


def test_docs_are_written_from_headers_and_checked(world: World) -> None:
    world.run("import", world.diff({"setup.py": CHANGED["setup.py"]}))
    loaded = series.load(world.root)
    patch = replace(loaded.patches[0], header=HEADER)
    (world.root / "patch_series" / patch.name).write_bytes(format_patch(patch))

    before = (world.root / patchdoc.DOC_FILE).read_bytes()
    assert world.run("docs", "--check")[0] == 1
    assert (world.root / patchdoc.DOC_FILE).read_bytes() == before
    assert world.run("docs")[0] == 0
    text = (world.root / patchdoc.DOC_FILE).read_text("utf-8")
    assert (
        "| [`setup.py`](#build-setup-py) | quote \\_\\_host\\_\\_ \\| \\<paths\\> in `a_b` "
        "| `C1061`, `cmake-path-spaces` | all | +1 −1 |" in text
    )
    assert "First \\*line\\*.\n\nSecond.\n" in text
    assert "- Covered by: `tests/test_x.py::test_y`" in text
    assert (world.root / "docs" / "../patch_series" / patch.name).is_file()
    assert f"(../patch_series/{patch.name})" in text
    assert world.run("docs", "--check")[0] == 0

    (world.root / patchdoc.DOC_FILE).write_text(text.replace("\n", "\r\n"), "utf-8", newline="")
    assert world.run("docs", "--check")[0] == 0
    (world.root / patchdoc.DOC_FILE).write_text(text + "more\n", "utf-8")
    assert world.run("docs", "--check")[0] == 1
