from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import roundings
from kernel_tests.references.attention import qk_norm_rope

DTYPES = [torch.float16, torch.bfloat16]
OP = "_C::fused_qk_norm_rope"
HEADS = [(1, 1, 1), (16, 4, 4), (5, 1, 1), (7, 3, 2)]
EPSILON = 1e-6


def rows_of_angles(
    positions: int, size: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Cosines and sines of the usual frequencies, (positions, size)."""
    frequency = 10000.0 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
    angle = torch.arange(positions, device=device, dtype=torch.float64)[:, None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cache", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("neox", [True, False], ids=["neox", "gptj"])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_whole_and_partial(
    bench: Bench, heads: tuple[int, int, int], size: int, neox: bool, cache: torch.dtype,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    for part in (1, 2, 4):
        for tokens in (1, 13, 257):
            check(bench, tokens, heads, size, size // part, neox=neox, cache=cache, dtype=dtype)


def check(
    bench: Bench, tokens: int, heads: tuple[int, int, int], size: int, turned: int, *,
    neox: bool, cache: torch.dtype, dtype: torch.dtype,
) -> None:  # fmt: skip
    qkv = bench.normal(tokens, sum(heads) * size, dtype=dtype)
    weights = [(bench.normal(size, scale=0.2) + 1.0).to(dtype) for _ in range(2)]
    angles = rows_of_angles(4096, turned, cache, bench.device)
    positions = bench.integers(tokens, low=0, high=4096)
    q_weight, k_weight = weights
    expected = qk_norm_rope(
        qkv, heads, size, EPSILON, q_weight, k_weight, angles, positions, neox=neox
    )
    before = qkv.clone()
    bench.call(OP, qkv, *heads, size, EPSILON, *weights, angles, neox, positions)
    queries_and_keys = (heads[0] + heads[1]) * size
    allowed = roundings(dtype, 1.01, 8.0, compute=16.0)
    bench.close(
        "queries and keys", qkv[:, :queries_and_keys], expected[:, :queries_and_keys], allowed
    )
    bench.equal("values", qkv[:, queries_and_keys:], before[:, queries_and_keys:])


def test_nan_stays_in_its_head(bench: Bench) -> None:
    heads, size = (4, 2, 2), 128
    qkv = bench.normal(9, sum(heads) * size, dtype=torch.bfloat16)
    qkv[3, 2 * size + 7] = float("nan")
    weights = [torch.ones(size, dtype=torch.bfloat16, device=bench.device) for _ in range(2)]
    angles = rows_of_angles(64, size, torch.bfloat16, bench.device)
    positions = bench.integers(9, low=0, high=64)
    bench.call(OP, qkv, *heads, size, EPSILON, *weights, angles, True, positions)
    broken = qkv.reshape(9, sum(heads), size).isnan()
    assert broken[3, 2].all()
    assert int(broken.sum()) == size


def test_no_tokens(bench: Bench) -> None:
    heads, size = (4, 2, 2), 128
    qkv = bench.normal(0, sum(heads) * size, dtype=torch.bfloat16)
    weights = [torch.ones(size, dtype=torch.bfloat16, device=bench.device) for _ in range(2)]
    angles = rows_of_angles(64, size, torch.bfloat16, bench.device)
    positions = bench.integers(0, low=0, high=64)
    arguments = (qkv, *heads, size, EPSILON, *weights, angles, True, positions)
    bench.nothing_to_do(OP, *arguments, upstream="launches an empty grid")


def test_speed(bench: Bench) -> None:
    heads, size = (32, 8, 8), 128
    qkv = bench.normal(4096, sum(heads) * size, dtype=torch.bfloat16)
    weights = [torch.ones(size, dtype=torch.bfloat16, device=bench.device) for _ in range(2)]
    angles = rows_of_angles(4096, size, torch.bfloat16, bench.device)
    positions = bench.integers(4096, low=0, high=4096)
    arguments = (qkv, *heads, size, EPSILON, *weights, angles, True, positions)
    bench.speed(OP, *arguments, what="4096 x (32 + 8 + 8) x 128 bf16")
