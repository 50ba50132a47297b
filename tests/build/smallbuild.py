"""A small upstream that is built as the real one is: setup.py drives CMake, which takes a folder
for its one dependency, and the package has a compiled module, package data and a payload."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from desk import Desk, Said
from recorded import toolkit

from portkit.commands import build
from portkit.face import console

SETUP = b"""\
import os, subprocess, sys
from pathlib import Path
import torch
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent


class CMakeExtension(Extension):
    def __init__(self, name):
        super().__init__(name, sources=[], py_limited_api=True)


class cmake_build_ext(build_ext):
    def build_extensions(self):
        os.makedirs(self.build_temp, exist_ok=True)
        subprocess.check_call(
            ["cmake", str(ROOT), "-G", "Ninja", "-DVLLM_PYTHON_EXECUTABLE=" + sys.executable,
             "-DCMAKE_BUILD_TYPE=Release"], cwd=self.build_temp)
        names = [ext.name.removeprefix("vllm.") for ext in self.extensions]
        subprocess.check_call(["cmake", "--build", ".", "-j=" + os.environ["MAX_JOBS"],
                               *["--target=" + name for name in names]], cwd=self.build_temp)
        for ext in self.extensions:
            prefix = Path(self.get_ext_fullpath(ext.name)).parent.absolute().parent
            subprocess.check_call(["cmake", "--install", ".", "--prefix", prefix, "--component",
                                   ext.name.removeprefix("vllm.")], cwd=self.build_temp)


setup(
    name="vllm", version=os.environ["VLLM_VERSION_OVERRIDE"], packages=find_packages(),
    package_data={"vllm": ["*.json"]}, install_requires=["torch==2.9.1"],
    ext_modules=[CMakeExtension("vllm._C")], cmdclass={"build_ext": cmake_build_ext},
    include_package_data=True,
)
"""
CMAKE = b"""\
cmake_minimum_required(VERSION 3.26)
project(small LANGUAGES CXX)
set(CUDA_SUPPORTED_ARCHS "7.0;8.0;8.6;9.0")
set(Python_EXECUTABLE ${VLLM_PYTHON_EXECUTABLE})
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module Development.SABIModule)
include(FetchContent)
include(cmake/external_projects/tiny.cmake)
Python_add_library(_C MODULE USE_SABI 3 WITH_SOABI csrc/bindings.cpp csrc/other.cpp)
target_include_directories(_C PRIVATE csrc ${tiny_SOURCE_DIR})
install(TARGETS _C LIBRARY DESTINATION vllm COMPONENT _C)
install(DIRECTORY ${tiny_SOURCE_DIR}/python/ DESTINATION vllm/third_party COMPONENT _C
  FILES_MATCHING PATTERN "*.py")
"""
TINY = b"""\
if(DEFINED ENV{TINY_SRC_DIR})
  set(TINY_SRC_DIR $ENV{TINY_SRC_DIR})
endif()
if(TINY_SRC_DIR)
  FetchContent_Declare(tiny SOURCE_DIR ${TINY_SRC_DIR})
else()
  FetchContent_Declare(tiny GIT_REPOSITORY https://tiny.invalid/tiny.git GIT_TAG v1.2)
endif()
FetchContent_MakeAvailable(tiny)
"""
BINDINGS = b"""\
#include <Python.h>
#include "value.h"
static PyObject *value(PyObject *, PyObject *) {
  return PyLong_FromLong(kValue + tiny() + other());
}
static PyMethodDef methods[] = {
  {"value", value, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods};
PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&definition); }
"""
UPSTREAM = {
    "setup.py": SETUP,
    "CMakeLists.txt": CMAKE,
    "cmake/external_projects/tiny.cmake": TINY,
    "pyproject.toml": b'[build-system]\nrequires = ["cmake>=3.26", "ninja", "torch == 2.9.1"]\n'
    b'build-backend = "setuptools.build_meta"\n',
    "requirements/cuda.txt": b"torch==2.9.1\n",
    "README.md": b"small\n",
    "LICENSE": b"free\n",
    "vllm/__init__.py": b"__version__ = 'small'\n",
    "vllm/chat/__init__.py": b"",
    "vllm/chat/template.jinja": b"{{ messages }}\n",
    "csrc/value.h": b'#pragma once\n#include "tiny.h"\nconstexpr long kValue = 40;\n'
    b"long other();\n",
    "csrc/bindings.cpp": BINDINGS,
    "csrc/other.cpp": b"long other() { return 0; }\n",
}
PATCHED = {"csrc/value.h": UPSTREAM["csrc/value.h"].replace(b"40", b"41")}
TORCH = {
    "__init__.py": "__version__ = '2.9.1+cu126'\nfrom . import version\n"
    "class cuda:\n    is_available = staticmethod(lambda: False)\n",
    "version.py": "cuda = '12.6'\nhip = None\n",
}


@dataclass
class SmallBuild:
    """The repository, the target Python with a torch that only says what it is, and the work."""

    desk: Desk
    python: Path
    work: Path
    deps: Path

    @classmethod
    def make(cls, folder: Path) -> SmallBuild:
        """All of it below `folder`, whose name may hold spaces."""
        desk = Desk.make(folder, UPSTREAM, PATCHED)
        python = target(folder / "the env")
        deps = folder / "deps"
        (deps / "tiny/python").mkdir(parents=True)
        (deps / "tiny/tiny.h").write_text("#pragma once\ninline long tiny() { return 1; }\n")
        (deps / "tiny/python/helper.py").write_text("ANSWER = 42\n")
        home = toolkit(folder / "cuda 12.6", "12.6.85")
        os.environ["CUDA_HOME"] = str(home)  # tests have it put back
        return cls(desk, python, folder / "the work", deps)

    def run(self, *words: str) -> Said:
        """Run `build.py` as a person does, for this target, offline."""
        given = ("--python", str(self.python), "--work", str(self.work), "--archs", "8.6")
        return said(*words, *given, "--deps", str(self.deps), root=self.desk.root)

    def does(self, *words: str) -> str:
        """Run what must end well, and give its output."""
        ended = self.run(*words)
        assert ended.code == 0, ended
        return ended.out

    @property
    def wheel(self) -> Path:
        (path,) = (self.work / "dist").glob("*.whl")
        return path


def target(folder: Path) -> Path:
    """A virtual environment with the packages of this one and a torch that is a word."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    packages = sysconfig.get_path("purelib")
    (own / "packages.pth").write_text(f"{packages}\n")
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    for name in ("cmake", "ninja"):  # where a build looks for them first
        tool = Path(shutil.which(name, path=places) or name)
        shutil.copy(tool, python.parent)
    (own / "torch").mkdir()
    for name, text in TORCH.items():
        (own / "torch" / name).write_text(text)
    return python


def said(*words: str, root: Path) -> Said:
    """What `build.py` says and ends with."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = console.run(lambda given: build.main(given, root), words)
    return Said(code, out.getvalue(), err.getvalue())
