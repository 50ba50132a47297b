from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import product, rounded
from kernel_tests.references.weights import multiplied

DTYPES = [torch.float16, torch.bfloat16]
# No rows are not here: upstream's host code divides by how many tiles of 16 there are, and the
# process ends.
SIZES = [
    (1, 64, 128),
    (13, 272, 1072),
    (26, 592, 208),
    (48, 256, 384),
    (67, 208, 1408),
    (257, 208, 176),
]
CUBLAS_FROM = 1024  # upstream's: rows above which the weights are dequantised for cuBLAS
# Upstream builds and offers the kernel for 8.x; the code asks for 8.0 at least.
AMPERE = 80


def weights(
    bench: Bench, k: int, n: int, dtype: torch.dtype, *, zeros: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Codes (k, n), scales and zero points (1, n), and the float64 weights they stand for.

    A code stands for `code - 128 - zero`: the zero points count from the middle of the codes.
    """
    codes = bench.integers(k, n, low=0, high=256, dtype=torch.uint8)
    scales = bench.uniform(1, n, low=0.001, high=0.01, dtype=dtype)
    points = bench.integers(1, n, low=-32, high=33).to(dtype) if zeros else None
    value = codes.to(torch.float64) - 128
    if points is not None:
        # The difference has up to 8 bits and is rounded to the type, as is its product.
        value = rounded(value - points.to(torch.float64), dtype)
    return codes, scales, points, rounded(value * scales.to(torch.float64), dtype)


def repacked(
    bench: Bench, codes: torch.Tensor, scales: torch.Tensor, points: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The weights in the kernel's order, columns padded to a multiple of 32."""
    k, n = codes.shape
    padded = -(-n // 32) * 32
    order = bench.poisoned(padded, k, dtype=torch.uint8)
    scale = bench.poisoned(1, padded, dtype=scales.dtype)
    point = None if points is None else bench.poisoned(1, padded, dtype=scales.dtype)
    bench.call(
        "_C::rearrange_kn_weight_as_n32k16_order", codes, scales, points, points is not None,
        order, scale, point, k, n, padded,
    )  # fmt: skip
    return order, scale, point


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "cublas"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gemm(
    bench: Bench, sizes: tuple[int, int, int], fused: bool, zeros: bool, dtype: torch.dtype
) -> None:
    m, n, k = sizes
    codes, scales, points, w = weights(bench, k, n, dtype, zeros=zeros)
    order, scale, point = repacked(bench, codes, scales, points)
    a = bench.normal(m, k, dtype=dtype)
    processors = torch.cuda.get_device_properties(bench.device).multi_processor_count
    out = bench.call(
        "_C::allspark_w8a16_gemm", a, order, scale, point, n, -1, processors, AMPERE,
        CUBLAS_FROM if fused else 0, zeros, True,
    )  # fmt: skip
    allowed = product(dtype, k, 0.5, units=2.0)
    bench.close("product", out, multiplied(a, w), allowed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(64, 16), (256, 272), (1088, 4096)], ids=str)
def test_repack_keeps_every_weight(
    bench: Bench, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    """Repacking is a permutation: within each 32 columns the same codes, scales in lane order."""
    k, n = sizes
    codes, scales, points, _ = weights(bench, k, n, dtype, zeros=True)
    order, scale, _ = repacked(bench, codes, scales, points)
    whole = n // 32 * 32
    for first in range(0, whole, 32):
        before = codes[:, first : first + 32].reshape(-1).sort().values
        after = order[first : first + 32].reshape(-1).sort().values
        bench.equal("codes of 32 columns", after, before)
    lanes = torch.arange(32, device=bench.device)
    place = (lanes % 8) * 4 + lanes // 8
    for first in range(0, whole, 32):
        bench.equal("scales", scale[0, first + place], scales[0, first : first + 32])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "cublas"])
def test_nan_and_infinity_stay_in_their_row(bench: Bench, fused: bool) -> None:
    codes, scales, points, _ = weights(bench, 256, 64, torch.float16, zeros=False)
    order, scale, point = repacked(bench, codes, scales, points)
    a = bench.normal(20, 256, dtype=torch.float16)
    a[3, 5], a[7, 9] = float("nan"), float("inf")
    processors = torch.cuda.get_device_properties(bench.device).multi_processor_count
    out = bench.call(
        "_C::allspark_w8a16_gemm", a, order, scale, point, 64, -1, processors, AMPERE,
        CUBLAS_FROM if fused else 0, False, True,
    )  # fmt: skip
    finite = torch.isfinite(out)
    assert out[3].isnan().all() and not finite[7].any()
    finite[3], finite[7] = True, True
    assert finite.all()


def test_repack_of_no_columns(bench: Bench) -> None:
    codes = torch.empty(64, 0, dtype=torch.uint8, device=bench.device)
    scales = torch.empty(1, 0, dtype=torch.float16, device=bench.device)
    arguments = (codes, scales, None, False, codes.T.contiguous(), scales.clone(), None, 64, 0, 0)
    name = "_C::rearrange_kn_weight_as_n32k16_order"
    bench.nothing_to_do(name, *arguments, upstream="launches an empty grid")


def test_speed(bench: Bench) -> None:
    codes, scales, points, _ = weights(bench, 4096, 4096, torch.float16, zeros=False)
    order, scale, point = repacked(bench, codes, scales, points)
    a = bench.normal(64, 4096, dtype=torch.float16)
    processors = torch.cuda.get_device_properties(bench.device).multi_processor_count
    arguments = (a, order, scale, point, 4096, -1, processors, AMPERE, CUBLAS_FROM, False, True)
    bench.speed("_C::allspark_w8a16_gemm", *arguments, what="64 x 4096 x 4096 f16")
