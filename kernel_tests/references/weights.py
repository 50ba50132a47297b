"""Quantised weights: how formats store them, and what they stand for.

`w` of k inputs and n outputs is (k, n).  The packings are those of GPTQ and AWQ checkpoints.
"""

from __future__ import annotations

import torch

# AWQ stores the eight values of a word in this order, GPTQ in their own.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# The magnitudes of the 4-bit float e2m1, by code.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def packed_rows(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """GPTQ's: 32 // bits rows of `codes` (k, n) in one int32, the first row lowest."""
    return _words(codes.reshape(-1, 32 // bits, codes.shape[1]).movedim(1, -1), bits)


def packed_columns(
    codes: torch.Tensor, bits: int, order: tuple[int, ...] | None = None
) -> torch.Tensor:
    """32 // bits columns of `codes` in one int32; `order` says which column comes at each place."""
    groups = codes.reshape(codes.shape[0], -1, 32 // bits)
    if order is not None:
        groups = groups[..., list(order)]
    return _words(groups, bits)


def unpacked_columns(
    words: torch.Tensor, bits: int, order: tuple[int, ...] | None = None
) -> torch.Tensor:
    """The inverse of `packed_columns`."""
    count = 32 // bits
    shifts = torch.arange(count, device=words.device) * bits
    values = (words.to(torch.int64)[..., None] >> shifts) & ((1 << bits) - 1)
    if order is not None:
        values = values[..., torch.argsort(torch.tensor(order, device=words.device))]
    return values.reshape(words.shape[0], -1)


def spread(groups: torch.Tensor, rows: int) -> torch.Tensor:
    """One row for each of `rows` inputs from one for each group of them."""
    return groups.repeat_interleave(rows // groups.shape[0], 0)


def e2m1_values(codes: torch.Tensor) -> torch.Tensor:
    """The float64 values of 4-bit codes: a sign, two bits of exponent, one of mantissa."""
    table = torch.tensor(E2M1, dtype=torch.float64, device=codes.device)
    magnitude = table[(codes & 7).to(torch.int64)]
    return torch.where(codes >= 8, -magnitude, magnitude)


def multiplied(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The exact product of (m, k) and (k, n)."""
    return a.to(torch.float64) @ w.to(torch.float64)


def _words(groups: torch.Tensor, bits: int) -> torch.Tensor:
    """The last dimension of small numbers as one int32, the first lowest."""
    shifts = torch.arange(groups.shape[-1], device=groups.device) * bits
    words = (groups.to(torch.int64) << shifts).sum(dim=-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
