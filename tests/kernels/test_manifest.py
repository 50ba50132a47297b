"""The manifest, the bindings made from it, and the lint that keeps them complete."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from kernel_tests import bindings, mutants, run, trees
from portkit.errors import BadFile, BadInput
from portkit.kernels import manifest as kernelmanifest
from portkit.patches import series
from portkit.stack import lint

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = kernelmanifest.load(ROOT)
PATCHES = {patch.name: patch for patch in series.load(ROOT).upstream}


def test_every_patch_of_a_compiled_file_has_a_kernel() -> None:
    paths = {name: patch.path for name, patch in PATCHES.items()}
    assert not kernelmanifest.unclaimed(MANIFEST, paths)
    assert not list(kernelmanifest.unknown(MANIFEST, paths))


def test_lint_names_a_patch_without_a_kernel_and_a_kernel_without_its_patch(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "patch_series", tmp_path / "patch_series")
    shutil.copy(ROOT / "upstream_pin.txt", tmp_path)
    (tmp_path / "kernel_tests").mkdir()
    text = (ROOT / kernelmanifest.MANIFEST_FILE).read_text("utf-8")
    awq = "kernels/csrc/quantization/awq/gemm_kernels.cu.patch"
    changed = text.replace(awq, "kernels/csrc/gone.cu.patch")
    (tmp_path / kernelmanifest.MANIFEST_FILE).write_text(changed, "utf-8")
    found = lint.check(tmp_path, today=date.today()).faults
    said = {str(fault) for fault in found if fault.rule == "kernels"}
    assert said == {
        f"patch_series/{awq}:1: changes a compiled file and is in no entry of "
        "kernel_tests/manifest.toml [kernels]",
        "kernel_tests/manifest.toml:1: awq: there is no kernels/csrc/gone.cu.patch [kernels]",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "probe"', 'kind = "prob"', "kernels.next_pow_2.kind"),
        ('ops = ["_C::merge_attn_states"]', 'ops = ["merge"]', "kernels.merge_attn_states.ops"),
        ("[kernels.awq]", "[kernels.awq", "at line"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / kernelmanifest.MANIFEST_FILE).read_text("utf-8")
    assert old in text
    (tmp_path / "kernel_tests").mkdir()
    (tmp_path / kernelmanifest.MANIFEST_FILE).write_text(text.replace(old, new), "utf-8")
    with pytest.raises(BadFile, match=said):
        kernelmanifest.load(tmp_path)


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(BadInput, match="nothing is no kernel"):
        run.selected(MANIFEST, "awq, nothing")
    assert run.selected(MANIFEST, "awq,marlin") == ("awq", "marlin")  # the manifest's order


def test_every_source_and_op_is_upstreams(pristine_tree: Path) -> None:
    for name, kernel in MANIFEST.kernels.items():
        folder = ROOT / "kernel_tests/probes" if kernel.kind == "probe" else pristine_tree
        for source in kernel.sources:
            assert (folder / source).is_file(), f"{name}: {source}"
        for test in kernel.upstream_tests:
            assert (pristine_tree / test).is_file(), f"{name}: {test}"
        for op in kernel.ops:
            library, _, plain = op.partition("::")
            assert bindings.read(pristine_tree, library).schema(plain).startswith(f"{plain}(")
        assert (ROOT / "kernel_tests/cases" / kernel.cases).is_file()


def test_bindings_are_upstreams_words(pristine_tree: Path) -> None:
    text = bindings.write(pristine_tree, ["_moe_C::moe_sum"], "upstream")
    assert "TORCH_LIBRARY_FRAGMENT(upstream_moe_C, m)" in text
    assert 'm.def("moe_sum(Tensor input, Tensor! output) -> ()");' in text
    assert "&moe_sum);" in text
    assert "moe_align" not in text
    with pytest.raises(BadInput, match="defines no op nothing"):
        bindings.write(pristine_tree, ["_C::nothing"])


def test_only_our_own_guards_are_switched_on(patched_tree: Path) -> None:
    for patch in PATCHES.values():
        if not kernelmanifest.is_compiled(patch.path):
            continue
        data = (patched_tree / patch.path).read_bytes()
        switched = trees.windows_branches(data, patch)
        guards = sum(
            line.startswith(b"+") and b"_MSC_VER" in line
            for hunk in patch.change.hunks
            for line in hunk.lines
        )
        assert switched.count(trees.BRANCH.encode()) == guards
        assert switched.replace(trees.BRANCH.encode(), b"_MSC_VER") == data


def test_every_patch_has_three_mutants_that_change_its_file(patched_tree: Path) -> None:
    wrong = mutants.load(ROOT, MANIFEST)
    for patch in MANIFEST.claimed:
        mine = [one for one in wrong if one.patch == patch]
        assert len(mine) >= 3, patch
        text = (patched_tree / mine[0].path).read_text("utf-8")
        text = text.replace("_MSC_VER", trees.BRANCH)
        results = {one.applied(text) for one in mine}
        assert len(results) == len(mine) and text not in results


def test_a_mutant_that_does_not_fit_is_named() -> None:
    one = mutants.load(ROOT, MANIFEST)[0]
    with pytest.raises(BadFile, match=f"{one.name}: `find` stands 0 times"):
        one.applied("nothing here")
