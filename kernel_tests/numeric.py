"""Number formats and tolerances: what a right answer may differ by, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
# Half the distance from 1 to the next number: the worst relative error of one rounding.
ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@dataclass(frozen=True)
class Tolerance:
    """|actual - expected| <= absolute + relative * |expected|, for each element."""

    relative: float
    absolute: float = 0.0

    def __str__(self) -> str:
        return f"{self.absolute:.3g} + {self.relative:.3g} |x|"


@dataclass(frozen=True)
class Steps:
    """Neighbouring values of the format, `most` steps off, in a `share` of the elements at most.

    A quantised value differs by a step where float32 and float64 fall on two sides of a tie.
    """

    most: int = 1
    share: float = 0.01

    def __str__(self) -> str:
        return f"{self.most} step in {self.share:.2%}"


def roundings(
    dtype: torch.dtype, count: float, scale: float = 1.0, *, compute: float = 0.0
) -> Tolerance:
    """The tolerance of `count` roundings to `dtype` of values of about `scale`.

    `compute` is the absolute error of the float32 arithmetic before, in units of its rounding.
    """
    unit = ROUNDING[dtype]
    tiny = torch.finfo(dtype).smallest_normal * unit
    absolute = compute * ROUNDING[torch.float32] * scale + tiny
    return Tolerance(count * unit, absolute)


def product(dtype: torch.dtype, length: int, spread: float, *, units: float = 0.0) -> Tolerance:
    """The tolerance of a sum of `length` products of about `spread` each, rounded to `dtype`.

    Signs are random, so the sum is about sqrt(length) * spread, and the rounding of factors to
    `dtype` adds in the same way; `units` is how many roundings each factor has behind it.
    """
    typical = spread * length**0.5
    unit = ROUNDING[dtype]
    # Six standard deviations of the accumulated rounding of the factors.
    absolute = 6.0 * units * unit * typical + length * ROUNDING[torch.float32] * typical
    return Tolerance(2 * unit, absolute + torch.finfo(dtype).smallest_normal)


def e4m3_values(device: torch.device | str = "cpu") -> torch.Tensor:
    """The 253 distinct finite values of e4m3 as float64, in order (-448 … 448)."""
    codes = torch.arange(256, dtype=torch.uint8, device=device).view(E4M3).to(torch.float64)
    return torch.unique(codes[torch.isfinite(codes)])


def nearest_e4m3(value: torch.Tensor) -> torch.Tensor:
    """The float64 tensor `value` in e4m3: nearest, ties to even, saturating; by the definition."""
    grid = e4m3_values(value.device)
    clamped = value.clamp(-E4M3_MAX, E4M3_MAX)
    above = torch.searchsorted(grid, clamped.contiguous()).clamp(max=grid.numel() - 1)
    below = (above - 1).clamp(min=0)
    up, down = grid[above] - clamped, clamped - grid[below]
    # Values alternate between even and odd codes; zero (even) stands in the middle.
    even_above = (above - grid.numel() // 2) % 2 == 0
    take_above = (up < down) | ((up == down) & even_above)
    return torch.where(take_above, grid[above], grid[below]).to(torch.float32).to(E4M3)


def steps_apart(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """How many values of their 8-bit format lie between two tensors, as int32."""
    return (_position(actual) - _position(expected)).abs()


def rounded(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The float64 `value` rounded once to `dtype`, as float64."""
    return value.to(dtype).to(torch.float64)


def _position(value: torch.Tensor) -> torch.Tensor:
    """The place of each value in the order of its format; NaN is beyond everything."""
    if value.dtype == torch.int8:
        return value.to(torch.int32)
    code = value.contiguous().view(torch.uint8).to(torch.int32)
    magnitude = code & 0x7F
    return torch.where(code >= 0x80, -magnitude, magnitude)
