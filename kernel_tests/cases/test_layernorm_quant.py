from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, Steps, roundings
from kernel_tests.references.quantisation import quantised, rms_normed

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 8), (3, 20), (7, 33), (83, 768), (255, 1026), (300, 5120), (2048, 8192)]
EPSILON = 1e-6
# float32 sums on both sides of a rounding to `dtype` move some elements by one of its steps,
# of which a part lies beside a tie of the coarser format.
ALLOWED = Steps(1, 0.01)


def inputs(
    bench: Bench, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = bench.normal(*shape, dtype=dtype, scale=2.0)
    weight = (bench.normal(shape[1], scale=0.3) + 1.0).to(dtype)
    return x, weight, bench.uniform(1, low=0.003, high=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight, scale = inputs(bench, shape, dtype)
    out = bench.poisoned(*shape, dtype=E4M3)
    bench.call("_C::rms_norm_static_fp8_quant", out, x, weight, scale, EPSILON)
    expected = quantised(rms_normed(x, weight, EPSILON, dtype), scale, E4M3)
    bench.stepped("quantised", out, expected, ALLOWED)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fused_add_rms_norm(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight, scale = inputs(bench, shape, dtype)
    residual = bench.normal(*shape, dtype=dtype)
    total = x.to(torch.float64) + residual.to(torch.float64)
    out = bench.poisoned(*shape, dtype=E4M3)
    bench.call("_C::fused_add_rms_norm_static_fp8_quant", out, x, residual, weight, scale, EPSILON)
    bench.close("residual", residual, total, roundings(dtype, 1.0, 8.0))
    # The sum is rounded to the type before it is normed.
    expected = quantised(rms_normed(residual, weight, EPSILON, dtype), scale, E4M3)
    bench.stepped("quantised", out, expected, ALLOWED)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_a_wider_tensor(bench: Bench, dtype: torch.dtype) -> None:
    wide, weight, scale = inputs(bench, (37, 1024), dtype)
    x, weight = wide[:, 256:768], weight[256:768].clone()
    out = bench.poisoned(37, 512, dtype=E4M3)
    bench.call("_C::rms_norm_static_fp8_quant", out, x, weight, scale, EPSILON)
    expected = quantised(rms_normed(x, weight, EPSILON, dtype), scale, E4M3)
    bench.stepped("quantised", out, expected, ALLOWED)


@pytest.mark.parametrize("op", ["rms_norm", "fused_add_rms_norm"])
def test_no_rows(bench: Bench, op: str) -> None:
    x, weight, scale = inputs(bench, (0, 256), torch.bfloat16)
    out = bench.poisoned(0, 256, dtype=E4M3)
    rest = (x.clone(),) if op == "fused_add_rms_norm" else ()
    arguments = (out, x, *rest, weight, scale, EPSILON)
    bench.nothing_to_do(f"_C::{op}_static_fp8_quant", *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("op", ["plain", "fused-add"])
def test_saturation_and_nan(bench: Bench, op: str) -> None:
    """A scale too small saturates outliers; a row with NaN becomes what upstream makes of it."""
    x, weight, _ = inputs(bench, (64, 2048), torch.bfloat16)
    x[::5, 3] = 300.0
    scale = torch.full((1,), 0.01, device=bench.device)
    out = bench.poisoned(64, 2048, dtype=E4M3)
    bench.call("_C::rms_norm_static_fp8_quant", out, x, weight, scale, EPSILON)
    expected = quantised(rms_normed(x, weight, EPSILON, x.dtype), scale, E4M3)
    bench.stepped("quantised", out, expected, ALLOWED)
    assert (expected.to(torch.float32).abs() == 448.0).any()
    x[1, 7], x[2, 7] = float("nan"), float("inf")
    if op == "plain":
        bench.call("_C::rms_norm_static_fp8_quant", out, x, weight, scale, EPSILON)
    else:
        residual = bench.normal(64, 2048, dtype=x.dtype)
        arguments = (out, x, residual, weight, scale, EPSILON)
        bench.call("_C::fused_add_rms_norm_static_fp8_quant", *arguments)


@pytest.mark.parametrize("op", ["plain", "fused-add"])
def test_speed(bench: Bench, op: str) -> None:
    x, weight, scale = inputs(bench, (8192, 8192), torch.bfloat16)
    out = torch.empty(x.shape, dtype=E4M3, device=bench.device)
    what = "8192 x 8192 bf16"
    if op == "plain":
        bench.speed("_C::rms_norm_static_fp8_quant", out, x, weight, scale, EPSILON, what=what)
    else:
        arguments = (out, x, torch.zeros_like(x), weight, scale, EPSILON)
        bench.speed("_C::fused_add_rms_norm_static_fp8_quant", *arguments, what=what)
