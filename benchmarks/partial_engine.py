"""An environment whose `vllm` is the patched source, with the kernels that a Llama needs.

    python benchmarks/partial_engine.py FOLDER --trees DIR --cache DIR

For a machine with a GPU that has no wheel of vLLM and not the hours to build one:
`benchmarks/launcher.py --python FOLDER/bin/python` then serves from it.  Run by a Python with
torch for that GPU and all that vLLM imports (`docs/kernel-tests.md` has the list, and how DIR is
made); what that Python finds, the environment finds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from kernel_tests import partial, upstream_tests
from kernel_tests import run as kernel_run
from kernel_tests.build import Builder, patched_side
from kernel_tests.toolchain import with_torch
from kernel_tests.trees import Trees
from portkit.errors import PortError
from portkit.kernels import manifest as kernelmanifest

ROOT = Path(__file__).resolve().parents[1]
_LOAD = """\
from pathlib import Path

from kernel_tests import partial

partial.install(Path({listed!r}), Path({tree!r}))
"""


def made(folder: Path, trees: Trees, listed: Path) -> Path:
    """Make the environment at `folder` with the libraries that `listed` names; its Python."""
    venv.create(folder, clear=True, symlinks=sys.platform != "win32")
    python: Path = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    packages = Path(said.stdout.strip())
    (packages / "found_by_its_maker.pth").write_text("\n".join(_paths()) + "\n", "utf-8")
    _lay_vllm(packages, trees, listed)
    return python


def _paths() -> list[str]:
    """Where this Python finds packages."""
    return [path for path in dict.fromkeys(sys.path) if Path(path).is_dir()]


def _lay_vllm(packages: Path, trees: Trees, listed: Path) -> None:
    """vLLM as a wheel would lay it, its compiled module a file that loads the libraries."""
    version = trees.tag.removeprefix("v")
    package = packages / "vllm"
    shutil.copytree(trees.patched / "vllm", package)
    load = _LOAD.format(listed=str(listed), tree=str(trees.patched))
    (package / "_C.py").write_text(load, "utf-8")
    numbers = tuple(map(int, version.split(".")))
    said = f"__version__ = version = {version!r}\n__version_tuple__ = version_tuple = {numbers}\n"
    (package / "_version.py").write_text(said, "utf-8")
    partial.metadata(packages, trees.tag)


def prepared(given: argparse.Namespace) -> Path:
    """Build what is missing and make the environment; raises `PortError`."""
    manifest = kernelmanifest.load(ROOT)
    archs, cache = kernel_run.archs_of(given.archs), kernel_run.cache_of(given.cache)
    trees = kernel_run.source(ROOT, manifest, archs, given.trees, cache)
    builder = Builder(with_torch(), archs, cache)
    side = patched_side(trees.patched)
    libraries = upstream_tests.libraries(builder, side, manifest, ("fp8_quant",))
    listed = upstream_tests.listed(libraries, given.folder.resolve().with_suffix(".json"))
    return made(given.folder.resolve(), trees, listed)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trees", type=Path, help="of `python -m kernel_tests --prepare DIR`")
    parser.add_argument("--cache", type=Path, help="for what is built")
    parser.add_argument("--archs", default="native")
    given = parser.parse_args()
    try:
        print(prepared(given))
    except PortError as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
