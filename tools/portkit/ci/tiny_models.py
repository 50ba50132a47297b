"""Tiny models with random weights and real tokenizers, made on the spot; run by an engine's Python.

    python tiny_models.py FOLDER [NAME...]

makes `FOLDER/chat` (Qwen2: two layers, hidden size 128, byte-level BPE, chat template with tools)
and `FOLDER/embedding` (BERT), `FOLDER/lora` (a rank 8 adapter of the chat model), or those named;
`wide` and `deep` are chat models with 24 and 75 million weights, for measurements, and `large` is
Llama 3.1 8B without its weights: load it with `--load-format dummy`.  The seed is fixed, so every
run makes the same weights and greedy answers can be compared.
"""

from __future__ import annotations

import itertools
import json
import string
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch
import transformers

TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% elif message.content %}\
{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}\
{% for call in message.tool_calls or [] %}<tool_call>
{{ call | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. Hello world, how are you today?",
    "Numbers 0 1 2 3 4 5 6 7 8 9 10 100 1000, punctuation: , . ; : ! ? ( ) [ ] { } \" '",
    '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}',
    "naïve café, Zürich, Ελλάδα, 東京, 🙂 and the rest of the alphabet abcdefghijklmnopqrstuvwxyz",
]


def tokenizer(folder: Path, size: int = 512) -> Any:
    """A byte-level BPE tokenizer of `size` entries, saved to `folder`.

    Those beyond 512 are words of four letters that it reads but does not write.
    """
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 - len(WORDS),
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    if size > 512:
        bpe.model = _more(bpe, size - len(WORDS))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=2048,
    )
    fast.add_tokens(WORDS)
    fast.save_pretrained(folder)
    return fast


def _more(bpe: Any, size: int) -> Any:
    """The model of `bpe` with words in its vocabulary that no merge makes."""
    model = json.loads(bpe.to_str())["model"]
    known = model["vocab"]
    words = (
        "\u0120" + "".join(four) for four in itertools.product(string.ascii_lowercase, repeat=4)
    )
    for word in itertools.islice((w for w in words if w not in known), size - len(known)):
        known[word] = len(known)
    return tokenizers.models.BPE(known, [tuple(merge) for merge in model["merges"]])


def chat(folder: Path) -> None:
    _qwen2(
        folder,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,  # wide: a greedy choice is far from a tie
    )


def wide(folder: Path) -> None:
    """24 million weights: a step is mostly arithmetic, where one of `chat` is mostly Python."""
    _qwen2(
        folder,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.02,
    )


def deep(folder: Path) -> None:
    """75 million weights: on a CPU a step takes as long as one of a real model on a GPU."""
    _qwen2(
        folder,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        initializer_range=0.02,
    )


def large(folder: Path) -> None:
    """The sizes of Llama 3.1 8B, 8.0 billion weights, of which none is made."""
    vocabulary = 128256
    entries = tokenizer(folder, vocabulary)
    transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        vocab_size=vocabulary,
        bos_token_id=None,
        eos_token_id=entries.eos_token_id,
        torch_dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)


def _qwen2(folder: Path, **sizes: Any) -> None:
    entries = tokenizer(folder)
    torch.manual_seed(7)
    config = transformers.Qwen2Config(
        **sizes,
        vocab_size=512,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=entries.eos_token_id,
        torch_dtype="float32",
    )
    transformers.Qwen2ForCausalLM(config).float().save_pretrained(folder)


def embedding(folder: Path) -> None:
    tokenizer(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    transformers.BertModel(config).save_pretrained(folder)


def lora(folder: Path) -> None:
    """An adapter of `chat`, wide enough to change its greedy answers."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(8)
    weights = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(8, 128)
        weights[f"{name}.lora_B.weight"] = torch.randn(128, 8)
    safetensors.torch.save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names or ("chat", "embedding", "lora"):
        globals()[name](Path(folder) / name)
