"""One tiny model in vLLM's in-process engine: what it says, and which kernels were on its path.

Run by `engine`, in a process of its own, with the Python files of one source on the path:

    python -m kernel_tests.engine_child MODEL LIBRARIES TREE FILE

The model is made on the spot with random weights from a fixed seed, so two builds get the same one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_tests import partial

_VOCABULARY = 512
_PROMPTS = (3, 17, 64, 130)  # tokens
_TOKENS = 32
_WIDE = 0.3  # a wide spread of weights: a greedy choice is far from a tie
_SEED = 7
_CACHE = 1 << 28


@dataclass(frozen=True)
class Model:
    """A tiny model, and the op of a patched kernel that it must call, if there is one."""

    kind: str
    quantization: str | None = None
    calls: str = ""


MODELS = {
    "llama": Model("llama"),
    "llama-fp8": Model("llama", "fp8", "_C::dynamic_scaled_fp8_quant"),
    "mamba": Model("mamba", None, "_C::selective_scan_fwd"),
}


def main(name: str, listed: Path, tree: Path, file: Path) -> None:
    """Make the model, let it speak, write what was found to `file`."""
    partial.install(listed, tree)
    with tempfile.TemporaryDirectory(prefix="kernel-tests-model-") as folder:
        _made(MODELS[name], Path(folder))
        found = _said(MODELS[name], folder)
    file.write_text(json.dumps(found), "utf-8")


def _made(model: Model, folder: Path) -> None:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(_SEED)
    common = {
        "vocab_size": _VOCABULARY, "hidden_size": 256, "num_hidden_layers": 2,
        "initializer_range": _WIDE, "tie_word_embeddings": False,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    if model.kind == "mamba":
        config = transformers.MambaConfig(**common, state_size=16, conv_kernel=4, expand=2)
        made = transformers.MambaForCausalLM(config)
    else:
        config = transformers.LlamaConfig(
            **common, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=512,
        )  # fmt: skip
        made = transformers.LlamaForCausalLM(config)
    made.to(torch.bfloat16).save_pretrained(folder)


def _said(model: Model, folder: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415
    from vllm import LLM, SamplingParams  # noqa: PLC0415

    options: dict[str, Any] = {"attention_config": {"backend": "TRITON_ATTN"}}
    llm = LLM(
        folder, skip_tokenizer_init=True, dtype="bfloat16", quantization=model.quantization,
        enforce_eager=True, seed=_SEED, max_model_len=256, max_num_seqs=8,
        gpu_memory_utilization=0.05, kv_cache_memory_bytes=_CACHE, enable_prefix_caching=False,
        **options,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(_SEED)
    prompts = [
        {"prompt_token_ids": torch.randint(_VOCABULARY, (length,), generator=draw).tolist()}
        for length in _PROMPTS
    ]
    greedy = SamplingParams(
        temperature=0.0, max_tokens=_TOKENS, ignore_eos=True, logprobs=1, detokenize=False
    )
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        outputs = [one.outputs[0] for one in llm.generate(prompts, greedy, use_tqdm=False)]
    called = {event.key for event in profile.key_averages()}
    return {
        "tokens": [[*one.token_ids] for one in outputs],
        "logprobs": [_chosen(one) for one in outputs],
        "ops": sorted(key for key in called if key.startswith(("_C", "_moe_C"))),
    }


def _chosen(output: Any) -> list[float]:
    pairs = zip(output.token_ids, output.logprobs, strict=True)
    return [float(found[token].logprob) for token, found in pairs]


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
