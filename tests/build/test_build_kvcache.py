"""The KV-cache arithmetic: upstream's formulas, and what a person reads of them."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.build import health, kvcache
from portkit.build.kvcache import Model
from portkit.build.words import Status
from portkit.errors import BadFile, BadInput

GIB = 1 << 30
QWEN = {
    "num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 1536,
    "num_hidden_layers": 28, "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip


def folder(tmp_path: Path, config: object, size: int = 1 << 20) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    return tmp_path


def test_a_small_model_on_a_card_of_24_gib(tmp_path: Path) -> None:
    model = kvcache.read_model(folder(tmp_path, QWEN, int(1.8 * GIB)))
    fit = kvcache.fit(model, 24 * GIB, utilisation=0.6)
    assert fit.page == 2 * 16 * 2 * 128 * 2
    assert fit.requested == math.ceil(24 * GIB * 0.6)  # about 14 GB in all
    assert fit.blocks == fit.cache // fit.page // 28
    assert fit.tokens == fit.blocks * 16
    said = health.model_check(model, fit, "an RTX 3090", None)
    assert said.status is Status.OK
    assert "14.4 GiB asked for" in said.said and f"= {fit.tokens} tokens" in said.said


def test_half_the_bytes_hold_twice_the_tokens(tmp_path: Path) -> None:
    model = kvcache.read_model(folder(tmp_path, QWEN))
    whole = kvcache.fit(model, 8 * GIB)
    half = kvcache.fit(model, 8 * GIB, cache_dtype="fp8")
    assert half.page * 2 == whole.page
    assert half.blocks in (2 * whole.blocks, 2 * whole.blocks + 1)


def test_what_does_not_fit_says_how_it_would(tmp_path: Path) -> None:
    model = kvcache.read_model(folder(tmp_path, QWEN, 3 * GIB))
    none = health.model_check(model, kvcache.fit(model, 6 * GIB), "a card", None)
    assert none.status is Status.FAIL and "no cache" in none.said
    fit = kvcache.fit(model, 8 * GIB)
    short = health.model_check(model, fit, "a card", None)
    assert short.status is Status.FAIL
    assert f"--max-model-len {fit.tokens}" in short.remedy
    fine = kvcache.fit(model, 8 * GIB, context=fit.tokens)
    assert health.model_check(model, fine, "a card", None).status is Status.OK
    busy = health.model_check(model, fine, "a card", GIB)
    assert busy.status is Status.FAIL and "1.0 GiB of the card are free" in busy.said


def test_shapes_of_other_models(tmp_path: Path) -> None:
    latent = {**QWEN, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    model = kvcache.read_model(folder(tmp_path, latent))
    assert kvcache.page_size(model, 64, "bfloat16") == 64 * 576 * 2
    mixed = {**QWEN, "layer_types": ["linear_attention", "full_attention"] * 14}
    assert kvcache.read_model(folder(tmp_path, mixed)).layers == 14
    seeing = {"text_config": {**QWEN, "head_dim": 256}, "torch_dtype": "float16"}
    assert kvcache.read_model(folder(tmp_path, seeing)).head_size == 256


def test_a_gguf_file_has_the_configuration_beside_it(tmp_path: Path) -> None:
    folder(tmp_path, QWEN)
    file = tmp_path / "qwen-q4.gguf"
    file.write_bytes(b"GGUF" + bytes(996))
    assert kvcache.read_model(file).weights == 1000


def test_bad_models_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there"):
        kvcache.read_model(tmp_path / "none")
    with pytest.raises(BadInput, match=r"config\.json is not there"):
        kvcache.read_model(tmp_path)
    with pytest.raises(BadFile, match="shape of its attention"):
        kvcache.read_model(folder(tmp_path, {"hidden_size": 4}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadFile, match="is not JSON"):
        kvcache.read_model(tmp_path)
    with pytest.raises(BadInput, match="is not a share"):
        kvcache.fit(Model("m", 1, 1, 1, 1, "float16", 1), GIB, utilisation=1.2)


@pytest.mark.upstream
def test_upstreams_own_formulas_are_these(pristine_tree: Path) -> None:
    """The lines that are copied in arithmetic, as upstream's source has them."""
    spec = (pristine_tree / "vllm/v1/kv_cache_interface.py").read_text()
    utils = (pristine_tree / "vllm/v1/core/kv_cache_utils.py").read_text()
    formula = next(
        ast.unparse(node.value)
        for cls in ast.parse(spec).body
        if isinstance(cls, ast.ClassDef) and cls.name == "AttentionSpec"
        for method in cls.body
        if isinstance(method, ast.FunctionDef) and method.name == "real_page_size_bytes"
        for node in method.body
        if isinstance(node, ast.Return) and node.value is not None
    )
    assert formula == (
        "2 * self.block_size * self.num_kv_heads * self.head_size * get_dtype_size(self.dtype)"
    )
    assert "int(available_memory // page_size // num_layers)" in utils
    assert "cache_config.block_size = 16" in (pristine_tree / "vllm/platforms/cuda.py").read_text()


models = st.builds(
    Model, st.just("m"), st.integers(0, 40 * GIB), st.integers(1, 80), st.integers(1, 16),
    st.sampled_from([64, 80, 128]), st.just("bfloat16"), st.just(4096),
)  # fmt: skip


@given(models, st.integers(4 * GIB, 96 * GIB), st.floats(0.1, 1.0))
def test_the_cache_never_takes_more_than_is_granted(
    model: Model, memory: int, share: float
) -> None:
    fit = kvcache.fit(model, memory, utilisation=share)
    used = fit.blocks * fit.page * model.layers
    assert used <= fit.cache
    assert fit.cache - used < fit.page * model.layers
    if fit.blocks:
        assert fit.weights + fit.overhead + used <= fit.requested
