"""Runs the launcher with the patched files of vLLM told that this is Windows.

    python -m serving.windows ARGUMENTS OF THE LAUNCHER

In the six files of the runtime patches `sys.platform` is `win32`, modules that Windows lacks
cannot be imported and `msvcrt` is a stand-in; the rest of vLLM sees the system it runs on.
There is no uvloop, so the server runs on asyncio's loop.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

from launcher.__main__ import main

PATCHED = frozenset(
    {
        "vllm.distributed.parallel_state",
        "vllm.entrypoints.openai.api_server",
        "vllm.model_executor.layers.fused_moe.routed_experts_capturer",
        "vllm.utils.network_utils",
        "vllm.utils.system_utils",
        "vllm.v1.engine.core_client",
    }
)
NOT_ON_WINDOWS = frozenset({"fcntl", "resource", "uvloop"})
executed: set[str] = set()


class Windows(types.ModuleType):
    """`sys` with another platform."""

    platform = "win32"

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


windows = Windows("sys")


def import_as_on_windows(name: str, *arguments: Any, **named: Any) -> Any:
    """The import statement of a patched file."""
    root = name.partition(".")[0]
    if name == "sys":
        return windows
    if root == "msvcrt":
        return types.SimpleNamespace(LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, locking=print)
    if root in NOT_ON_WINDOWS and sys.modules.get(root) is None:
        raise ModuleNotFoundError(f"No module named {root!r}", name=root)
    return builtins.__import__(name, *arguments, **named)


class Loader(importlib.machinery.SourceFileLoader):
    """Executes a module whose imports are those of Windows."""

    def exec_module(self, module: types.ModuleType) -> None:
        executed.add(module.__name__)
        scope = {**vars(builtins), "__import__": import_as_on_windows}
        module.__dict__["__builtins__"] = scope
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in PATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = Loader(name, spec.origin)
        return spec


if __name__ == "__main__":
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    sys.meta_path.insert(0, Finder())
    code = main(sys.argv[1:])
    print("executed as on Windows:", *sorted(executed), flush=True)
    sys.exit(code)
