"""Objects named by content: shared where the trees agree, new where anything differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_tests.build import Builder, patched_side, upstream_side
from kernel_tests.toolchain import Toolchain, gencode
from portkit.errors import Unavailable
from portkit.kernels.manifest import Kernel

KERNEL = Kernel(about="", patches=("p",), sources=("csrc/a.cu", "csrc/b.cu"), cases="test_a.py")


def tree(folder: Path, header: str = "int x;") -> Path:
    (folder / "csrc/inner").mkdir(parents=True)
    (folder / "csrc/a.cu").write_text('#include "inner/h.cuh"\n#include <vector>\n')
    (folder / "csrc/b.cu").write_text("int alone;\n")
    (folder / "csrc/inner/h.cuh").write_text('#include "../deep.h"\n')
    (folder / "csrc/deep.h").write_text(header)
    return folder


def builder(
    cache: Path, archs: tuple[str, ...] = ("9.0",), fingerprint: str = "nvcc 13"
) -> Builder:
    chain = Toolchain(Path("nvcc"), ("-O2",), (), (cache,), fingerprint)
    return Builder(chain, archs, cache)


def test_trees_share_the_units_that_are_the_same(tmp_path: Path) -> None:
    one = patched_side(tree(tmp_path / "one"))
    other = upstream_side(tree(tmp_path / "other", "int y;"))
    ours = builder(tmp_path / "cache").library("k", KERNEL, one).objects
    theirs = builder(tmp_path / "cache").library("k", KERNEL, other).objects
    assert ours[1] == theirs[1]  # b.cu includes nothing
    assert ours[0] != theirs[0]  # a header two includes away differs


def test_flags_archs_and_compilers_make_other_objects(tmp_path: Path) -> None:
    side = patched_side(tree(tmp_path / "tree"))
    base = builder(tmp_path).library("k", KERNEL, side)
    for changed in (
        builder(tmp_path, archs=("8.0",)).library("k", KERNEL, side),
        builder(tmp_path, fingerprint="nvcc 12").library("k", KERNEL, side),
        builder(tmp_path).library("k", KERNEL.model_copy(update={"flags": ("-x",)}), side),
    ):
        assert not set(base.objects) & set(changed.objects)
        assert base.path != changed.path


def test_what_is_there_is_not_built(tmp_path: Path) -> None:
    library = builder(tmp_path).library("k", KERNEL, patched_side(tree(tmp_path / "tree")))
    library.path.parent.mkdir(parents=True)
    library.path.write_bytes(b"")
    assert builder(tmp_path).build([library]) == {}


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"libc10\.so is in none of"):
        builder(tmp_path).toolchain.link_arguments(())


def test_archs_as_nvcc_writes_them() -> None:
    assert gencode(("9.0", "12.0a")) == [
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_120a,code=sm_120a",
    ]
