"""Finding CUDA toolkits, with pretended installations and with the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from portkit.cuda import toolkits
from portkit.errors import Unavailable

ON_WINDOWS = sys.platform == "win32"
needs_scripts = pytest.mark.skipif(ON_WINDOWS, reason="the pretended nvcc is a shell script")


def toolkit(root: Path, version: str = "", says: str = "") -> Path:
    """A folder that looks like a toolkit; `version` for its version.json, `says` for its nvcc."""
    nvcc = root / "bin" / ("nvcc.exe" if ON_WINDOWS else "nvcc")
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\ncat <<'end'\n{says}\nend\n")
    nvcc.chmod(0o755)
    (root / "include").mkdir()
    (root / "include/cuda.h").touch()
    if version:
        written = {"cuda_nvcc": {"name": "CUDA NVCC", "version": version}}
        (root / "version.json").write_text(json.dumps(written))
    return root


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkits, "_folders", lambda environ: ())


def test_what_the_build_takes_comes_first_and_each_toolkit_once(tmp_path: Path) -> None:
    home = toolkit(tmp_path / "Program Files" / "v12.6", "12.6.77")
    newest = toolkit(tmp_path / "v13.0", "13.0.88")
    older = toolkit(tmp_path / "v12.8", "12.8.93")
    on_path = toolkit(tmp_path / "elsewhere", "12.4.0")
    environ = {
        "CUDA_HOME": str(home),
        "CUDA_PATH": str(newest),
        "CUDA_PATH_V12_8": str(older),
        "CUDA_PATH_V13_0": str(newest),
        "CUDA_PATH_V9_0": str(tmp_path / "removed"),
        "PATH": str(on_path / "bin"),
    }
    found = toolkits.found(environ)
    assert [(one.root, one.source) for one in found] == [
        (home, "CUDA_HOME"),
        (newest, "CUDA_PATH"),
        (on_path, "PATH"),
        (older, "CUDA_PATH_V12_8"),
    ]
    assert [str(one.version) for one in found] == ["12.6.77", "13.0.88", "12.4.0", "12.8.93"]
    assert toolkits.first(environ) == found[0]


def test_installed_folders_are_taken_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolkits, "_folders", lambda environ: (tmp_path,))
    for name in ("cuda-9.2", "cuda-13.0", "cuda-12.6", "cudnn", "cuda-samples-13"):
        toolkit(tmp_path / name)
    found = [one.root.name for one in toolkits.found({})]
    assert found == ["cuda-13.0", "cuda-12.6", "cuda-9.2"]


def test_without_a_toolkit_nothing_is_found(tmp_path: Path) -> None:
    assert toolkits.found({"CUDA_HOME": str(tmp_path), "PATH": str(tmp_path)}) == ()
    assert toolkits.first({}) is None


@needs_scripts
def test_nvcc_is_asked_where_no_file_says_the_version(tmp_path: Path) -> None:
    said = "Cuda compilation tools, release 12.6, V12.6.77\nBuild cuda_12.6.r12.6"
    found = toolkits.Toolkit(toolkit(tmp_path / "a", says=said), "here")
    assert str(found.version) == "12.6.77"
    silent = toolkits.Toolkit(toolkit(tmp_path / "b"), "here")
    with pytest.raises(Unavailable, match="names no release"):
        _ = silent.version


@needs_scripts
def test_architectures_are_written_as_cmake_writes_them(tmp_path: Path) -> None:
    listed = "sm_75\nsm_90\nsm_90a\nsm_100\nsm_120f\ncompute_80\n"
    found = toolkits.Toolkit(toolkit(tmp_path / "a", says=listed), "here")
    assert found.archs == ("7.5", "9.0", "9.0a", "10.0", "12.0f", "8.0")


@needs_scripts
def test_a_script_on_the_path_leads_to_the_toolkit_it_runs(tmp_path: Path) -> None:
    real = toolkit(tmp_path / "cuda-13.0", says=f"#$ TOP={tmp_path}/cuda-13.0/bin/..")
    script = tmp_path / "bin/nvcc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{real}/bin/nvcc" "$@"\n')
    script.chmod(0o755)
    (found,) = toolkits.found({"PATH": f"{script.parent}:/usr/bin:/bin"})
    assert (found.root, found.source) == (real.resolve(), "PATH")
