"""A release: hashes that sha256sum takes, and notes that name every wheel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from portkit.commands import release
from portkit.errors import Exit
from portkit.face import console
from portkit.patches import series

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "vllm-0.14.1+cu126.sm86.win-cp38-abi3-win_amd64.whl",
    "vllm-0.14.1+cu126.sm89.win-cp38-abi3-win_amd64.whl",
    "vllm-0.14.1+cu128.win-cp38-abi3-win_amd64.whl",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(b"wheel" * (number + 1))
    return tmp_path


def test_hashes_and_notes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([str(folder)], ROOT) == Exit.OK
    text = capsys.readouterr().out
    patches = len(series.load(ROOT).upstream)
    assert f"vLLM v0.14.1 (commit `d7de043d5`) with {patches} patches" in text
    assert f"| `{NAMES[1]}` | 12.6 | 8.9 | 0 MB |" in text
    assert f"| `{NAMES[2]}` | 12.8 | all | 0 MB |" in text
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0
        assert done.stdout.decode().splitlines() == [f"{name}: OK" for name in NAMES]


def test_a_folder_without_wheels_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.run(release.main, [str(tmp_path)]) == Exit.BAD_INPUT
    assert "there is no wheel in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wheel_that_does_not_say_what_it_is_built_for_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two cells would give it the same name, and one would replace the other.
    (folder / "vllm-0.14.1-cp38-abi3-win_amd64.whl").write_bytes(b"")
    assert console.run(release.main, [str(folder)]) == Exit.BAD_INPUT
    assert "does not say its CUDA" in capsys.readouterr().err


def test_a_misnamed_wheel_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "vllm.whl").write_bytes(b"")
    assert console.run(release.main, [str(folder)]) == Exit.BAD_INPUT
    assert "vllm.whl" in capsys.readouterr().err
