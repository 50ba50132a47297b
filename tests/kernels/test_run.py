"""`python -m kernel_tests` as a person without a GPU meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernel_tests import run, trees
from portkit.errors import BadInput
from portkit.kernels import manifest as kernelmanifest

ROOT = Path(__file__).resolve().parents[2]


def kernel_tests(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernel_tests", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_without_a_gpu_it_says_what_can_be_done() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = kernel_tests()
    assert done.returncode == 3
    assert done.stderr == (
        "error: there is no CUDA GPU\nhint: --compile-only checks that everything compiles\n"
    )


def test_a_wrong_kernel_is_one_sentence() -> None:
    done = kernel_tests("--kernels", "awk")
    assert done.returncode == 2
    assert done.stderr.startswith("error: awk is no kernel of the manifest\nhint: there are ")


def test_source_for_another_arch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trees.json").write_text('{"tag": "v0.14.1", "archs": ["9.0"]}')
    manifest = kernelmanifest.load(ROOT)
    assert run.source(ROOT, manifest, ["9.0"], tmp_path, tmp_path).tag == "v0.14.1"
    with pytest.raises(BadInput, match=r"was prepared for 9\.0, not 8\.0"):
        run.source(ROOT, manifest, ["8.0"], tmp_path, tmp_path)


def test_a_folder_without_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no prepared source"):
        trees.open_prepared(tmp_path)
