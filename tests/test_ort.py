"""Git's own merge as a witness: what it merged cleanly, and where files went."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small import snapshot

from portkit import ort
from portkit.git import Store

BODY = "".join(f"int line_{n} = {n};\n" for n in range(30))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("ort") / "objects.git") as store:
        yield store


def merge(
    store: Store, base: dict[str, str], theirs: dict[str, str], ours: dict[str, str]
) -> ort.Witness:
    old, new = snapshot(store, "v1", base), snapshot(store, "v2", theirs)
    changed = {path: ("100644", text.encode()) for path, text in ours.items()}
    return ort.merge(store, old.tree, new.tree, changed, [p for p in ours if p not in theirs])


def test_a_clean_merge_is_shown(objects: Store):
    ours = BODY.replace("line_3 =", "ours_3 =")
    theirs = BODY.replace("line_20 =", "theirs_20 =")
    found = merge(objects, {"a.cu": BODY}, {"a.cu": theirs}, {"a.cu": ours})
    both = ours.replace("line_20 =", "theirs_20 =")
    assert objects.read(found.clean["a.cu"]).decode() == both
    assert found.renamed == {}
    assert found.successor("a.cu") == "a.cu"


def test_a_conflict_is_not_clean(objects: Store):
    ours, theirs = BODY.replace("line_3 =", "o ="), BODY.replace("line_3 =", "t =")
    found = merge(objects, {"a.cu": BODY}, {"a.cu": theirs}, {"a.cu": ours})
    assert found.clean == {}


def test_one_conflict_hides_no_other_file(objects: Store):
    ours, theirs = BODY.replace("line_3 =", "o ="), BODY.replace("line_3 =", "t =")
    base = {"a.cu": BODY, "b.cu": BODY + "//\n"}
    found = merge(objects, base, {**base, "a.cu": theirs}, {"a.cu": ours, "b.cu": ours + "//\n"})
    assert set(found.clean) == {"b.cu"}


@pytest.mark.parametrize("path", ["csrc/new/a.cu", "csrc/with space/ä [1]*.cu"])
def test_a_file_is_followed_where_upstream_moved_it(objects: Store, path: str):
    ours = BODY.replace("line_3 =", "ours_3 =")
    moved = BODY.replace("line_20 =", "theirs_20 =")
    found = merge(objects, {"csrc/a.cu": BODY, "b": "b\n"}, {path: moved, "b": "b\n"},
                  {"csrc/a.cu": ours})  # fmt: skip
    assert found.renamed == {"csrc/a.cu": path}
    assert found.successor("csrc/a.cu") == path
    assert b"ours_3" in objects.read(found.clean[path])


def test_a_file_that_is_gone_goes_nowhere(objects: Store):
    ours = BODY.replace("line_3 =", "ours_3 =")
    theirs = {"b.cu": "int other;\n"}
    found = merge(objects, {"a.cu": BODY, **theirs}, theirs, {"a.cu": ours})
    assert found.renamed == {}
    assert found.successor("a.cu") == "a.cu"


def test_real_moves_of_vllm_are_followed(
    store: Store, pristine_tree: Path, obtain_tag: object
):  # fmt: skip
    """The Marlin generator moved from gptq_marlin/ to marlin/ between two releases."""
    del pristine_tree
    old = obtain_tag("v0.14.1").tree  # type: ignore[operator]
    new = obtain_tag("v0.17.1").tree  # type: ignore[operator]
    path = "csrc/quantization/gptq_marlin/generate_kernels.py"
    entry = store.files(old)[path]
    ours = store.read(entry.oid) + b"# ours\n"
    found = ort.merge(store, old, new, {path: (entry.mode, ours)}, [path])
    assert found.renamed == {path: "csrc/quantization/marlin/generate_kernels.py"}
