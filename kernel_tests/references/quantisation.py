"""References of the kernels that end in an 8-bit value."""

from __future__ import annotations

import torch

from kernel_tests.numeric import E4M3, E4M3_MAX, nearest_e4m3, rounded

# What a scale is at least, so that its inverse is finite.
MIN_SCALE = {E4M3: 1.0 / (E4M3_MAX * 512.0), torch.int8: float(torch.finfo(torch.float32).eps)}
LARGEST = {E4M3: E4M3_MAX, torch.int8: 127.0}


def quantised(value: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`value / scale` to the nearest value of `dtype`, ties to even, saturating."""
    ratio = value.to(torch.float64) / scale.to(torch.float64)
    if dtype == torch.int8:
        return ratio.round().clamp(-128, 127).to(torch.int8)
    return nearest_e4m3(ratio)


def dynamic_scale(
    value: torch.Tensor, dtype: torch.dtype, *, limit: torch.Tensor | None = None
) -> torch.Tensor:
    """The scale of each row (last dimension): its largest magnitude, at most `limit`, over the
    largest value of `dtype`; float64 with the last dimension kept as 1."""
    largest = value.to(torch.float64).abs().amax(dim=-1, keepdim=True)
    if limit is not None:
        largest = largest.clamp(max=float(limit))
    return (largest / LARGEST[dtype]).clamp(min=MIN_SCALE[dtype])


def rms_normed(
    value: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
) -> torch.Tensor:
    """RMS norm of the rows as a model in `dtype` has it: the norm is rounded, then its product."""
    value = value.to(torch.float64)
    norm = value * torch.rsqrt(value.square().mean(dim=-1, keepdim=True) + epsilon)
    return rounded(rounded(norm, dtype) * weight.to(torch.float64), dtype)


def gated(value: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of each row times the second, each step rounded to the type."""
    gate, up = value.to(torch.float64).chunk(2, dim=-1)
    return rounded(rounded(gate * torch.sigmoid(gate), value.dtype) * up, value.dtype)


def by_group(value: torch.Tensor, scale: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """`scale` (rows / group rows, columns / group columns) spread over the elements of `value`."""
    rows, columns = shape
    spread = scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    assert spread.shape == value.shape
    return spread
