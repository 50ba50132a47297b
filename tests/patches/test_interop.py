"""The series in the hands of other tools: quilt, `git apply`, `git am` and StGit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from world import BASE, EXECUTABLE, OURS, World, world

from portkit.patches import series
from portkit.upstream.git import Store, environment

ROOT = Path(__file__).resolve().parents[2]
PERSON = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
          for what, value in (("NAME", "Someone"), ("EMAIL", "someone@example.org"))}  # fmt: skip


def run(*command: str, cwd: Path, **env: str) -> bytes:
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        env={**environment(), **PERSON, "HOME": str(cwd), **env},
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


def series_py(root: Path, *arguments: str, cache: Path | None = None) -> bytes:
    """What `tools/series.py` of the repository at `root` prints."""
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from portkit.face import console; from portkit.commands import series\n"
        "sys.exit(console.run(partial(series.main, root=Path(sys.argv[1])), sys.argv[2:]))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    if cache is not None:
        env["VLLM_PORT_CACHE"] = str(cache)
    command = [sys.executable, "-c", code, str(root), *arguments]
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def awkward(tmp_path: Path, cache: Path) -> World:
    return world(tmp_path, cache)


def checked_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with `files`, as a git repository with one commit."""
    folder.mkdir()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        (folder / path).chmod(0o755 if path == EXECUTABLE else 0o644)
    run("git", "init", "--quiet", "--template=", ".", cwd=folder)
    run("git", "config", "core.autocrlf", "false", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "-m", "release", cwd=folder)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not {".git", ".pc"} & set(file.relative_to(folder).parts)
    }


def patched_files() -> dict[str, bytes]:
    return {path: data for path, data in {**BASE, **OURS}.items() if data is not None}


def tree_of(folder: Path) -> str:
    run("git", "add", "--all", cwd=folder)
    return run("git", "write-tree", cwd=folder).decode().strip()


# quilt


def push_and_pop(source: Path, patches: Path) -> dict[str, bytes]:
    """The files after `quilt push -a`; checks that `pop -a` gives the old ones back."""
    before = files_in(source)
    env = {"QUILT_PATCHES": str(patches)}
    quilt = ("quilt", "--quiltrc", "-")
    said = run(*quilt, "push", "-a", "--fuzz=0", cwd=source, **env).decode()
    assert "fuzz" not in said
    assert "offset" not in said
    pushed = files_in(source)
    applied = run(*quilt, "applied", cwd=source, **env).decode().splitlines()
    names = [line.split("#")[0].strip() for line in (patches / "series").read_text().splitlines()]
    assert [Path(line).name for line in applied] == [Path(name).name for name in names if name]
    run(*quilt, "pop", "-a", cwd=source, **env)
    assert files_in(source) == before
    return pushed


@needs("quilt")
def test_quilt_pushes_and_pops_the_shipped_series(
    store: Store, tmp_path: Path, pristine_tree: Path, patched_tree: Path
) -> None:
    source = tmp_path / "source"
    touched = {
        path
        for patch in series.load(ROOT).upstream
        for path in (patch.change.old_path, patch.change.new_path)
        if path is not None
    }
    for path in touched:
        if (pristine_tree / path).exists():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pristine_tree / path, source / path)
    pushed = push_and_pop(source, ROOT / "patch_series")
    wanted = {p: (patched_tree / p).read_bytes() for p in touched if (patched_tree / p).exists()}
    assert pushed == wanted


@needs("quilt")
def test_quilt_pushes_and_pops_awkward_files(awkward: World, tmp_path: Path) -> None:
    source = checked_out(tmp_path / "source", BASE)
    assert push_and_pop(source, awkward.root / "patch_series") == patched_files()


# git


def test_git_apply_takes_the_exported_series(awkward: World, tmp_path: Path) -> None:
    source = checked_out(tmp_path / "source", BASE)
    (tmp_path / "all.patch").write_bytes(series_py(awkward.root, "export"))
    run("git", "apply", "--index", str(tmp_path / "all.patch"), cwd=source)
    assert files_in(source) == patched_files()
    assert tree_of(source) == awkward.pin.patched_tree


def test_git_apply_takes_the_shipped_series(
    store: Store, tmp_path: Path, patched_tree: Path
) -> None:
    pin_tree = run("git", "rev-parse", "refs/tags/v0.14.1^{tree}", cwd=store.path).decode().strip()
    source = tmp_path / "source"
    source.mkdir()
    listed = [patch.change for patch in series.load(ROOT).upstream]
    for change in listed:
        if change.old_path is not None:
            (source / change.old_path).parent.mkdir(parents=True, exist_ok=True)
            (source / change.old_path).write_bytes(store.read(f"{pin_tree}:{change.old_path}"))
    (tmp_path / "all.patch").write_bytes(series_py(ROOT, "export"))
    run("git", "apply", str(tmp_path / "all.patch"), cwd=source, GIT_CEILING_DIRECTORIES="/")
    for change in listed:
        if change.new_path is not None:
            wanted = (patched_tree / change.new_path).read_bytes()
            assert (source / change.new_path).read_bytes() == wanted


@pytest.mark.parametrize("options", [(), ("-3",)])
def test_git_am_takes_the_mails_for_upstream(
    awkward: World, cache: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = checked_out(tmp_path / "source", BASE)
    out = tmp_path / "out going"
    series_py(awkward.root, "export", "--upstream", "-o", str(out), cache=cache)
    mails = sorted(str(file) for file in out.iterdir())
    assert len(mails) == len(OURS)
    run("git", "am", "--quiet", *options, *mails, cwd=source)
    assert files_in(source) == patched_files()
    assert tree_of(source) == awkward.pin.patched_tree
    told = run("git", "log", "-1", "--reverse", "--format=%an <%ae>|%ad|%B", "--date=short",
               cwd=source).decode()  # fmt: skip
    assert told.strip() == (
        "A Maintainer <maintainer@example.org>|2026-01-02|Let win32.py build\n\n"
        "MSVC says C1061 here."
    )


def test_git_am_3_finds_the_old_file_when_the_place_moved(
    awkward: World, cache: Path, tmp_path: Path
) -> None:
    moved = {**BASE, "vllm/same.py": b"other\n", "setup.py": b"import re\n" + BASE["setup.py"]}
    source = checked_out(tmp_path / "source", BASE)
    (source / "setup.py").write_bytes(moved["setup.py"])
    run("git", "commit", "--quiet", "-a", "-m", "moved", cwd=source)
    mail = tmp_path / "one.patch"
    mail.write_bytes(series_py(awkward.root, "export", "--upstream", "setup.py", cache=cache))
    run("git", "am", "--quiet", "-3", str(mail), cwd=source)
    assert (source / "setup.py").read_bytes().startswith(b"import re\nimport os\n")
    assert b'"nt" if' in (source / "setup.py").read_bytes()


@needs("stg")
def test_stgit_imports_the_mails_for_upstream(awkward: World, cache: Path, tmp_path: Path) -> None:
    source = checked_out(tmp_path / "source", BASE)
    mbox = tmp_path / "all.mbox"
    mbox.write_bytes(series_py(awkward.root, "export", "--upstream", cache=cache))
    run("stg", "init", cwd=source)
    run("stg", "import", "--mbox", str(mbox), cwd=source)
    assert files_in(source) == patched_files()
    assert len(run("stg", "series", cwd=source).splitlines()) == len(OURS)


@needs("stg")
def test_stgit_imports_the_series_itself(awkward: World, tmp_path: Path) -> None:
    source = checked_out(tmp_path / "source", BASE)
    run("stg", "init", cwd=source)
    run("stg", "import", "--series", str(awkward.root / "patch_series/series"), cwd=source)
    assert files_in(source) == patched_files()
