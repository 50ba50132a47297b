from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, Steps, Tolerance, roundings
from kernel_tests.references.quantisation import dynamic_scale, quantised, rms_normed

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OUTPUTS = [torch.int8, E4M3]
SHAPES = [(1, 4), (3, 20), (7, 33), (83, 770), (300, 5120), (1024, 8192)]
BLOCKED = [(1, 64), (3, 128), (7, 1024), (300, 5120), (513, 4096)]
EPSILON = 1e-6


def steps(output: torch.dtype, dtype: torch.dtype) -> Steps:
    """What float32 sums may move.

    int8 has even steps, so that a step of bf16 is half of one near its limit; the norm and its
    product with the weight are both rounded to it, and either rounding can go the other way.
    """
    if dtype == torch.bfloat16:
        return Steps(2 if output == torch.int8 else 1, 0.05)
    return Steps(1, 0.01)


def scale_tolerance(dtype: torch.dtype) -> Tolerance:
    """The largest value is rounded to the type twice before the scale is made of it."""
    return Tolerance(8 * 2.0**-24 + (0 if dtype == torch.float32 else roundings(dtype, 4).relative))


def inputs(
    bench: Bench, shape: tuple[int, int], dtype: torch.dtype, *, residual: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    x = bench.normal(*shape, dtype=dtype)
    weight = (bench.normal(shape[1], scale=0.3) + 1.0).to(dtype)
    return x, weight, bench.normal(*shape, dtype=dtype) if residual else None


def summed(x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    return x.to(torch.float64) + (0.0 if residual is None else residual.to(torch.float64))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_per_token(
    bench: Bench, shape: tuple[int, int], residual: bool, output: torch.dtype, dtype: torch.dtype
) -> None:
    x, weight, rest = inputs(bench, shape, dtype, residual=residual)
    total = summed(x, rest)
    out = bench.poisoned(*shape, dtype=output)
    scale = bench.poisoned(shape[0], 1, dtype=torch.float32)
    op = "_C::rms_norm_dynamic_per_token_quant"
    bench.call(op, out, x, weight, scale, EPSILON, None, rest)
    normed = rms_normed(total, weight, EPSILON, dtype)
    bench.close("scale", scale, dynamic_scale(normed, output), scale_tolerance(dtype))
    bench.stepped("quantised", out, quantised(normed, scale, output), steps(output, dtype))
    if rest is not None:
        bench.close("residual", rest, total, roundings(dtype, 1.0, 8.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_per_token_with_a_limit(bench: Bench, dtype: torch.dtype) -> None:
    x, weight, _ = inputs(bench, (65, 1024), dtype, residual=False)
    limit = torch.tensor([1.5], device=bench.device)
    out = bench.poisoned(65, 1024, dtype=E4M3)
    scale = bench.poisoned(65, 1, dtype=torch.float32)
    op = "_C::rms_norm_dynamic_per_token_quant"
    bench.call(op, out, x, weight, scale, EPSILON, limit, None)
    normed = rms_normed(x.to(torch.float64), weight, EPSILON, dtype)
    bench.close("scale", scale, dynamic_scale(normed, E4M3, limit=limit), scale_tolerance(dtype))
    bench.stepped("quantised", out, quantised(normed, scale, E4M3), steps(E4M3, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("group", [64, 128])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("shape", BLOCKED, ids=str)
def test_per_block(
    bench: Bench,
    shape: tuple[int, int],
    transposed: bool,
    group: int,
    residual: bool,
    output: torch.dtype,
    dtype: torch.dtype,
) -> None:
    if shape[1] % group:
        pytest.skip("rows are whole groups")
    x, weight, rest = inputs(bench, shape, dtype, residual=residual)
    total = summed(x, rest)
    out = bench.poisoned(*shape, dtype=output)
    groups = shape[1] // group
    home = (groups, shape[0]) if transposed else (shape[0], groups)
    scale = bench.poisoned(*home, dtype=torch.float32)
    op = "_C::rms_norm_per_block_quant"
    bench.call(op, out, x, weight, scale, EPSILON, None, rest, group, transposed)
    normed = rms_normed(total, weight, EPSILON, dtype).reshape(shape[0], groups, group)
    actual = (scale.T if transposed else scale).unsqueeze(-1)
    bench.close("scale", actual, dynamic_scale(normed, output), scale_tolerance(dtype))
    expected = quantised(normed, actual, output).reshape(shape)
    bench.stepped("quantised", out, expected, steps(output, dtype))
    if rest is not None:
        bench.close("residual", rest, total, roundings(dtype, 1.0, 8.0))


def test_zeros_and_nan(bench: Bench) -> None:
    """Zeros get the least scale; a row with NaN or infinity becomes what upstream makes of it."""
    x, weight, _ = inputs(bench, (8, 256), torch.bfloat16, residual=False)
    x[0] = 0.0
    for output in OUTPUTS:
        out, scale = bench.poisoned(8, 256, dtype=output), bench.poisoned(8, 1, dtype=torch.float32)
        op = "_C::rms_norm_dynamic_per_token_quant"
        bench.call(op, out, x, weight, scale, EPSILON, None, None)
        zeros = torch.zeros(1, 256, device=bench.device)
        bench.close(
            "least scale", scale[:1], dynamic_scale(zeros, output), scale_tolerance(x.dtype)
        )
        special = x.clone()
        special[3, 5], special[4, 5] = float("nan"), float("-inf")
        bench.call(op, out, special, weight, scale, EPSILON, None, None)


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
def test_per_block_zeros_and_nan(bench: Bench, transposed: bool, output: torch.dtype) -> None:
    """A block of zeros gets the least scale; NaN and infinity are as upstream has them."""
    x, weight, _ = inputs(bench, (8, 512), torch.bfloat16, residual=False)
    x[0, :128] = 0.0
    out = bench.poisoned(8, 512, dtype=output)
    scale = bench.poisoned(*((4, 8) if transposed else (8, 4)), dtype=torch.float32)
    op = "_C::rms_norm_per_block_quant"
    bench.call(op, out, x, weight, scale, EPSILON, None, None, 128, transposed)
    zeros = torch.zeros(1, 128, device=bench.device)
    least = dynamic_scale(zeros, output).flatten()
    bench.close("least scale", scale[0, :1], least, scale_tolerance(x.dtype))
    x[3, 5], x[4, 5] = float("nan"), float("-inf")
    bench.call(op, out, x, weight, scale, EPSILON, None, None, 128, transposed)


@pytest.mark.parametrize("op", ["per-token", "per-block"])
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_no_rows(bench: Bench, output: torch.dtype, op: str) -> None:
    x, weight, _ = inputs(bench, (0, 256), torch.bfloat16, residual=False)
    out = bench.poisoned(0, 256, dtype=output)
    scale = bench.poisoned(0, 1 if op == "per-token" else 2, dtype=torch.float32)
    arguments = [out, x, weight, scale, EPSILON, None, None]
    if op == "per-block":
        arguments += [128, False]
    name = f"_C::rms_norm_{'dynamic_per_token' if op == 'per-token' else 'per_block'}_quant"
    bench.nothing_to_do(name, *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("op", ["per-token", "per-block"])
def test_speed(bench: Bench, op: str) -> None:
    x, weight, _ = inputs(bench, (8192, 8192), torch.bfloat16, residual=False)
    out = torch.empty(x.shape, dtype=E4M3, device=bench.device)
    scale = torch.ones(8192, 1 if op == "per-token" else 64, device=bench.device)
    arguments = (out, x, weight, scale, EPSILON, None, None)
    what = "8192 x 8192 bf16 to fp8"
    if op == "per-token":
        bench.speed("_C::rms_norm_dynamic_per_token_quant", *arguments, what=what)
    else:
        bench.speed("_C::rms_norm_per_block_quant", *arguments, 128, False, what=what)
