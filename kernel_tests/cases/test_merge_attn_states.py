from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import roundings
from kernel_tests.references.attention import merge_states

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 1, 8), (3, 5, 64), (17, 3, 40), (129, 16, 128), (2048, 32, 128)]


def merge(
    bench: Bench,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    lse: tuple[torch.Tensor, torch.Tensor],
    *,
    with_lse: bool = True,
) -> None:
    """Merge random states of `shape` (tokens, heads, size) with the given log-sum-exps."""
    tokens, heads, _ = shape
    prefix, suffix = bench.normal(*shape, dtype=dtype), bench.normal(*shape, dtype=dtype)
    out = bench.poisoned(*shape, dtype=dtype)
    out_lse = bench.poisoned(heads, tokens, dtype=torch.float32) if with_lse else None
    bench.call("_C::merge_attn_states", out, out_lse, prefix, lse[0], suffix, lse[1])
    expected, expected_lse = merge_states(prefix, lse[0], suffix, lse[1])
    # Weights of float32 exponentials: their relative error grows with the exponent.
    bench.close("output", out, expected, roundings(dtype, 1.01, 8.0, compute=32.0))
    if out_lse is not None:
        bench.close("lse", out_lse, expected_lse, roundings(torch.float32, 4, 16.0, compute=4.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_states(bench: Bench, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    tokens, heads, _ = shape
    lse = bench.normal(heads, tokens, scale=5.0), bench.normal(heads, tokens, scale=5.0)
    merge(bench, shape, dtype, lse)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_tokens(bench: Bench, dtype: torch.dtype) -> None:
    out, lse = bench.normal(0, 4, 64, dtype=dtype), bench.normal(4, 0)
    arguments = (out, lse, out, lse, out, lse)
    bench.nothing_to_do("_C::merge_attn_states", *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nan", ["state", "lse"])
def test_nan_stays_in_its_token(bench: Bench, nan: str, dtype: torch.dtype) -> None:
    prefix, suffix = bench.normal(33, 4, 64, dtype=dtype), bench.normal(33, 4, 64, dtype=dtype)
    lse = bench.normal(4, 33), bench.normal(4, 33)
    if nan == "state":
        prefix[5, 2, 7] = float("nan")
    else:
        lse[1][2, 5] = float("nan")
    out, out_lse = (
        bench.poisoned(33, 4, 64, dtype=dtype),
        bench.poisoned(4, 33, dtype=torch.float32),
    )
    bench.call("_C::merge_attn_states", out, out_lse, prefix, lse[0], suffix, lse[1])
    broken = out.isnan()
    assert int(broken.sum()) == (1 if nan == "state" else 64) and broken[5, 2].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
def test_parts_without_keys(bench: Bench, dtype: torch.dtype, sign: int) -> None:
    """An infinite log-sum-exp of either sign stands for no key; both parts can be so."""
    tokens, heads = 64, 8
    lse = [bench.normal(heads, tokens, scale=3.0) for _ in range(2)]
    infinite = sign * float("inf")
    lse[0][:, 0:16] = infinite
    lse[1][:, 8:24] = infinite
    lse[0][:, 30], lse[1][:, 30] = infinite, -infinite
    merge(bench, (tokens, heads, 64), dtype, (lse[0], lse[1]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_an_output_lse(bench: Bench, dtype: torch.dtype) -> None:
    lse = bench.normal(4, 33), bench.normal(4, 33)
    merge(bench, (33, 4, 64), dtype, lse, with_lse=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_weights(bench: Bench, dtype: torch.dtype) -> None:
    """Log-sum-exps far apart: one part wins, and nothing overflows."""
    tokens, heads = 32, 4
    low, high = torch.full((2, heads, tokens), -1e4, device=bench.device)
    high = high + 2e4
    merge(bench, (tokens, heads, 128), dtype, (low, high))
    merge(bench, (tokens, heads, 128), dtype, (high, low))


def test_speed(bench: Bench) -> None:
    shape, dtype = (8192, 32, 128), torch.bfloat16
    prefix, suffix = bench.normal(*shape, dtype=dtype), bench.normal(*shape, dtype=dtype)
    lse = bench.normal(32, 8192), bench.normal(32, 8192)
    out, out_lse = torch.empty_like(prefix), torch.empty_like(lse[0])
    arguments = (out, out_lse, prefix, lse[0], suffix, lse[1])
    bench.speed("_C::merge_attn_states", *arguments, what="8192 x 32 x 128 bf16")
