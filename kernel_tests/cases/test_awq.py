from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import Tolerance, product, rounded
from kernel_tests.references.weights import AWQ_ORDER, multiplied, packed_columns, spread


def weights(
    bench: Bench, k: int, n: int, group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes, scales, packed zeros, and the float64 weights that they stand for."""
    codes = bench.integers(k, n, low=0, high=16)
    zeros = bench.integers(k // group, n, low=0, high=16)
    scales = bench.uniform(k // group, n, low=0.002, high=0.02, dtype=torch.float16)
    w = (codes - spread(zeros, k)).to(torch.float64) * spread(scales, k).to(torch.float64)
    packed = packed_columns(codes, 4, AWQ_ORDER), packed_columns(zeros, 4, AWQ_ORDER)
    return packed[0], scales, packed[1], rounded(w, torch.float16)


@pytest.mark.parametrize(
    "sizes", [(64, 64, 32), (128, 128, 128), (1024, 640, 64), (4096, 11008, 128)], ids=str
)
def test_dequantise(bench: Bench, sizes: tuple[int, int, int]) -> None:
    codes, scales, zeros, w = weights(bench, *sizes)
    out = bench.call("_C::awq_dequantize", codes, scales, zeros, 0, 0, 0)
    bench.close("weights", out, w, Tolerance(0.0, 1e-12))


@pytest.mark.parametrize("m", [1, 2, 7, 16, 17, 64, 129])
@pytest.mark.parametrize("splits", [1, 8])
@pytest.mark.parametrize(
    "sizes", [(256, 64, 64), (256, 192, 32), (512, 128, 128), (2048, 1024, 128)], ids=str
)
def test_gemm(bench: Bench, sizes: tuple[int, int, int], splits: int, m: int) -> None:
    k, _, _ = sizes
    codes, scales, zeros, w = weights(bench, *sizes)
    a = bench.normal(m, k, dtype=torch.float16)
    out = bench.call("_C::awq_gemm", a, codes, scales, zeros, splits)
    # Each of the splits is rounded to float16 before they are added.
    allowed = product(torch.float16, k, 0.1, units=splits**0.5)
    bench.close("product", out, multiplied(a, w), allowed)


def test_nan_and_infinity(bench: Bench) -> None:
    codes, scales, zeros, _ = weights(bench, 256, 128, 64)
    a = bench.normal(16, 256, dtype=torch.float16)
    a[2, 5], a[3, 6] = float("nan"), float("inf")
    out = bench.call("_C::awq_gemm", a, codes, scales, zeros, 8)
    assert out[2].isnan().all()
    assert torch.isfinite(out[4:]).all()


def test_no_rows(bench: Bench) -> None:
    codes, scales, zeros, _ = weights(bench, 256, 128, 64)
    a = bench.normal(0, 256, dtype=torch.float16)
    arguments = (a, codes, scales, zeros, 8)
    bench.nothing_to_do("_C::awq_gemm", *arguments, upstream="launches an empty grid")


def test_no_columns(bench: Bench) -> None:
    codes, zeros = (bench.integers(rows, 0, low=0, high=16, dtype=torch.int32) for rows in (64, 2))
    arguments = (codes, bench.normal(2, 0, dtype=torch.float16), zeros, 0, 0, 0)
    bench.nothing_to_do("_C::awq_dequantize", *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("op", ["gemm", "dequantise"])
def test_speed(bench: Bench, op: str) -> None:
    codes, scales, zeros, _ = weights(bench, 4096, 4096, 128)
    if op == "gemm":
        a = bench.normal(16, 4096, dtype=torch.float16)
        bench.speed("_C::awq_gemm", a, codes, scales, zeros, 8, what="16 x 4096 x 4096")
    else:
        bench.speed("_C::awq_dequantize", codes, scales, zeros, 0, 0, 0, what="4096 x 4096")
