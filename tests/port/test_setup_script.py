"""``setup.py``, run with ``setup()`` and torch stubbed, on Linux and on a pretended Windows.

Windows is pretended by ``sys.platform``, the separators of ``os``, and paths with drive letters;
what would be run is recorded instead of run."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest

WINDOWS_CUDA = r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v12.6"
WINDOWS_PYTHON = r"C:\Program Files\Python310\python.exe"
WINDOWS_PATH = [r"D:\vllm", r"C:\Program Files\Python310\Lib", r"C:\Users\An Na\site-packages"]
LINUX_CUDA = "/usr/local/cuda-12.6"


@dataclasses.dataclass
class Script:
    """The names that ``setup.py`` defines, and the commands that it ran."""

    names: dict[str, Any]
    commands: list[list[str]]

    @property
    def target(self) -> str:
        return str(self.names["VLLM_TARGET_DEVICE"])

    @property
    def definitions(self) -> dict[str, str]:
        """The ``-D`` definitions of the command that configured."""
        command = next(command for command in self.commands if "-D" in " ".join(command))
        pairs = (part[2:].split("=", 1) for part in command if part.startswith("-D"))
        return dict(pairs)

    def configure(self) -> None:
        """Run the real ``cmake_build_ext.configure`` for one extension."""
        builder = types.SimpleNamespace(debug=False, build_temp="build")
        build_ext = self.names["cmake_build_ext"]
        builder.compute_num_jobs = lambda: build_ext.compute_num_jobs(builder)
        build_ext.did_config = {}
        build_ext.configure(builder, types.SimpleNamespace(cmake_lists_dir="."))


def module(name: str, **names: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(names)
    return made


class BuildExt:
    """In the place of setuptools' ``build_ext``, whose ``run`` builds."""

    build_lib = ""

    def run(self) -> None:
        return None


def load(
    tree: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    windows: bool,
    target: str | None = "cuda",
    cuda: str | None = "12.6",
) -> Script:
    """Execute a tree's ``setup.py``; it reads the version, requirements and nvcc on the way."""
    commands: list[list[str]] = []

    def record(command: list[str], **_: object) -> str:
        commands.append([os.fspath(part) for part in command])
        return "Cuda compilation tools, release 12.6, V12.6.85"

    for name in ("CMAKE_ARGS", "FETCHCONTENT_BASE_DIR", "VLLM_USE_PRECOMPILED", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("VLLM_TARGET_DEVICE", raising=False)
    if target is not None:
        monkeypatch.setenv("VLLM_TARGET_DEVICE", target)
    home = WINDOWS_CUDA if windows else LINUX_CUDA
    version = module("torch.version", cuda=cuda, hip=None)
    stubs = {
        "torch": module("torch", version=version),
        "torch.version": version,
        "torch.utils": module("torch.utils"),
        "torch.utils.cpp_extension": module("_", CUDA_HOME=home, ROCM_HOME=None),
        "setuptools": module(
            "setuptools", setup=lambda **_: None, Extension=type("Extension", (), {})
        ),
        "setuptools.command": module("setuptools.command"),
        "setuptools.command.build_ext": module("_", build_ext=BuildExt),
        "setuptools.command.build_py": module("_", build_py=type("build_py", (), {})),
        "setuptools.command.develop": module("_", develop=type("develop", (), {})),
        "setuptools_scm": module("_", get_version=lambda **_: "0.14.1"),
    }
    stubs["setuptools"].Extension.__init__ = lambda self, name, *_, **__: setattr(
        self, "name", name
    )
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    monkeypatch.setitem(sys.modules, "envs", module("envs"))  # put back what the script puts there
    monkeypatch.setattr(subprocess, "check_output", record)
    monkeypatch.setattr(subprocess, "check_call", record)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the trees are not ours to write to
    monkeypatch.setattr(sys, "platform", "win32" if windows else "linux")
    file = tree / "setup.py"
    code = compile(file.read_text(encoding="utf-8"), str(file), "exec")
    names: dict[str, Any] = {"__name__": "setup", "__file__": str(file)}
    exec(code, names)
    if windows:
        monkeypatch.setattr(os, "sep", "\\")
        monkeypatch.setattr(os, "pathsep", ";")
        monkeypatch.setattr(sys, "executable", WINDOWS_PYTHON)
        monkeypatch.setattr(sys, "path", WINDOWS_PATH)
        names["ROOT_DIR"] = r"D:\vllm"
    return Script(names, commands)


def test_linux_runs_upstreams_commands(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(tree: pathlib.Path) -> list[list[str]]:
        with monkeypatch.context() as patch:
            script = load(tree, patch, windows=False)
            patch.setenv("CMAKE_ARGS", "-DMINE=a\\b")
            patch.setattr(sys, "path", ["", "/odd\\name", "/usr/lib/python3//x/"])
            script.configure()
            commands = [[part.replace(str(tree), "TREE") for part in c] for c in script.commands]
            assert any("-DVLLM_PYTHON_PATH=:/odd\\name:/usr/lib/python3//x/" in c for c in commands)
            return commands

    assert run(patched_tree) == run(pristine_tree)


@pytest.mark.parametrize("target", [None, "cuda", "cpu", "empty", "CUDA"])
def test_linux_target_is_upstreams(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str | None,
) -> None:
    for cuda in ("12.6", "13.0"):
        upstream = load(pristine_tree, monkeypatch, windows=False, target=target, cuda=cuda)
        patched = load(patched_tree, monkeypatch, windows=False, target=target, cuda=cuda)
        assert patched.target == upstream.target


@pytest.mark.parametrize("target", ["cuda", "CUDA"])
def test_windows_builds_for_cuda_when_asked(
    pristine_tree: pathlib.Path,
    patched_tree: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    assert load(pristine_tree, monkeypatch, windows=True, target=target).target == "empty"
    script = load(patched_tree, monkeypatch, windows=True, target=target)
    assert script.target == "cuda"
    assert "vllm._C" in [extension.name for extension in script.names["ext_modules"]]


@pytest.mark.parametrize("target", [None, "cpu", "rocm", "empty"])
def test_windows_builds_nothing_otherwise(
    patched_tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    script = load(patched_tree, monkeypatch, windows=True, target=target)
    assert script.target == "empty"
    assert script.names["ext_modules"] == []


def test_windows_paths_reach_cmake_with_forward_slashes(
    patched_tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load(patched_tree, monkeypatch, windows=True)
    monkeypatch.setenv("FETCHCONTENT_BASE_DIR", r"D:\de ps")
    monkeypatch.setenv("CMAKE_ARGS", r"-DMINE=a\b")
    script.configure()
    toolkit = WINDOWS_CUDA.replace("\\", "/")
    definitions = script.definitions
    assert definitions["VLLM_PYTHON_EXECUTABLE"] == "C:/Program Files/Python310/python.exe"
    assert definitions["CMAKE_CUDA_COMPILER"] == f"{toolkit}/bin/nvcc.exe"
    assert definitions["FETCHCONTENT_BASE_DIR"] == "D:/de ps"
    assert definitions["MINE"] == r"a\b", "what the user wrote is the user's"
    assert definitions["VLLM_PYTHON_PATH"].split(";") == [
        "D:/vllm",
        "C:/Program Files/Python310/Lib",
        "C:/Users/An Na/site-packages",
    ]


def test_windows_asks_nvcc_exe_for_its_version(
    patched_tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``CreateProcess`` adds no ``.exe`` to a name that has a folder."""
    script = load(patched_tree, monkeypatch, windows=True)
    assert str(script.names["get_nvcc_cuda_version"]()) == "12.6"
    assert script.commands[-1] == [f"{WINDOWS_CUDA}/bin/nvcc.exe", "-V"]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (r"C:\tmp\lib\vllm\vllm_flash_attn\ops\a.py", "vllm/vllm_flash_attn/ops/a.py"),
        (r"build\lib\vllm\vllm_flash_attn\b.py", "vllm/vllm_flash_attn/b.py"),
        ("build/lib/vllm/vllm_flash_attn/ops/a.py", "vllm/vllm_flash_attn/ops/a.py"),
    ],
)
def test_flash_attention_modules_are_copied_into_the_package(
    patched_tree: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    found: str,
    wanted: str,
) -> None:
    script = load(patched_tree, monkeypatch, windows="\\" in found)
    copies: list[tuple[str, str]] = []
    builder = script.names["cmake_build_ext"]()
    builder.copy_file = lambda source, target: copies.append((source, target))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("glob.glob", lambda *_, **__: [found])
    monkeypatch.setattr("shutil.copytree", lambda *_, **__: None)
    builder.run()
    assert copies == [(found, wanted)]
    assert (tmp_path / wanted).parent.is_dir()
