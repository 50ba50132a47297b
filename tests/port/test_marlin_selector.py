"""The generated Marlin kernels and their selector mean what upstream's mean.

The comparison is the audit's (`portkit.audit.generators`), here for the lists of architectures that
show the most; the audit takes more of them."""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest

from portkit.audit import generators
from portkit.cuda.includes import Read

GPTQ = "csrc/quantization/gptq_marlin/generate_kernels.py"
MOE = "csrc/moe/marlin_moe_wna16/generate_kernels.py"
GENERATORS = [GPTQ, MOE]
ARCH_LISTS = ["7.5", "8.0", "8.9", "7.5,8.0,8.6", "7.5,8.0,8.6,8.7,8.9,9.0,10.0,12.0"]


def reader(tree: pathlib.Path) -> Read:
    def read(path: str) -> bytes | None:
        file = tree / path
        return file.read_bytes() if file.is_file() else None

    return read


def generate_pair(
    pristine: pathlib.Path, patched: pathlib.Path, path: str, archs: str, tmp: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders that the generators of both trees fill."""
    folders = (tmp / "upstream", tmp / "patched")
    for tree, folder in zip((pristine, patched), folders, strict=True):
        generators.generate(path, reader(tree), archs, folder)
    return folders


@pytest.mark.parametrize("archs", ARCH_LISTS)
@pytest.mark.parametrize("path", GENERATORS)
def test_generated_kernels_are_upstreams(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    tmp_path: pathlib.Path,
    path: str,
    archs: str,
) -> None:
    upstream, patched = generate_pair(pristine_tree, patched_tree, path, archs, tmp_path)
    assert generators.kernels(upstream)
    assert generators.kernels(patched) == generators.kernels(upstream)


@pytest.mark.parametrize("path", GENERATORS)
def test_selector_branches_are_flat(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path, path: str
) -> None:
    """MSVC counts each ``else if`` as one more nested block, and allows 128."""
    folders = generate_pair(pristine_tree, patched_tree, path, "8.6", tmp_path)
    upstream, patched = ((folder / generators.SELECTOR).read_text() for folder in folders)
    assert len(re.findall(r"\belse\b", upstream)) > 128
    assert not re.findall(r"\belse\b", patched)
    assert len(re.findall(r"\bif \(", patched)) == len(re.findall(r"\bif \(", upstream))


@pytest.mark.parametrize("path", GENERATORS)
def test_generator_needs_no_rm(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, tmp_path: pathlib.Path, path: str
) -> None:
    """Old kernels go, and a first run finds none, on a system that has no ``rm``."""
    nowhere = {"PATH": str(tmp_path / "nowhere")}
    failed = generators.run(path, reader(pristine_tree), "8.6", tmp_path / "upstream", nowhere)
    assert "FileNotFoundError" in failed.stderr
    out = tmp_path / "patched"
    for _ in range(2):
        done = generators.run(path, reader(patched_tree), "8.6", out, nowhere)
        assert done.returncode == 0, done.stderr
        assert not (out / "sm89_kernel_of_another_run.cu").exists()
        (out / "sm89_kernel_of_another_run.cu").write_text("stale\n")


@pytest.mark.parametrize("archs", ["7.5", "7.5,8.9"])
@pytest.mark.parametrize("path", GENERATORS)
def test_selector_picks_upstreams_kernel(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    tmp_path: pathlib.Path,
    path: str,
    archs: str,
) -> None:
    """For each combination: the same kernel, none in both, or refused in both."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    upstream, patched = generate_pair(pristine_tree, patched_tree, path, archs, tmp_path)
    selection = generators.select(upstream, patched)
    branches = (upstream / generators.SELECTOR).read_text().count("kernel = ")
    assert selection.found == branches < selection.combinations
    assert (selection.refused > 0) == ("8.9" not in archs)
    assert selection.different == 0
