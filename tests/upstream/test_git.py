"""The object store, with git itself as the judge of every object and listing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portkit.errors import IntegrityError
from portkit.upstream.git import Difference, Store, TreeEntry


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("git") / "with space.git") as store:
        yield store


def entries(store: Store, files: Mapping[str, str]) -> dict[str, TreeEntry | None]:
    oids = store.write_blobs([text.encode() for text in files.values()])
    return {path: TreeEntry("100644", oid) for path, oid in zip(files, oids, strict=True)}


def tree_by_git(store: Store, files: Mapping[str, TreeEntry | None], folder: Path) -> str:
    """The tree of `files`, made by git through an index."""
    env = {"GIT_INDEX_FILE": str(folder / "index")}
    lines = "".join(f"{e.mode} {e.oid} 0\t{path}\0" for path, e in files.items() if e is not None)
    store.git("read-tree", "--empty", env=env)
    store.git("update-index", "-z", "--index-info", stdin=lines.encode(), env=env)
    return store.git("write-tree", env=env).decode().strip()


@pytest.mark.parametrize("data", [b"", b"text\n", b"\x00\xff" * 70_000])
def test_an_object_is_what_git_makes_of_it(objects: Store, data: bytes) -> None:
    (oid,) = objects.write_blobs([data])
    assert oid.encode() == objects.git("hash-object", "--stdin", stdin=data).strip()
    assert objects.read(oid) == objects.git("cat-file", "blob", oid) == data


def test_a_commit_is_what_git_makes_of_it(objects: Store) -> None:
    tree = objects.edit_tree(None, entries(objects, {"a": "a\n"}))
    first = objects.commit(tree)
    second = objects.commit(tree, [first], "später")
    args = ("commit-tree", tree, "-p", first)
    assert second.encode() == objects.git(*args, stdin="später\n".encode()).strip()
    assert objects.git("rev-list", second).decode().split() == [second, first]


# Names that sort differently as files and as folders, and ones that are both at different times.
names = st.sampled_from(["a", "a.b", "a-b", "a0", "b", "ä", "b c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


def fits(files: Mapping[str, str]) -> bool:
    """Whether no path is both a file and a folder."""
    return not any(other.startswith(f"{path}/") for path in files for other in files)


trees = st.dictionaries(paths, st.sampled_from(["x", "y"]), max_size=6).filter(fits)


@settings(max_examples=30, deadline=None)
@given(before=trees, after=trees)
def test_an_edited_tree_is_the_one_git_makes(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], after: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("trees", numbered=True)
    with Store.create(folder / "objects.git") as store:
        old, new = entries(store, before), entries(store, after)
        tree = store.edit_tree(None, old)
        assert tree == tree_by_git(store, old, folder)
        changed = store.edit_tree(tree, {**dict.fromkeys(before), **new})
        assert changed == tree_by_git(store, new, folder)
        assert dict(store.files(changed)) == new
        looked_up = store.files(changed)
        assert {path: looked_up.get(path) for path in {*before, *after}} == {
            path: new.get(path) for path in {*before, *after}
        }
        assert store.differences(tree, changed) == [
            Difference(path, old.get(path), new.get(path))
            for path in sorted({*before, *after}, key=str.encode)
            if old.get(path) != new.get(path)
        ]


def test_a_folder_is_no_file(objects: Store) -> None:
    files = objects.files(objects.edit_tree(None, entries(objects, {"a/b/c": "x", "d": "y"})))
    for path in ("a", "a/b", "a/b/c/d", "a/b/x", "d/e", ""):
        assert path not in files
    assert "a/b/c" in files
    assert len(files) == 2


def test_many_objects_are_read_in_order(objects: Store) -> None:
    blobs = [b"%d\n" % number * number for number in range(500)]
    oids = objects.write_blobs(blobs)
    assert objects.read_many(oids) == blobs


def test_a_missing_object_does_not_confuse_the_next_ones(objects: Store) -> None:
    (oid,) = objects.write_blobs([b"here"])
    with pytest.raises(IntegrityError, match="is missing"):
        objects.read_many([oid, "0" * 40, oid])
    assert objects.read(oid) == b"here"
