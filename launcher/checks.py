"""What can be known to fail before an engine is built: the model, the port, the GPU's memory."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import json
import math
import os
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadInput, MachineRefuses

GIB = 1 << 30
HUB_NAME = r"\w[\w.-]*(/[\w.-]+)?(:[\w.-]+)?"
BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2, "half": 2, "float": 4}


def check_options(options: argparse.Namespace) -> None:
    """The checks that need no vLLM.

    Raises:
        BadInput: the model cannot be served, or an option is out of range.
    """
    if options.model is not None:
        check_model(options.model, options.load_format)
    if sys.platform == "win32" and options.tensor_parallel_size != 1:
        raise BadInput(
            f"--tensor-parallel-size {options.tensor_parallel_size} is not possible on Windows: "
            "several GPUs talk through NCCL, which has no Windows build",
            "leave the option out and choose one GPU with CUDA_VISIBLE_DEVICES",
        )
    if sys.platform == "win32" and options.uds:
        raise BadInput("--uds needs Unix sockets, which Python lacks on Windows", "use --port")
    if not 0 <= options.port <= 65535:
        raise BadInput(f"--port {options.port} is no port", "choose one from 1 to 65535")
    if options.max_queue < 0:
        raise BadInput("--max-queue must not be negative", "0 means no bound")
    if not 0 <= options.stop_timeout < math.inf:
        raise BadInput("--stop-timeout must be a number of seconds from 0", "the default is 10")


def check_model(model: str, load_format: str = "auto") -> None:
    """Whether a path that names a model can be one; names on the hub are left to vLLM.

    Files of weights are asked for where vLLM looks for them (`--load-format dummy` makes them up).

    Raises:
        BadInput: it cannot.
    """
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        if not reads_gguf():
            raise BadInput(
                f"{model} is a GGUF file, and this vLLM has no loader for those",
                "pip install vllm-gguf-plugin, or serve a release of the model in safetensors",
            )
        return
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "params.json")):
            raise BadInput(
                f"{model} has no config.json, so it is no model",
                "name the folder that holds config.json, the tokenizer and the weights",
            )
        if load_format == "auto" and not weight_bytes(path):
            raise BadInput(
                f"{model} has no weights: no *.safetensors, *.bin or *.pt file",
                "an unfinished download? fetch the model again",
            )
    elif path.is_file():
        raise BadInput(f"{model} is a file, not a model", "name the folder it is in")
    elif not re.fullmatch(HUB_NAME, model) and "://" not in model:
        raise BadInput(f"there is no model folder {model}", "check the path of --model")


def reads_gguf() -> bool:
    """Whether the installed vLLM loads GGUF files: older ones by themselves, newer by a plugin."""
    if importlib.util.find_spec("vllm_gguf_plugin"):
        return True
    package = importlib.util.find_spec("vllm")
    folders = package.submodule_search_locations if package else None
    loader = "model_executor/model_loader/gguf_loader.py"
    return bool(importlib.util.find_spec("gguf")) and any(
        Path(folder, loader).is_file() for folder in folders or ()
    )


def weight_bytes(folder: Path) -> int:
    """Size of a model folder's weights in bytes: those of one format, as a loader takes them."""
    for pattern in ("*.safetensors", "*.bin", "*.pt"):
        files = [f for f in folder.glob(pattern) if not f.name.startswith("training_args")]
        consolidated = [f for f in files if not f.name.startswith("consolidated")]
        if files:
            return sum(f.stat().st_size for f in consolidated or files)
    return 0


def listener(host: str | None, port: int) -> socket.socket:
    """A socket bound to the address; it refuses connections until the server listens.

    Raises:
        BadInput: no such address here.
        MachineRefuses: the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise BadInput(f"--host {host} is no address", "127.0.0.1 is this machine only") from None
    # With the protocol named, asyncio turns off Nagle's algorithm: 40 ms per first token.
    bound = socket.socket(family, kind, protocol)
    if sys.platform == "win32":
        # SO_REUSEADDR would share the port with whoever asks next.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_bind(error, host, port) from None
    return bound


def unix_listener(path: str) -> socket.socket:
    """A Unix socket bound to the path.

    Raises:
        MachineRefuses: something is there already, or the folder is not.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise MachineRefuses(
            f"--uds {path}: {error.strerror}", "remove it, or name another path"
        ) from None
    return bound


def _cannot_bind(error: OSError, host: str | None, port: int) -> Exception:
    number = getattr(error, "winerror", None) or error.errno
    if number in (98, 48, 10048):  # EADDRINUSE of Linux, macOS, Windows
        return MachineRefuses(
            f"port {port} is in use by another program",
            f"stop it, or choose another port: --port {port + 1}",
        )
    if number in (13, 10013):
        return MachineRefuses(
            f"port {port} may not be used by this user", "choose one above 1023: --port 8100"
        )
    return BadInput(f"cannot listen on {host}:{port}: {error.strerror}", "check --host and --port")


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach a server bound to it."""
    if not host:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_to_anybody(options: argparse.Namespace) -> bool:
    """Whether other machines can reach the server and need no key to use it."""
    keys = [key for key in options.api_key or [os.environ.get("VLLM_API_KEY")] if key]
    return not keys and not is_loopback(options.host)


# --- the GPU's memory -----------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """What a model asks of the GPU's memory, from its folder; all in bytes."""

    weights: int
    kv_per_token: int | None
    """Of all layers; None where the architecture does not say."""


def need(folder: Path, dtype: str = "auto") -> Need | None:
    """Read a model folder; None where its files do not tell (quantised on load, for one)."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    text = config.get("text_config") or config
    stored = str(text.get("torch_dtype") or text.get("dtype") or "").removeprefix("torch.")
    weights = weight_bytes(folder)
    runs_as = {"auto": "bfloat16" if stored == "float32" else stored}.get(dtype, dtype)
    if "quantization_config" not in config and stored in BYTES_OF and runs_as in BYTES_OF:
        weights = weights * BYTES_OF[runs_as] // BYTES_OF[stored]
    try:
        heads = int(text.get("num_key_value_heads") or text["num_attention_heads"])
        size = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        per_token = 2 * int(text["num_hidden_layers"]) * heads * int(size) * 2
    except (KeyError, TypeError, ZeroDivisionError):
        per_token = None
    return Need(weights, None if "kv_lora_rank" in text else per_token)


def check_memory(model: str, wanted: Need, total: int, free: int, share: float) -> None:
    """Whether the weights fit, with one block of KV cache, in the share of the GPU.

    `total` and `free` are the GPU's memory in bytes, `share` is --gpu-memory-utilization.

    Raises:
        MachineRefuses: they do not; it says the sum.
    """
    budget = int(total * share)
    sum_ = (
        f"{total / GIB:.1f} GiB of GPU memory x --gpu-memory-utilization {share:g} = "
        f"{budget / GIB:.1f} GiB, less {wanted.weights / GIB:.1f} GiB of weights"
    )
    if wanted.kv_per_token:
        sum_ += f"; each 1000 tokens of KV cache take {wanted.kv_per_token * 1000 / GIB:.2f} GiB"
    if wanted.weights >= budget:
        enough = math.ceil(100 * (wanted.weights + GIB) / total) / 100
        raise MachineRefuses(
            f"the weights of {model} do not fit: {sum_}",
            f"--gpu-memory-utilization {enough:g} has room for them"
            if enough <= 0.95
            else "choose a smaller model, or an AWQ, GPTQ or FP8 release of it",
        )
    if budget > free:
        raise MachineRefuses(
            f"only {free / GIB:.1f} of {total / GIB:.1f} GiB of GPU memory are free, and "
            f"--gpu-memory-utilization {share:g} asks for {budget / GIB:.1f}: {sum_}",
            "close other programs that use the GPU"
            + (
                f", or --gpu-memory-utilization {math.floor(100 * free / total) / 100:g}"
                if free > wanted.weights + GIB
                else ""
            ),
        )


def check_gpu(options: argparse.Namespace) -> None:
    """`check_memory` for the options and the first GPU; nothing where there is none to ask.

    Raises:
        MachineRefuses: the model does not fit.
    """
    import torch

    plain = (
        options.tensor_parallel_size == 1
        and getattr(options, "pipeline_parallel_size", 1) == 1
        and not options.quantization
        and options.load_format == "auto"
        and not getattr(options, "cpu_offload_gb", 0)
    )
    folder = Path(options.model).expanduser()
    if not plain or not folder.is_dir() or not torch.cuda.is_available():
        return
    wanted = need(folder, options.dtype)
    if wanted is not None:
        free, total = torch.cuda.mem_get_info()
        check_memory(options.model, wanted, total, free, options.gpu_memory_utilization)
