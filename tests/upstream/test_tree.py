"""Writing a tree to a folder: exact bytes, whole or not at all, and what Windows cannot hold."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.errors import BadInput, IntegrityError, Unavailable
from portkit.model import Event
from portkit.upstream.archive import folder_members, import_members
from portkit.upstream.git import Store, TreeEntry
from portkit.upstream.source import Source
from portkit.upstream.tree import check_windows_names, windows_fault, write_checkout

FILES: dict[str, tuple[str, bytes]] = {
    ".gitattributes": ("100644", b"* text eol=crlf ident export-ignore\n*.py filter=evil\n"),
    "a.py": ("100644", b"one\r\ntwo\n$Id$\n\xff no newline"),
    "deep/er/run.sh": ("100755", b"#!/bin/sh\n"),
    "empty": ("100644", b""),
    "link": ("120000", b"../../etc/passwd"),
}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store.git") as store:
        yield store


def tree_of(repo: Store, files: dict[str, tuple[str, bytes]]) -> str:
    oids = repo.write_blobs([data for _, data in files.values()])
    entries = zip(files, oids, files.values(), strict=True)
    return repo.edit_tree(None, {path: TreeEntry(mode, oid) for path, oid, (mode, _) in entries})


def written(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_bytes_are_exact_whatever_the_attributes_say(repo: Store, tmp_path: Path) -> None:
    target = tmp_path / "new" / "out put"
    seen: list[Event] = []
    write_checkout(repo, tree_of(repo, FILES), target, {}, seen.append)
    assert written(target) == {path: data for path, (_, data) in FILES.items()}
    assert not (target / "link").is_symlink()
    assert list(target.parent.iterdir()) == [target]
    assert (seen[-1].done, seen[-1].total) == (len(FILES), len(FILES))


@pytest.mark.skipif(os.name == "nt", reason="no executable bit there")
def test_the_executable_bit_is_kept_under_the_umask(repo: Store, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        changes = {"deep/er/run.sh": b"#!/bin/bash\n"}
        write_checkout(repo, tree_of(repo, FILES), tmp_path / "out", changes)
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE((tmp_path / "out" / path).stat().st_mode) for path in (".", *FILES)}
    assert (modes["."], modes["a.py"], modes["deep/er/run.sh"]) == (0o750, 0o640, 0o750)
    assert (tmp_path / "out/deep/er/run.sh").read_bytes() == b"#!/bin/bash\n"


def test_changes_replace_add_and_remove(repo: Store, tmp_path: Path) -> None:
    changes = {"a.py": b"ours\r\n", "new/x.py": b"x", "empty": None, "was/never": None, "link": b""}
    write_checkout(repo, tree_of(repo, FILES), tmp_path / "out", changes)
    expected = {path: data for path, (_, data) in FILES.items() if path != "empty"}
    assert written(tmp_path / "out") == {
        **expected,
        "a.py": b"ours\r\n",
        "new/x.py": b"x",
        "link": b"",
    }


def test_an_empty_folder_is_used(repo: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_checkout(repo, tree_of(repo, FILES), tmp_path / "out")
    assert len(written(tmp_path / "out")) == len(FILES)


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_a_used_target_is_refused_and_untouched(repo: Store, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    else:
        (target / "sub").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"is not (empty|a folder)"):
        write_checkout(repo, tree_of(repo, FILES), target)
    assert target.read_text() == "mine" if target.is_file() else (target / "sub").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store.git"]


def test_nothing_is_left_half_written(repo: Store, tmp_path: Path) -> None:
    tree = tree_of(repo, FILES)
    oid = repo.files(tree)["empty"].oid
    (repo.path / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(IntegrityError):
        write_checkout(repo, tree, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store.git"]


def test_a_disk_that_does_not_serve_is_one_sentence(repo: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot write"):
        write_checkout(repo, tree_of(repo, FILES), tmp_path / "file" / "out")


# names on Windows


@pytest.mark.parametrize(
    "path",
    ["aux", "a/NUL.txt", "con .c/x", "com1", "LPT9.tar.gz", "a:b", 'q"', "w?", "a\\b", "dot.",
     "a /b", "t\tab", "x" * 256, "latin\udcff", "CONIN$", "a/com²"],
)  # fmt: skip
def test_names_that_windows_cannot_hold(path: str) -> None:
    assert windows_fault(path)
    with pytest.raises(BadInput, match="Windows cannot hold the file"):
        check_windows_names(["fine.py", path])


@pytest.mark.parametrize("path", ["auxiliary.py", "com10", "a.b/.c", "console/x", "ünï", "x" * 255])
def test_names_that_windows_can_hold(path: str) -> None:
    assert windows_fault(path) is None


@pytest.mark.parametrize("paths", [["a/B", "a/b"], ["Dir/x", "dir/y"], ["dir/x", "DIR"]])
def test_names_that_differ_only_by_case_clash_there(
    repo: Store, tmp_path: Path, paths: list[str]
) -> None:
    tree = tree_of(repo, dict.fromkeys(paths, ("100644", b"x")))
    with pytest.raises(BadInput, match="differ only by case"):
        write_checkout(repo, tree, tmp_path / "out", windows=True)
    assert not (tmp_path / "out").exists()


@given(st.lists(st.text("aAbB./", min_size=1, max_size=6), max_size=6))
def test_case_check_agrees_with_a_plain_definition(paths: list[str]) -> None:
    paths = [path for path in paths if windows_fault(path) is None]
    prefixes = {path[:end] for path in paths for end in range(1, len(path) + 1)
                if end == len(path) or path[end] == "/"}  # fmt: skip
    clash = len({prefix.lower() for prefix in prefixes}) < len(prefixes)
    try:
        check_windows_names(paths)
    except BadInput:
        assert clash
    else:
        assert not clash


# the real thing


def test_a_real_tag_is_written_exactly_and_fast(
    obtain_tag: Callable[[str], Source],
    store: Store,
    repo: Store,
    pristine_tree: Path,
    tmp_path: Path,
) -> None:
    """Read back, the folder hashes to the very tree it was written from."""
    tree = obtain_tag("v0.14.1").tree
    import_members(repo, "refs/back", folder_members(pristine_tree), subject="back", trailers={})
    back = repo.files("refs/back")
    assert {path: found.oid for path, found in back.items()} == {
        path: found.oid for path, found in store.files(tree).items()
    }
    if os.name != "nt":  # where there is an executable bit
        assert repo.resolve("refs/back^{tree}") == tree
    start = time.perf_counter()
    write_checkout(store, tree, tmp_path / "again")
    assert time.perf_counter() - start < 20  # about one second on an idle machine


def test_real_trees_can_stand_on_windows(obtain_tag: Callable[[str], Source], store: Store) -> None:
    check_windows_names(store.files(obtain_tag("v0.14.1").tree))
