"""The weights of a Marlin case: every quantisation that upstream's generators emit kernels for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, rounded
from kernel_tests.references import marlin
from kernel_tests.references.weights import e2m1_values, spread

HALF, BFLOAT = torch.float16, torch.bfloat16


@dataclass(frozen=True)
class Format:
    """Activations `a`, weights `b`, results `c`; `group` is rows to a scale, -1 for all."""

    name: str
    a: torch.dtype
    b: marlin.ScalarType
    c: torch.dtype
    group: int
    float_zeros: bool = False
    shuffled: bool = False

    def __str__(self) -> str:
        kind = f"{self.name}-{str(self.a)[6:]}-{str(self.c)[6:]}-{self.group}"
        return kind + ("-shuffled" if self.shuffled else "")

    @property
    def small_a(self) -> bool:
        return self.a in (torch.int8, E4M3)


def formats(*, dense: bool) -> Iterator[Format]:
    """What the generators emit for archs without fp8 matrix instructions for it (8.0, 9.0)."""
    for dtype in (HALF, BFLOAT):
        for group in (-1, 32, 64, 128):
            yield Format("u4", dtype, marlin.U4, dtype, group)
            yield Format("u4b8", dtype, marlin.U4B8, dtype, group)
            yield Format("u8b128", dtype, marlin.U8B128, dtype, group)
            yield Format("s8-u4", torch.int8, marlin.U4, dtype, group)
            yield Format("s8-u4b8", torch.int8, marlin.U4B8, dtype, group)
        for group in (-1, 128):
            yield Format("fp8", dtype, marlin.FE4M3, dtype, group)
        yield Format("nvfp4", dtype, marlin.FE2M1, dtype, 16)
        if dense:
            yield Format("u4b8", dtype, marlin.U4B8, dtype, 128, shuffled=True)
            yield Format("u8b128", dtype, marlin.U8B128, dtype, 128, shuffled=True)
    yield Format("mxfp4", BFLOAT, marlin.FE2M1, BFLOAT, 32)
    if dense:
        yield Format("hqq", HALF, marlin.U4, HALF, 64, float_zeros=True)


@dataclass
class Weights:
    """One weight matrix: what it stands for, its codes, and the tensors that the op takes."""

    value: torch.Tensor  # (k, n), float64
    codes: torch.Tensor
    packed: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    global_scale: torch.Tensor | None = None
    a_factor: float = 1.0  # what the scales of 8-bit activations are multiplied with


def make(bench: Bench, form: Format, k: int, n: int) -> Weights:
    """Random weights (k, n) of the format."""
    group = k if form.group == -1 else form.group
    groups, grouped = k // group, group < k
    bits = form.b.bits
    codes = bench.integers(k, n, low=0, high=1 << bits, dtype=torch.int32)
    if form.b == marlin.FE4M3:
        codes[(codes & 0x7F) == 0x7F] = 0  # NaN
    raw = bench.uniform(groups, n, low=0.01, high=0.05)
    packed = marlin.weights(codes, bits, small_a=form.small_a)
    scale = raw.to(form.c)
    order = grouped and not form.small_a

    if form.b == marlin.FE2M1:
        return _fp4(form, codes, packed, raw, k, grouped=order)
    if form.b == marlin.FE4M3:
        value = codes.to(torch.uint8).view(E4M3).to(torch.float64)
        fused = scale * torch.tensor(2.0, device=scale.device) ** marlin.exponent_gap(form.c, 4)
        ready = marlin.scales(fused.to(form.c), grouped=order)
        return Weights(value * spread(scale.to(torch.float64), k), codes, packed, ready)

    factor, exact = 1.0, scale.to(torch.float64)
    ready = scale
    if form.small_a and grouped:
        # Group scales become 12-bit integers; what they lose goes to the activations' scales.
        factor = float(scale.max()) / 4096
        whole = (scale / scale.max() * 4096).round()
        exact, ready = whole.to(torch.float64) * factor, whole.to(torch.int16).view(form.c)
    ready = marlin.scales(ready, grouped=order)
    if form.b != marlin.U4:
        value = (codes - form.b.bias).to(torch.float64) * spread(exact, k)
        return Weights(value, codes, packed, ready, a_factor=factor)
    if form.float_zeros:
        zeros = bench.uniform(groups, n, low=4.0, high=12.0).to(form.c)
        value = codes.to(torch.float64) - spread(zeros.to(torch.float64), k)
        return Weights(
            rounded(value, form.c) * spread(exact, k), codes, packed, ready,
            zeros=marlin.scales(zeros, grouped=order),
        )  # fmt: skip
    points = bench.integers(groups, n, low=0, high=16, dtype=torch.int32)
    value = (codes - spread(points, k)).to(torch.float64) * spread(exact, k)
    zeros = marlin.zeros(points, 4, small_a=form.small_a)
    return Weights(value, codes, packed, ready, zeros=zeros, a_factor=factor)


def activations(
    bench: Bench, form: Format, m: int, k: int, factor: float
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Rows (m, k) of the format, their scales (m, 1) for 8-bit ones, and their float64 values.

    `factor` is what the weights' scales leave over; it goes into the scales the op gets.
    """
    if not form.small_a:
        a = bench.normal(m, k, dtype=form.a)
        return a, None, a.to(torch.float64)
    a = bench.integers(m, k, low=-127, high=128, dtype=torch.int8)
    scale = bench.uniform(m, 1, low=0.005, high=0.02)
    return a, scale * factor, a.to(torch.float64) * scale.to(torch.float64)


def _fp4(
    form: Format, codes: torch.Tensor, packed: torch.Tensor, raw: torch.Tensor, k: int, *,
    grouped: bool,
) -> Weights:  # fmt: skip
    value = e2m1_values(codes)
    if form.name == "mxfp4":
        power = torch.exp2(torch.log2(raw).round()).to(form.c)
        ready = marlin.mxfp4_scales(marlin.scales(power, grouped=grouped))
        return Weights(value * spread(power.to(torch.float64), k), codes, packed, ready)
    small = (raw * 1000).to(E4M3)
    whole = torch.tensor([0.001], device=raw.device, dtype=form.c)
    ready = marlin.nvfp4_scales(marlin.scales(small.to(form.c), grouped=grouped))
    exact = spread(small.to(torch.float64), k) * whole.to(torch.float64)
    shifted = whole * 2.0 ** (marlin.exponent_gap(form.c, 2) - 7)
    return Weights(value * exact, codes, packed, ready, global_scale=shifted.to(form.c))
