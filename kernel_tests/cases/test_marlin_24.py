from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import product
from kernel_tests.references import marlin
from kernel_tests.references.weights import multiplied, spread

OP = "_C::gptq_marlin_24_gemm"
PARALLEL = 64  # of upstream: how many column blocks may be under way
SIZES = [
    (1, 512, 128),
    (16, 512, 256),
    (17, 1024, 512),
    (40, 512, 1024),
    (70, 2560, 256),
    (257, 1536, 1408),
]


def sparse(
    bench: Bench, k: int, n: int, group: int, kind: marlin.ScalarType
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed codes, positions and scales of weights with two of four rows kept, and the weights."""
    pairs = torch.tensor([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], device=bench.device)
    first, second = pairs[bench.integers(k // 4, n, low=0, high=6)].unbind(-1)
    kept = bench.integers(k // 2, n, low=0, high=1 << kind.bits)
    scale = bench.uniform(
        1 if group == -1 else k // group, n, low=0.01, high=0.05, dtype=torch.float16
    )
    w = torch.zeros(k // 4, 4, n, dtype=torch.float64, device=bench.device)
    for place, codes in zip((first, second), kept.reshape(-1, 2, n).unbind(1), strict=True):
        w.scatter_(1, place[:, None], (codes - kind.bias).to(torch.float64)[:, None])
    value = w.reshape(k, n) * spread(scale.to(torch.float64), k)
    return (
        marlin.sparse_weights(kept, kind.bits),
        marlin.sparse_positions(first, second),
        marlin.sparse_scales(scale, grouped=group != -1 and group < k),
        value,
    )


@pytest.mark.parametrize("kind", [marlin.U4B8, marlin.U8B128], ids=["u4b8", "u8b128"])
@pytest.mark.parametrize("group", [-1, 128])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gemm(
    bench: Bench, sizes: tuple[int, int, int], group: int, kind: marlin.ScalarType
) -> None:
    m, n, k = sizes
    codes, positions, scales, w = sparse(bench, k, n, group, kind)
    a = bench.normal(m, k, dtype=torch.float16)
    workspace = torch.zeros(n // 128 * PARALLEL, dtype=torch.int32, device=bench.device)
    out = bench.call(OP, a, codes, positions, scales, workspace, kind.id, m, n, k)
    typical = float(w.square().mean().sqrt())
    # Parts of a column are added in float16 across blocks.
    bench.close("product", out, multiplied(a, w), product(torch.float16, k, typical, units=4.0))


def test_nan_stays_in_its_row(bench: Bench) -> None:
    codes, positions, scales, _ = sparse(bench, 256, 512, 128, marlin.U4B8)
    a = bench.normal(16, 256, dtype=torch.float16)
    a[3] = float("nan")
    workspace = torch.zeros(4 * PARALLEL, dtype=torch.int32, device=bench.device)
    out = bench.call(OP, a, codes, positions, scales, workspace, marlin.U4B8.id, 16, 512, 256)
    assert out[3].isnan().all()
    assert torch.isfinite(out[4:]).all()


def test_no_rows(bench: Bench) -> None:
    codes, positions, scales, _ = sparse(bench, 256, 512, 128, marlin.U4B8)
    a = bench.normal(0, 256, dtype=torch.float16)
    workspace = torch.zeros(4 * PARALLEL, dtype=torch.int32, device=bench.device)
    arguments = (a, codes, positions, scales, workspace, marlin.U4B8.id, 0, 512, 256)
    bench.nothing_to_do(OP, *arguments, upstream="refuses")


def test_speed(bench: Bench) -> None:
    m, n, k = 16, 4096, 4096
    codes, positions, scales, _ = sparse(bench, k, n, 128, marlin.U4B8)
    a = bench.normal(m, k, dtype=torch.float16)
    workspace = torch.zeros(n // 128 * PARALLEL, dtype=torch.int32, device=bench.device)
    arguments = (a, codes, positions, scales, workspace, marlin.U4B8.id, m, n, k)
    bench.speed(OP, *arguments, what="16 x 4096 x 4096 u4b8")
