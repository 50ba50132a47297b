"""Git's own merge as a witness: what it merged cleanly, and where files went."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from small import snapshot

from portkit.carrying import ort
from portkit.upstream.git import Store
from portkit.upstream.source import Source

BODY = "".join(f"int line_{n} = {n};\n" for n in range(30))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("ort") / "objects.git") as store:
        yield store


def series(
    store: Store, base: dict[str, str], theirs: dict[str, str], ours: dict[str, str]
) -> ort.Series:
    old, new = snapshot(store, "v1", base), snapshot(store, "v2", theirs)
    changed = {path: (base[path].encode(), text.encode()) for path, text in ours.items()}
    missing = frozenset(path for path in ours if path not in theirs)
    return ort.Series(store, old.tree, new.tree, frozenset(changed), missing, changed.__getitem__)


OURS = BODY.replace("line_3 =", "ours_3 =")


def test_a_clean_merge_is_shown(objects: Store) -> None:
    theirs = BODY.replace("line_20 =", "theirs_20 =")
    found = series(objects, {"a.cu": BODY}, {"a.cu": theirs}, {"a.cu": OURS})
    both = OURS.replace("line_20 =", "theirs_20 =")
    assert found.merged("a.cu", theirs.encode()) == both.encode()
    assert found.successor("a.cu") == "a.cu"


def test_a_conflict_is_not_clean(objects: Store) -> None:
    theirs = BODY.replace("line_3 =", "theirs_3 =")
    found = series(objects, {"a.cu": BODY}, {"a.cu": theirs}, {"a.cu": OURS})
    assert found.merged("a.cu", theirs.encode()) is None


def test_a_file_of_no_patch_has_no_merge(objects: Store) -> None:
    found = series(objects, {"a.cu": BODY}, {"a.cu": BODY}, {"a.cu": OURS})
    assert found.merged("b.cu", b"") is None


@pytest.mark.parametrize("data", [b"<<<<<<< ours\nx\n", b"a\r\nb", b"\xff\x0c\n", b""])
def test_bytes_survive_and_marker_like_lines_are_no_conflict(data: bytes) -> None:
    lines = BODY.encode()
    merged = ort.merge_file(data + lines, data + lines + b"ours\n", b"theirs\n" + data + lines)
    assert merged == b"theirs\n" + data + lines + b"ours\n"


@pytest.mark.parametrize("path", ["csrc/new/a.cu", "csrc/with space/\u00e4 [1].cu"])
def test_a_file_is_followed_where_upstream_moved_it(objects: Store, path: str) -> None:
    moved = BODY.replace("line_20 =", "theirs_20 =")
    base = {"csrc/a.cu": BODY, "b": "b\n"}
    found = series(objects, base, {path: moved, "b": "b\n"}, {"csrc/a.cu": OURS})
    assert found.successor("csrc/a.cu") == path
    assert found.successor("b") == "b"


def test_one_conflict_hides_no_other_move(objects: Store) -> None:
    other = BODY.replace("line", "other")
    base = {"a.cu": BODY, "x.cu": other}
    theirs = {"b.cu": BODY.replace("line_3 =", "theirs_3 ="), "y.cu": other}
    ours = {"a.cu": OURS, "x.cu": other.replace("other_3 =", "ours_3 =")}
    found = series(objects, base, theirs, ours)
    assert [found.successor(path) for path in ours] == ["b.cu", "y.cu"]


def test_a_file_that_is_gone_goes_nowhere(objects: Store) -> None:
    theirs = {"b.cu": "int other;\n"}
    found = series(objects, {"a.cu": BODY, **theirs}, theirs, {"a.cu": OURS})
    assert found.successor("a.cu") == "a.cu"


def test_real_moves_of_vllm_are_followed(store: Store, obtain_tag: Callable[[str], Source]) -> None:
    """The Marlin generator moved from gptq_marlin/ to marlin/ between two releases."""
    old, new = (obtain_tag(tag).tree for tag in ("v0.14.1", "v0.17.1"))
    path = "csrc/quantization/gptq_marlin/generate_kernels.py"
    base = store.read(store.files(old)[path].oid)
    one = frozenset([path])
    found = ort.Series(store, old, new, one, one, lambda _: (base, base + b"# ours\n"))
    assert found.successor(path) == "csrc/quantization/marlin/generate_kernels.py"


def test_a_file_with_a_nul_byte_is_no_failure_of_git() -> None:
    """A refresh must not end with "git merge-file failed": git takes the file for binary."""
    assert ort.merge_file(b"a\x00\n", b"a\x00\nours\n", b"theirs\na\x00\n") in (
        None,
        b"theirs\na\x00\nours\n",
    )
