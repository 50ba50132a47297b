"""A configure of the real project without torch and without its third-party sources.

Which units a build has is CMake's to say, and CMake only needs to find things, not to link them.
So torch is here its own CMake files (from the wheel of its CUDA build, a few hundred kB) beside
empty libraries, and a third-party project an empty source for each file that upstream names.  The
units of vllm-flash-attn are missing, since its own CMake files are not there.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

from portkit.build import cmakereply, running, setupscript
from portkit.build.cmakereply import Reply
from portkit.build.context import stage_failure
from portkit.build.failure import failures
from portkit.build.machine import Machine
from portkit.build.pinned import Pinned
from portkit.build.plan import Stage
from portkit.build.thirdparty import Dependency
from portkit.build.toolchain import release
from portkit.cuda import torchheaders, wheelheaders
from portkit.cuda.toolkits import Toolkit
from portkit.errors import Unavailable
from portkit.model import Event, Events, silent

_TORCH_LIBRARIES = ("lib/libtorch.so", "lib/libtorch_python.so")
_IMPORTED = re.compile(r"\$\{_IMPORT_PREFIX\}/([^\s\";]+\.(?:so|a))")
# Libraries of the toolkit that torch's CMake files ask for; one may be installed without them.
_CUDA_LIBRARIES = (
    "cublas", "cublasLt", "cufft", "curand", "cusparse", "cusolver", "nvrtc", "cuda_driver",
    "cupti", "nvJitLink",
)  # fmt: skip
_NAMED = re.compile(r"\$\{(\w+)_SOURCE_DIR\}/([^\s\"$]+\.(?:cu|cpp))")
_CUTLASS = "4.2.0.0"  # the Python package of CUTLASS, whose generator Machete needs
_CUTLASS_CMAKE = """\
set(CUTLASS_DIR ${CMAKE_CURRENT_LIST_DIR} CACHE INTERNAL "")
set(CUTLASS_INCLUDE_DIR ${CMAKE_CURRENT_LIST_DIR}/include CACHE PATH "")
set(CUTLASS_TOOLS_UTIL_INCLUDE_DIR ${CMAKE_CURRENT_LIST_DIR}/tools/util/include CACHE INTERNAL "")
"""


def configure(
    machine: Machine,
    pinned: Pinned,
    source: Path,
    home: Path,
    *,
    toolkit: Toolkit,
    archs: tuple[str, ...],
    events: Events = silent,
) -> Reply:
    """What CMake says of the patched source in `source`; stand-ins and logs go to `home`.

    Raises `Unavailable` when the index or the toolkit does not serve, `BuildFailed` when CMake
    fails.
    """
    torch = _torch(pinned, home / "torch", toolkit, events)
    settings = {
        one.variable: _project(one, pinned, home / "projects", events).as_posix()
        for one in pinned.dependencies
    }
    scripts = Path(sys.executable).parent
    environ = {
        **machine.environ,
        **settings,
        "PATH": f"{toolkit.nvcc.parent}:{scripts}:{machine.environ.get('PATH', '')}",
        "PYTHONPATH": str(torch),
        "CUDA_HOME": str(toolkit.root),
        "CUDA_PATH": str(toolkit.root),
        "VLLM_TARGET_DEVICE": "cuda",
        "TORCH_CUDA_ARCH_LIST": " ".join(archs),
        "VLLM_VERSION_OVERRIDE": pinned.version,
        "FETCHCONTENT_BASE_DIR": (home / "fetched").as_posix(),
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_ARGS": _libraries(home / "libraries"),
    }
    steps = setupscript.capture(machine, Path(sys.executable), source, environ)
    if steps.folder.exists():
        shutil.rmtree(steps.folder)
    cmakereply.ask(steps.folder)
    path = home / "configure.log"
    events(Event("configuring"))
    with path.open("wb") as log:
        code, _ = running.run(steps.configure, environ, log, "configuring", events)
    if code != 0:
        text = path.read_text(encoding="utf-8", errors="replace")
        raise stage_failure(Stage.CONFIGURE, failures(text), path, code)
    return cmakereply.read(steps.folder)


def _torch(pinned: Pinned, site: Path, toolkit: Toolkit, events: Events) -> Path:
    """A folder for PYTHONPATH with a torch that says what it is and has its CMake files."""
    real = torchheaders.torch_cmake(pinned.torch, events=events).root / "torch"
    torch = site / "torch"
    shutil.rmtree(torch, ignore_errors=True)
    shutil.copytree(real / "share", torch / "share")
    (torch / "utils").mkdir()
    for folder in ("include", "include/torch/csrc/api/include"):
        (torch / folder).mkdir(parents=True, exist_ok=True)
    told = "".join(file.read_text(encoding="utf-8") for file in torch.rglob("*.cmake"))
    for name in (*_TORCH_LIBRARIES, *_IMPORTED.findall(told)):
        (torch / name).parent.mkdir(parents=True, exist_ok=True)
        (torch / name).touch()
    major, minor = release(toolkit.version)
    flags = _assigned(real / "utils/cpp_extension.py", "COMMON_NVCC_FLAGS")
    written = {
        "__init__.py": f"__version__ = {pinned.torch!r}\nfrom . import utils, version\n",
        "version.py": f"cuda = '{major}.{minor}'\nhip = None\n",
        "utils/__init__.py": "import os\ncmake_prefix_path = os.path.join(os.path.dirname("
        "os.path.dirname(__file__)), 'share', 'cmake')\n",
        "utils/cpp_extension.py": "import os\nCUDA_HOME = os.environ['CUDA_HOME']\n"
        f"ROCM_HOME = None\nCOMMON_NVCC_FLAGS = {flags!r}\n",
    }
    for name, text in written.items():
        (torch / name).write_text(text, encoding="utf-8")
    return site


def _assigned(path: Path, name: str) -> object:
    """The literal that a Python file assigns to a name."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [name]:
            return ast.literal_eval(node.value)
    raise Unavailable(f"{path.name} of torch assigns no {name}")


def _libraries(folder: Path) -> str:
    """CMake arguments with an empty library for each of the toolkit's that is linked."""
    folder.mkdir(parents=True, exist_ok=True)
    words = []
    for name in _CUDA_LIBRARIES:
        file = folder / f"lib{name}.so"
        file.touch()
        words.append(f"-DCUDA_{name}_LIBRARY={file.as_posix()}")
    return " ".join(words)


def _project(dependency: Dependency, pinned: Pinned, home: Path, events: Events) -> Path:
    """A folder with an empty file for each source that upstream's CMake files name in it."""
    root = home / dependency.name
    folder = root / dependency.inside
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stand-in").touch()
    for path in pinned.paths:
        if path.endswith(".cmake"):
            for name, file in _NAMED.findall(pinned.read(path).decode("utf-8", "replace")):
                if name == dependency.name:
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    (root / file).touch()
    if dependency.name == "cutlass":
        _cutlass(root, events)
    return folder


def _cutlass(root: Path, events: Events) -> None:
    """CUTLASS' headers, which other projects look for, and the generator that Machete imports."""
    wanted = wheelheaders.Wanted(
        "nvidia-cutlass", _CUTLASS, ("cutlass_library/",), lambda _: True, part="-library"
    )
    package = wheelheaders.obtain(wanted, events=events).root / "cutlass_library"
    shutil.copytree(package / "source/include", root / "include", dirs_exist_ok=True)
    library = root / "python/cutlass_library"
    library.mkdir(parents=True, exist_ok=True)
    for file in package.glob("*.py"):
        shutil.copyfile(file, library / file.name)
    (root / "CMakeLists.txt").write_text(_CUTLASS_CMAKE, encoding="utf-8")
