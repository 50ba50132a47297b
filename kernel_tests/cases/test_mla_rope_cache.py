from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, ROUNDING, Steps, Tolerance
from kernel_tests.references.attention import rotated
from kernel_tests.references.quantisation import quantised

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OP = "_C_cache_ops::concat_and_cache_mla_rope_fused"
BLOCK = 16


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["auto", "fp8"])
@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("sizes", [(1, 1, 64, 512), (7, 3, 32, 128), (129, 16, 64, 512)], ids=str)
def test_rope_and_cache(
    bench: Bench, sizes: tuple[int, int, int, int], neox: bool, kind: str, dtype: torch.dtype
) -> None:
    """Queries and keys are turned in place; key and latent go to their slot, padding nowhere."""
    tokens, heads, turned, rank = sizes
    q = bench.normal(tokens, heads, turned, dtype=dtype)
    k = bench.normal(tokens, turned, dtype=dtype)
    latent = bench.normal(tokens, rank, dtype=dtype)
    angles = bench.uniform(256, turned // 2, low=0.0, high=6.28)
    table = torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
    positions = bench.integers(tokens, low=0, high=256)
    slots = bench.permutation(tokens + 40)[:tokens]
    if tokens > 2:
        slots[1] = -1
    blocks = -(-(tokens + 40) // BLOCK)
    stored = dtype if kind == "auto" else torch.uint8
    cache = bench.poisoned(blocks, BLOCK, rank + turned, dtype=stored)
    untouched = cache.clone()
    scale = torch.tensor([0.05], device=bench.device)
    before_k = k.clone()
    cos, sin = table[positions].chunk(2, dim=-1)
    expected_q = rotated(q, cos.unsqueeze(1), sin.unsqueeze(1), neox=neox)
    expected_k = rotated(k, cos, sin, neox=neox)
    largest = float(torch.cat((q.reshape(-1), k.reshape(-1))).abs().max())
    bench.call(OP, positions, q, k, latent, table, neox, slots, cache, kind, scale)

    # Two products and their difference, each rounded to the type.
    allowed = Tolerance(ROUNDING[dtype], 3 * ROUNDING[dtype] * largest)
    present = slots >= 0
    bench.close("queries", q, expected_q, allowed)
    bench.close("keys", k[present], expected_k[present], allowed)
    bench.equal("a padded key", k[~present], before_k[~present])
    flat, kept = cache.reshape(-1, rank + turned), untouched.reshape(-1, rank + turned)
    entry = torch.cat((latent, k), dim=-1)[present]
    found = flat[slots[present]]
    if kind == "auto":
        bench.equal("entries", found, entry)
    else:
        bench.stepped("entries", found.view(E4M3), quantised(entry, scale, E4M3), Steps(1, 0.02))
    free = torch.ones(flat.shape[0], dtype=torch.bool, device=bench.device)
    free[slots[present]] = False
    bench.equal("free slots", flat[free], kept[free])


@pytest.mark.parametrize("kind", ["auto", "fp8"])
def test_nan_and_infinity(bench: Bench, kind: str) -> None:
    """In a key or a latent they reach that token's entry alone; fp8 makes of them what it does."""
    q, k = bench.normal(9, 2, 64, dtype=torch.bfloat16), bench.normal(9, 64, dtype=torch.bfloat16)
    latent = bench.normal(9, 128, dtype=torch.bfloat16)
    k[2, 5], latent[4, 7], latent[5, 0] = float("nan"), float("nan"), float("inf")
    table = bench.uniform(256, 64, low=-1.0, high=1.0, dtype=torch.bfloat16)
    positions, slots = bench.integers(9, low=0, high=256), bench.permutation(BLOCK)[:9]
    stored = torch.bfloat16 if kind == "auto" else torch.uint8
    cache = torch.zeros(1, BLOCK, 192, dtype=stored, device=bench.device)
    scale = torch.tensor([0.05], device=bench.device)
    bench.call(OP, positions, q, k, latent, table, True, slots, cache, kind, scale)
    if kind == "auto":
        finite = torch.isfinite(cache[0]).all(-1)
        assert sorted((~finite).nonzero().flatten().tolist()) == sorted(slots[[2, 4, 5]].tolist())


@pytest.mark.parametrize("kind", ["auto", "fp8"])
def test_no_tokens(bench: Bench, kind: str) -> None:
    q, k = bench.normal(0, 2, 64), bench.normal(0, 64)
    latent, table = bench.normal(0, 128), bench.normal(16, 64)
    slots = torch.empty(0, dtype=torch.int64, device=bench.device)
    stored = torch.float32 if kind == "auto" else torch.uint8
    cache = torch.zeros(1, BLOCK, 192, dtype=stored, device=bench.device)
    scale = torch.ones(1, device=bench.device)
    arguments = (slots, q, k, latent, table, True, slots, cache, kind, scale)
    bench.nothing_to_do(OP, *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("kind", ["auto", "fp8"])
def test_speed(bench: Bench, kind: str) -> None:
    tokens, heads, turned, rank = 8192, 16, 64, 512
    dtype = torch.bfloat16
    q, k = (
        bench.normal(tokens, heads, turned, dtype=dtype),
        bench.normal(tokens, turned, dtype=dtype),
    )
    latent, table = bench.normal(tokens, rank, dtype=dtype), bench.normal(4096, turned, dtype=dtype)
    positions, slots = bench.integers(tokens, low=0, high=4096), bench.permutation(tokens)
    stored = dtype if kind == "auto" else torch.uint8
    cache = torch.zeros(tokens // BLOCK, BLOCK, rank + turned, dtype=stored, device=bench.device)
    scale = torch.ones(1, device=bench.device)
    arguments = (positions, q, k, latent, table, True, slots, cache, kind, scale)
    bench.speed(OP, *arguments, what=f"8192 tokens, {kind} cache")
