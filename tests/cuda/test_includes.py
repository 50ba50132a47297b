"""The files a translation unit is made of, found without a compiler."""

from __future__ import annotations

from portkit.cuda.includes import Includes

TREE = {
    "csrc/a.cu": b'#include "b.cuh"\n  #  include <core/c.h>\n#include <vector>\n',
    "csrc/b.cuh": b'#ifdef USE_ROCM\n#include "rocm/d.h"\n#endif\n#include "../csrc/a.cu"\n',
    "csrc/core/c.h": b'/* #include "not.h" */\n#include /* why */ "e.h" // #include "not.h"\n',
    "csrc/core/e.h": b"",
    "csrc/core/not.h": b"",
    "csrc/rocm/d.h": b'#include \\\n  "../b.cuh"\n',
    "outside.h": b"",
}


def closure(unit: str, tree: dict[str, bytes] = TREE) -> list[str]:
    return list(Includes(tree.get, ("csrc",)).closure(unit).files)


def test_every_branch_counts_and_comments_do_not() -> None:
    found = ["csrc/a.cu", "csrc/b.cuh", "csrc/core/c.h", "csrc/core/e.h", "csrc/rocm/d.h"]
    assert closure("csrc/a.cu") == found


def test_an_include_beside_the_file_and_one_of_a_folder_are_both_taken() -> None:
    tree = {"csrc/x/a.cu": b'#include "h.h"\n', "csrc/x/h.h": b"", "csrc/h.h": b""}
    assert closure("csrc/x/a.cu", tree) == ["csrc/h.h", "csrc/x/a.cu", "csrc/x/h.h"]


def test_a_change_of_any_file_changes_the_digest() -> None:
    before = Includes(TREE.get, ("csrc",)).closure("csrc/a.cu").digest
    for path in closure("csrc/a.cu"):
        changed = {**TREE, path: TREE[path] + b"\n"}
        assert Includes(changed.get, ("csrc",)).closure("csrc/a.cu").digest != before
    other = {**TREE, "csrc/core/not.h": b"changed"}
    assert Includes(other.get, ("csrc",)).closure("csrc/a.cu").digest == before


def test_a_unit_that_is_not_there_has_no_files() -> None:
    assert closure("csrc/gone.cu") == []
