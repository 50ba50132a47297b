"""The wheel of a cell is installed whole, or there is one sentence."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from portkit.build import wheels
from portkit.commands import install
from portkit.errors import Exit
from portkit.face import console

VERSION = "0.14.1+cu130.sm90"


def wheel(folder: Path, version: str = VERSION, requires: str = "") -> Path:
    """A pure wheel of one module that knows its version."""
    info = f"vllm-{version}.dist-info"
    files = {
        "vllm.py": f"version = {version!r}\n".encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n".encode()
        + requires.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n\n",
    }
    return wheels.pack(files.items(), folder, f"vllm-{version}-py3-none-any.whl").path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cell") / "a python"
    venv.create(folder)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def test_the_wheel_is_installed_into_the_environment_that_was_named(
    tmp_path: Path, python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wheel(tmp_path)
    assert console.run(install.main, [str(tmp_path), "--python", str(python)]) == Exit.OK
    assert capsys.readouterr().out == f"{file.name} installed for {python}\n"
    asked = [str(python), "-c", "import vllm; print(vllm.version)"]
    assert subprocess.check_output(asked, text=True).strip() == VERSION


def refused(folder: Path, python: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = console.run(install.main, [str(folder), "--python", str(python)])
    return code, capsys.readouterr().err.splitlines()[0]


def test_none_and_several_wheels_are_refused(
    tmp_path: Path, python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refused(tmp_path, python, capsys)
    assert (code, said) == (
        Exit.BAD_INPUT,
        f"error: {tmp_path} should have one wheel, but has none",
    )
    one, other = wheel(tmp_path), wheel(tmp_path, "0.14.1+cu130.sm89")
    code, said = refused(tmp_path, python, capsys)
    assert code == Exit.BAD_INPUT and one.name in said and other.name in said


def test_a_wheel_of_no_toolkit_and_one_that_cannot_be_installed_are_told(
    tmp_path: Path, python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path / "plain", "0.14.1")
    code, said = refused(tmp_path / "plain", python, capsys)
    assert code == Exit.BAD_INPUT and "does not say its CUDA toolkit" in said
    wheel(tmp_path / "future", requires="Requires-Python: >=4\n")
    code, said = refused(tmp_path / "future", python, capsys)
    assert code == Exit.UNAVAILABLE and said.startswith("error: uv pip failed: ")
