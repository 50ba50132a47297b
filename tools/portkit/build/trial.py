"""A wheel in a clean environment: installed alone, imported from there, module by module.

The environment sees the packages of the target (torch above all), behind its own, so that vllm and
its modules come from the wheel and nothing has to be downloaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from portkit.build.machine import Machine
from portkit.build.target import Target
from portkit.build.words import Check, fail, ok, some, warn
from portkit.errors import Unavailable
from portkit.upstream.tree import long_path

# What a compiled module says on a machine without NVIDIA's driver.
_NO_DRIVER = ("libcuda.so.1", "nvcuda.dll")
_SCRIPT = """
import importlib, json, sys
said = {}
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        place = module.__file__ or ""
        said[name] = "" if place.startswith(sys.prefix) else f"comes from {place}"
    except BaseException as error:
        said[name] = f"{type(error).__name__}: {error}".splitlines()[0]
print("portkit-imports: " + json.dumps(said))
"""
_MARK = "portkit-imports: "


def prepare(machine: Machine, target: Target, folder: Path, wheel: Path) -> Path:
    """A fresh environment in `folder` with the wheel alone; its Python.

    Raises `Unavailable` with what failed.
    """
    if folder.exists():
        shutil.rmtree(long_path(folder))
    python = folder / ("Scripts/python.exe" if machine.windows else "bin/python")
    folders = "import sys; print(*filter(None, sys.path), sep=chr(10))"
    packages = _asked(machine, target.executable, folders)
    _must(
        machine, [target.executable, "-m", "venv", "--without-pip", folder], "making an environment"
    )
    own = Path(_asked(machine, python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    (own / "zz-target.pth").write_text(packages + "\n", encoding="utf-8")
    _must(
        machine,
        [python, "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed",
         "--disable-pip-version-check", wheel],
        "installing the wheel",
    )  # fmt: skip
    return python


def imports(machine: Machine, python: Path, modules: Sequence[str]) -> list[Check]:
    """Whether each module is imported from the environment of `python`."""
    folder = python.parent  # a folder without a vllm of its own
    ran = machine.run([python, "-c", _SCRIPT, *modules], folder=folder)
    lines = ran.out.splitlines() if ran is not None else []
    text = next((line for line in lines if line.startswith(_MARK)), None)
    if text is None:
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        return [fail("import", last, "run the environment's Python to see all of it")]
    said: dict[str, str] = json.loads(text.removeprefix(_MARK))
    driver = {name for name, error in said.items() if any(one in error for one in _NO_DRIVER)}
    broken = {name: error for name, error in said.items() if error and name not in driver}
    checks = [
        fail("import", f"{name}: {error}", "tools/doctor.py knows the common reasons")
        for name, error in broken.items()
    ]
    if driver:
        remedy = "try it on a machine with a GPU"
        checks.append(
            warn("import", f"{some(sorted(driver))} not tried: no NVIDIA driver here", remedy)
        )
    fine = sorted(set(said) - driver - set(broken))
    if fine:
        checks.append(ok("import", some(fine, 8)))
    return checks


def _asked(machine: Machine, python: Path, expression: str) -> str:
    ran = machine.run([python, "-c", expression])
    if ran is None or ran.code != 0:
        raise Unavailable(f"{python} does not run")
    return ran.out.strip()


def _must(machine: Machine, command: Sequence[str | Path], doing: str) -> None:
    ran = machine.run(command)
    if ran is None or ran.code != 0:
        last = (
            ran.out.strip().splitlines()[-1:] if ran is not None else ["the program is not there"]
        )
        raise Unavailable(f"{doing} failed: {''.join(last)}")
