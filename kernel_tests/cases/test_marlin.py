from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.cases.marlin_formats import Format, Weights, activations, formats, make
from kernel_tests.numeric import Tolerance, product
from kernel_tests.references import marlin
from kernel_tests.references.weights import (
    AWQ_ORDER,
    multiplied,
    packed_columns,
    packed_rows,
    spread,
)

OP = "_C::gptq_marlin_gemm"
# Each block of rows that the kernel is written for (8, 16, 32, 48, 64), whole and not.
SIZES = [
    (1, 64, 256),
    (7, 256, 512),
    (16, 192, 384),
    (31, 640, 256),
    (48, 128, 1024),
    (130, 1024, 512),
]


def multiply(
    bench: Bench, form: Format, w: Weights, a: torch.Tensor, a_scale: torch.Tensor | None, *,
    g_idx: torch.Tensor | None = None, order: torch.Tensor | None = None, whole_k: bool = True,
    bias: torch.Tensor | None = None, atomic: bool = False, fp32: bool = True,
) -> torch.Tensor:  # fmt: skip
    m, k = a.shape
    n = w.value.shape[1]
    processors = torch.cuda.get_device_properties(bench.device).multi_processor_count
    workspace = torch.zeros(processors, dtype=torch.int32, device=bench.device)
    out = bench.poisoned(m, n, dtype=form.c)
    if atomic:
        out.zero_()
    result: torch.Tensor = bench.call(
        OP, a, out, w.packed, bias, w.scales, a_scale, w.global_scale, w.zeros, g_idx, order,
        workspace, form.b.id, m, n, k, whole_k, atomic, fp32, form.float_zeros,
        compare=not atomic,
    )  # fmt: skip
    bench.equal("the workspace is zero again", workspace, torch.zeros_like(workspace))
    return result


def allowed(form: Format, a: torch.Tensor, w: torch.Tensor, *, fp32: bool = True) -> Tolerance:
    spread_of = float(a.square().mean().sqrt() * w.square().mean().sqrt())
    # A weight is rounded to the type once; sums of parts too where they are not kept in float32.
    return product(form.c, w.shape[0], max(spread_of, 1e-6), units=1.0 if fp32 else 4.0)


@pytest.mark.parametrize("form", [f for f in formats(dense=True) if not f.shuffled], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_format(bench: Bench, sizes: tuple[int, int, int], form: Format) -> None:
    m, n, k = sizes
    w = make(bench, form, k, n)
    a, a_scale, exact = activations(bench, form, m, k, w.a_factor)
    out = multiply(bench, form, w, a, a_scale)
    bench.close("product", out, multiplied(exact, w.value), allowed(form, exact, w.value))


@pytest.mark.parametrize("whole_k", [True, False], ids=["whole", "part"])
@pytest.mark.parametrize("form", [f for f in formats(dense=True) if f.shuffled], ids=str)
@pytest.mark.parametrize("sizes", [(1, 256, 512), (33, 128, 1024)], ids=str)
def test_rows_in_another_order(
    bench: Bench, sizes: tuple[int, int, int], form: Format, whole_k: bool
) -> None:
    """GPTQ's act-order: rows belong to groups in any order, and are sorted when they are packed."""
    m, n, k = sizes
    plain = make(bench, form, k, n)
    codes = plain.codes
    owner = (torch.arange(k, device=bench.device) // form.group)[bench.permutation(k)]
    raw = bench.uniform(k // form.group, n, low=0.01, high=0.05, dtype=form.c)
    value = (codes - form.b.bias).to(torch.float64) * raw.to(torch.float64)[owner]
    order = torch.argsort(owner, stable=True).to(torch.int32)
    packed = bench.call(
        "_C::gptq_marlin_repack", packed_rows(codes, form.b.bits), order, k, n, form.b.bits, False
    )
    bench.equal("repacked", packed, marlin.weights(codes[order.long()], form.b.bits))
    # With a part of the rows, scales are found by g_idx one by one and stand in one group's order.
    w = Weights(value, codes, packed, marlin.scales(raw, grouped=True))
    a, _, exact = activations(bench, form, m, k, 1.0)
    g_idx = owner[order.long()].to(torch.int32)
    out = multiply(bench, form, w, a, None, g_idx=g_idx, order=order, whole_k=whole_k)
    bench.close("product", out, multiplied(exact, value), allowed(form, exact, value))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("small_a", [False, True], ids=["a16", "a8"])
@pytest.mark.parametrize("sizes", [(128, 64), (384, 320), (1152, 2816)], ids=str)
def test_repack(bench: Bench, sizes: tuple[int, int], small_a: bool, bits: int) -> None:
    """GPTQ's and AWQ's packings become Marlin's."""
    k, n = sizes
    codes = bench.integers(k, n, low=0, high=1 << bits)
    wanted = marlin.weights(codes, bits, small_a=small_a)
    none = torch.empty(0, dtype=torch.int32, device=bench.device)
    gptq = packed_rows(codes, bits)
    found = bench.call("_C::gptq_marlin_repack", gptq, none, k, n, bits, small_a)
    bench.equal("from GPTQ", found, wanted)
    awq = packed_columns(codes, bits, AWQ_ORDER if bits == 4 else (0, 2, 1, 3))
    found = bench.call("_C::awq_marlin_repack", awq, k, n, bits, small_a)
    bench.equal("from AWQ", found, wanted)


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
def test_preprocess_for_fp8_activations(bench: Bench, zeros: bool) -> None:
    """Codes become sign and magnitude: 8 … 15 are 0 … 7, 7 … 0 are -0 … -7 or as the zero says."""
    k, n, group = 512, 256, 128
    codes = bench.integers(k, n, low=0, high=16)
    points = bench.integers(k // group, n, low=0, high=16)
    pair = (1, 0, 3, 2, 5, 4, 7, 6)  # the high half of a byte comes first
    words = packed_columns(codes, 4, pair)
    if zeros:
        shifted = codes - spread(points, k)
        wanted = torch.where(shifted < 0, 15 - codes, shifted)
    else:
        wanted = torch.where(codes >= 8, codes - 8, 15 - codes)
    given = packed_columns(points, 4, pair) if zeros else None
    found = bench.call("_C::marlin_int4_fp8_preprocess", words, given, False)
    bench.equal("codes", found, packed_columns(wanted, 4, pair))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["atomic", "reduced-in-type", "bias"])
def test_other_ways_to_add(bench: Bench, way: str, dtype: torch.dtype) -> None:
    m, n, k = 13, 256, 2048
    form = Format("u4b8", dtype, marlin.U4B8, dtype, 128)
    w = make(bench, form, k, n)
    a, _, exact = activations(bench, form, m, k, 1.0)
    bias = bench.normal(n, dtype=dtype) * 10 if way == "bias" else None
    ordered = None if bias is None else marlin.scales(bias[None], grouped=False)[0]
    fp32 = way == "bias"
    out = multiply(bench, form, w, a, None, bias=ordered, atomic=way == "atomic", fp32=fp32)
    expected = multiplied(exact, w.value) + (0 if bias is None else bias.to(torch.float64))
    bench.close("product", out, expected, allowed(form, exact, w.value, fp32=fp32))


def test_no_rows(bench: Bench) -> None:
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, 256, 256)
    a, _, _ = activations(bench, form, 0, 256, 1.0)
    assert multiply(bench, form, w, a, None).shape == (0, 256)


def test_nan_and_infinity(bench: Bench) -> None:
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, 256, 256)
    a, _, _ = activations(bench, form, 16, 256, 1.0)
    a[2, 5], a[3, 6] = float("nan"), float("inf")
    out = multiply(bench, form, w, a, None)
    assert out[2].isnan().all()
    assert torch.isfinite(out[4:]).all()


@pytest.mark.parametrize("m", [16, 512])
def test_speed(bench: Bench, m: int) -> None:
    n = k = 4096
    form = Format("u4b8", torch.float16, marlin.U4B8, torch.float16, 128)
    w = make(bench, form, k, n)
    a = bench.normal(m, k, dtype=torch.float16)
    workspace = torch.zeros(1024, dtype=torch.int32, device=bench.device)
    arguments = (a, None, w.packed, None, w.scales, None, None, None, None, None, workspace)
    bench.speed(
        OP, *arguments, form.b.id, m, n, k, True, False, True, False, what=f"{m} x {n} x {k} u4b8"
    )
