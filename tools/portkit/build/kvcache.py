"""How much of a GPU a model takes, and what context its KV cache then holds.

The formulas are upstream's (vllm/v1/kv_cache_interface.py, vllm/v1/core/kv_cache_utils.py and
vllm/v1/worker/gpu_worker.py at v0.14.1): a page holds `block_size` tokens of one layer, a block is
a page of every layer, and the cache gets what `gpu_memory_utilization` grants beyond weights and
the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portkit.errors import BadFile, BadInput

BLOCK = 16  # tokens; upstream's default for CUDA (vllm/platforms/cuda.py)
MLA_BLOCK = 64  # what its MLA backends raise it to
OVERHEAD = 1 << 30  # bytes for the CUDA context and activations; upstream measures it at start
UTILISATION = 0.6  # the launcher's default

_BYTES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "half": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1,
}  # fmt: skip
_WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin", "*.pt")


@dataclass(frozen=True)
class Model:
    """What the arithmetic needs of a model: bytes of weights, and its attention layers' shape.

    `latent` models (MLA) keep one compressed vector per token instead of keys and values.
    """

    name: str
    weights: int
    layers: int
    kv_heads: int
    head_size: int
    dtype: str
    context: int
    latent: bool = False


@dataclass(frozen=True)
class Fit:
    """The result, in bytes and tokens; `blocks` is 0 where weights leave no room."""

    requested: int
    weights: int
    overhead: int
    cache: int
    page: int
    blocks: int
    tokens: int
    per_request: int
    context: int

    @property
    def concurrency(self) -> float:
        """How many requests of the whole context fit at once."""
        return self.tokens / self.per_request if self.per_request else 0.0


def page_size(model: Model, block: int, dtype: str) -> int:
    """Bytes of one page: keys and values of `block` tokens in one layer."""
    both = 1 if model.latent else 2
    return both * block * model.kv_heads * model.head_size * _BYTES[dtype]


def fit(
    model: Model,
    memory: int,
    *,
    utilisation: float = UTILISATION,
    context: int | None = None,
    cache_dtype: str = "auto",
    overhead: int = OVERHEAD,
) -> Fit:
    """Weights and cache of a model on a card with `memory` bytes.

    `context` is the length of one request, the model's own when None.  Raises `BadInput` for
    values that upstream refuses too.
    """
    if not 0 < utilisation <= 1:
        raise BadInput(f"{utilisation} is not a share of the GPU's memory", hint="for example 0.6")
    dtype = model.dtype if cache_dtype == "auto" else cache_dtype
    if dtype not in _BYTES:
        raise BadInput(f"{dtype} is not a type of a KV cache", hint=f"one of {', '.join(_BYTES)}")
    block = MLA_BLOCK if model.latent else BLOCK
    requested = math.ceil(memory * utilisation)
    cache = max(0, requested - model.weights - overhead)
    page = page_size(model, block, dtype)
    blocks = cache // page // model.layers
    length = context or model.context
    per_request = math.ceil(length / block) * block
    return Fit(
        requested, model.weights, overhead, cache, page, blocks, blocks * block, per_request, length
    )


def read_model(folder: Path) -> Model:
    """A model in a folder (or a .gguf file with a config.json beside it).

    Raises `BadInput` when it is not there, `BadFile` when its config.json lacks what is needed.
    """
    if not folder.exists():
        raise BadInput(f"{folder} is not there", hint="name the folder that holds config.json")
    config = (folder if folder.is_dir() else folder.parent) / "config.json"
    try:
        read = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{config} is not there",
            hint="name the folder of a model as the model hub has it; beside a .gguf file put the "
            "config.json of the model it was made of",
        ) from None
    except ValueError as error:
        raise BadFile(str(config), None, f"is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise BadFile(str(config), None, "is not a model's configuration")
    weights = folder.stat().st_size if folder.is_file() else _weights(folder)
    try:
        return _model(folder.name, weights, read)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadFile(
            str(config), None, f"does not say the shape of its attention: {error}"
        ) from None


def _weights(folder: Path) -> int:
    """Bytes of the first kind of weight files there is."""
    for pattern in _WEIGHTS:
        sizes = [path.stat().st_size for path in folder.glob(pattern)]
        if sizes:
            return sum(sizes)
    raise BadInput(f"{folder} holds no weights", hint=f"none of {', '.join(_WEIGHTS)}")


def _model(name: str, weights: int, whole: Mapping[str, Any]) -> Model:
    config = whole.get("text_config") or whole  # of a model that also sees or hears
    heads = int(config["num_attention_heads"])
    dtype = str(
        config.get("torch_dtype") or config.get("dtype") or whole.get("torch_dtype") or "bfloat16"
    )
    latent = config.get("kv_lora_rank") is not None
    if latent:
        kv_heads = 1
        head_size = int(config["kv_lora_rank"]) + int(config["qk_rope_head_dim"])
    else:
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    return Model(
        name,
        weights,
        _attention_layers(config),
        kv_heads,
        head_size,
        dtype.removeprefix("torch."),
        int(config.get("max_position_embeddings") or 2048),
        latent,
    )


def _attention_layers(config: Mapping[str, Any]) -> int:
    """Layers with a KV cache: not those of linear attention or Mamba."""
    kinds = config.get("layer_types") or config.get("layers_block_type")
    if kinds:
        count = sum(1 for kind in kinds if "attention" in kind and "linear" not in kind)
        if count:
            return count
    return int(config["num_hidden_layers"])
