"""Run by the Python that vLLM is built for: says what it is and has, as JSON on standard output.

It is a script of its own, because that Python need not be the one of the tools and has none of
their packages.  Arguments: the distributions to name the version of; `--load` imports the compiled
modules of an installed vllm, and torch is always imported, as a build does.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any


def tried(name: str) -> str:
    """How importing a module fails, in one line; empty when it does not."""
    try:
        import_module(name)
    except BaseException as error:  # a broken module may raise anything, even SystemExit
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return ""


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_facts() -> dict[str, Any] | None:
    if util.find_spec("torch") is None:
        return None
    error = tried("torch")
    if error:
        return {"version": version("torch") or "", "error": error}
    import torch  # noqa: PLC0415

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "gpu": torch.cuda.is_available(),
    }


def compiled_modules() -> dict[str, str]:
    """Each compiled module of the installed vllm, with how its import fails."""
    found = util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        return {}
    root = Path(next(iter(found.submodule_search_locations)))
    modules = {}
    for file in sorted(root.rglob("*")):
        if file.suffix in (".pyd", ".so"):
            place = file.relative_to(root.parent)
            name = ".".join((*place.parts[:-1], file.name.split(".", 1)[0]))
            modules[name] = tried(name)
    return modules


def main() -> None:
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    include = sysconfig.get_paths()["include"]
    library = Path(sys.base_prefix, "libs", "python3.lib")
    print(
        json.dumps(
            {
                "version": ".".join(map(str, sys.version_info[:3])),
                "implementation": sys.implementation.name,
                "bits": 64 if sys.maxsize > 2**32 else 32,
                "free-threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                "executable": sys.executable,
                "virtual": sys.prefix != sys.base_prefix,
                "platform": sysconfig.get_platform(),
                "include": include,
                "headers": Path(include, "Python.h").is_file(),
                "libraries": os.name != "nt" or library.is_file(),
                "packages": {name: version(name) for name in names},
                "torch": torch_facts(),
                "vllm": version("vllm"),
                "modules": compiled_modules() if "--load" in sys.argv else {},
            }
        )
    )


main()
