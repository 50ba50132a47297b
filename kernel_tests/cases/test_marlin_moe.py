from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.cases.marlin_formats import Format, activations, formats, make
from kernel_tests.numeric import product
from kernel_tests.references import experts, marlin

OP = "_moe_C::moe_wna16_marlin_gemm"
# Tokens, chosen experts, experts, n, k, and the rows of a block of one expert's tokens.
SIZES = [
    (1, 1, 1, 128, 256, 8),
    (5, 2, 4, 256, 256, 8),
    (33, 3, 8, 128, 512, 16),
    (70, 2, 5, 512, 256, 48),
    (200, 2, 6, 256, 384, 64),
]


def multiply(
    bench: Bench, form: Format, sizes: tuple[int, ...], *, weighted: bool, atomic: bool = False
) -> None:
    """Multiply every token with its experts' weights and compare."""
    tokens, chosen, count, n, k, block = sizes
    if form.small_a:
        block = max(block, 16)  # no kernel for 8 rows is generated for 8-bit activations
    each = [make(bench, form, k, n) for _ in range(count)]
    if form.small_a and each[0].a_factor != 1.0:
        _share_a_factor(form, each)
    a, a_scale, exact = activations(bench, form, tokens, k, each[0].a_factor)
    choices = bench.uniform(tokens, count, low=0, high=1).topk(chosen, dim=1).indices
    importance = bench.uniform(tokens, chosen, low=0.1, high=1.0)
    blocks = experts.aligned(choices, count, block)
    total = blocks.tokens.numel()
    out = bench.poisoned(tokens * chosen, n, dtype=form.c)
    if atomic:
        out.zero_()
    workspace = torch.zeros(4 * 1024, dtype=torch.int32, device=bench.device)

    def stacked(name: str) -> torch.Tensor | None:
        parts = [getattr(w, name) for w in each]
        return None if parts[0] is None else torch.stack(parts)

    global_scale = stacked("global_scale")
    result = bench.call(
        OP, a, out, stacked("packed"), None, stacked("scales"), a_scale,
        None if global_scale is None else global_scale.reshape(-1), stacked("zeros"), None, None,
        workspace, bench.to_device(blocks.tokens), bench.to_device(blocks.experts),
        torch.tensor([total], dtype=torch.int32, device=bench.device), importance, block, chosen,
        weighted, form.b.id, tokens, n, k, True, atomic, True, False, -1, -1, -1,
        compare=not atomic,
    )  # fmt: skip
    values = torch.stack([w.value for w in each])
    expected = experts.multiplied(exact, values, choices, importance if weighted else None)
    typical = float(exact.square().mean().sqrt() * values.square().mean().sqrt())
    bench.close(
        "product", result, expected, product(form.c, k, typical, units=4.0 if atomic else 1.0)
    )


def _share_a_factor(form: Format, each: list) -> None:  # type: ignore[type-arg]
    """All experts' integer scales refer to one factor: that of the largest scale."""
    factor = max(w.a_factor for w in each)
    for w in each:
        w.value = w.value * (factor / w.a_factor)
        w.a_factor = factor


@pytest.mark.parametrize("form", list(formats(dense=False)), ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_format(bench: Bench, sizes: tuple[int, ...], form: Format) -> None:
    multiply(bench, form, sizes, weighted=sizes[0] % 2 == 0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weighted_and_atomic(bench: Bench, dtype: torch.dtype, weighted: bool) -> None:
    form = Format("u4b8", dtype, marlin.U4B8, dtype, 128)
    multiply(bench, form, (64, 2, 8, 256, 1024, 16), weighted=weighted)
    multiply(bench, form, (3, 2, 8, 128, 2048, 8), weighted=weighted, atomic=True)


def test_no_tokens(bench: Bench) -> None:
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, 256, 128)
    none = torch.empty(0, dtype=torch.int32, device=bench.device)
    a, weights = bench.normal(0, 256, dtype=torch.float16), bench.normal(0, 2)
    out, total = bench.normal(0, 128, dtype=torch.float16), none.new_zeros(1)
    workspace = torch.zeros(4 * 1024, dtype=torch.int32, device=bench.device)
    arguments = (
        a, out, w.packed[None], None, w.scales[None], None, None, None, None, None, workspace,
        none, none, total, weights, 16, 2, False, form.b.id, 0, 128, 256, True, False, True, False,
        -1, -1, -1,
    )  # fmt: skip
    bench.nothing_to_do(OP, *arguments, upstream="refuses")


def test_nan_and_infinity_stay_in_their_token(bench: Bench) -> None:
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, 256, 128)
    a, _, _ = activations(bench, form, 9, 256, 1.0)
    a[2, 5], a[3, 6] = float("nan"), float("inf")
    blocks = experts.aligned(torch.zeros(9, 1, dtype=torch.int64), 1, 16)
    total = torch.tensor([blocks.tokens.numel()], dtype=torch.int32, device=bench.device)
    workspace = torch.zeros(4 * 1024, dtype=torch.int32, device=bench.device)
    out = bench.call(
        OP, a, bench.poisoned(9, 128, dtype=torch.float16), w.packed[None], None, w.scales[None],
        None, None, None, None, None, workspace, bench.to_device(blocks.tokens),
        bench.to_device(blocks.experts), total, torch.ones(9, 1, device=bench.device), 16, 1,
        False, form.b.id, 9, 128, 256, True, False, True, False, -1, -1, -1,
    )  # fmt: skip
    assert out[2].isnan().all() and not torch.isfinite(out[3]).any()
    assert torch.isfinite(out[[0, 1, *range(4, 9)]]).all()


def test_speed(bench: Bench) -> None:
    tokens, chosen, count, n, k, block = 256, 8, 32, 1024, 2048, 64
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, k, n)
    packed, scales = (
        w.packed.expand(count, -1, -1).contiguous(),
        w.scales.expand(count, -1, -1).contiguous(),
    )
    a = bench.normal(tokens, k, dtype=torch.float16)
    choices = bench.uniform(tokens, count, low=0, high=1).topk(chosen, dim=1).indices
    blocks = experts.aligned(choices, count, block)
    total = torch.tensor([blocks.tokens.numel()], dtype=torch.int32, device=bench.device)
    importance = torch.ones(tokens, chosen, device=bench.device)
    workspace = torch.zeros(4 * 1024, dtype=torch.int32, device=bench.device)
    out = torch.empty(tokens * chosen, n, dtype=torch.float16, device=bench.device)
    bench.speed(
        OP, a, out, packed, None, scales, None, None, None, None, None, workspace,
        bench.to_device(blocks.tokens), bench.to_device(blocks.experts), total, importance, block,
        chosen, True, form.b.id, tokens, n, k, True, False, True, False, -1, -1, -1,
        what="256 x 8 of 32 experts, 1024 x 2048 u4b8",
    )  # fmt: skip
