"""A vLLM whose compiled modules hold a few kernels: those under test, and what stands beside them.

vLLM's Python files describe whole groups of ops to torch's compiler and ask at import what the
build can do.  So every op of upstream is declared; one that was not built has no kernel, and a call
of it fails.  An op that answers whether something was built says no.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from kernel_tests import bindings

_LIBRARIES = ("_C", "_C_cache_ops", "_moe_C")
_MODULES = ("vllm._C", "vllm._moe_C")
_declared: list[Any] = []  # torch forgets what a library declares when the library goes


def install(listed: Path, tree: Path) -> None:
    """Load the libraries that the JSON file `listed` names, as vLLM's modules, beside `tree`."""
    import torch  # noqa: PLC0415

    for path in json.loads(listed.read_text("utf-8")):
        torch.ops.load_library(path)
    for library in _LIBRARIES:
        fragment = torch.library.Library(library, "FRAGMENT")
        _declared.append(fragment)
        for statement in bindings.read(tree, library).statements:
            if statement.kind != "def" or hasattr(getattr(torch.ops, library), statement.op):
                continue
            # A schema that this torch does not read is of an op that nothing here calls.
            with suppress(RuntimeError):
                fragment.define(statement.schema)
                if statement.schema.endswith("-> bool") and "Tensor" not in statement.schema:
                    fragment.impl(statement.op, _no, "CompositeExplicitAutograd")
    for name in _MODULES:
        sys.modules.setdefault(name, ModuleType(name))


def environment(root: Path, tree: Path, work: Path, tag: str) -> dict[str, str]:
    """What a process needs to import vLLM from `tree`, without an installed one or a network."""
    folders = [tree, metadata(work / "metadata", tag), root, root / "tools"]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "PYTHONPATH": path.rstrip(os.pathsep),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


def metadata(folder: Path, tag: str) -> Path:
    """`folder` with what says that vLLM is installed, by which it tells that it runs on CUDA."""
    version = tag.removeprefix("v")
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
    (info / "METADATA").write_text(text, "utf-8")
    return folder


def _no(*_: object) -> bool:
    return False
