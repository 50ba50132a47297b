"""Marlin's weight formats: codes in the order in which tensor cores take them.

A warp of a matrix instruction gives each of its 32 threads certain rows and columns of a tile; the
weights are stored so that a thread finds all of its own side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernel_tests.references.weights import packed_columns

TILE = 16
_NIBBLES = {False: (0, 2, 4, 6, 1, 3, 5, 7), True: (0, 4, 1, 5, 2, 6, 3, 7)}
_BYTES = {False: (0, 2, 1, 3), True: (0, 1, 2, 3)}


@dataclass(frozen=True)
class ScalarType:
    """A number format as upstream's csrc/core/scalar_type.hpp describes and numbers it."""

    exponent: int
    mantissa: int
    signed: bool
    bias: int = 0
    finite: bool = False
    nan: int = 1  # 0 none, 1 as IEEE 754, 2 the largest code

    @property
    def id(self) -> int:
        fields = (
            (self.exponent, 8), (self.mantissa, 8), (int(self.signed), 1), (self.bias, 32),
            (int(self.finite), 1), (self.nan, 8),
        )  # fmt: skip
        value = place = 0
        for field, width in fields:
            value |= field << place
            place += width
        return value

    @property
    def bits(self) -> int:
        return self.exponent + self.mantissa + int(self.signed)


U4 = ScalarType(0, 4, False)
U4B8 = ScalarType(0, 4, False, bias=8)
U8B128 = ScalarType(0, 8, False, bias=128)
FE4M3 = ScalarType(4, 3, True, finite=True, nan=2)
FE2M1 = ScalarType(2, 1, True, finite=True, nan=0)


def weights(codes: torch.Tensor, bits: int, *, small_a: bool = False) -> torch.Tensor:
    """Codes (k, n) as Marlin reads them: int32 (k / 16, 16 n bits / 32).

    `small_a` is the order for 8-bit activations, whose instructions take 32 rows at once.
    """
    k, n = codes.shape
    depth = 2 * TILE if small_a else TILE
    tiles = codes.reshape(k // depth, depth, n // TILE, TILE).permute(0, 2, 1, 3)
    tiles = tiles.reshape(k // TILE, n * TILE)
    order = _thread_order(bits, small_a=small_a).to(codes.device)
    tiles = tiles.reshape(-1, order.numel())[:, order].reshape(tiles.shape)
    return packed_columns(tiles, bits)


def scales(values: torch.Tensor, *, grouped: bool) -> torch.Tensor:
    """Scales (groups, n) in the order of threads' columns; one group has an order of its own."""
    if grouped:
        order = [i + 8 * j for i in range(8) for j in range(8)]
    else:
        order = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
    return values.reshape(-1, len(order))[:, order].reshape(values.shape).contiguous()


def zeros(points: torch.Tensor, bits: int, *, small_a: bool = False) -> torch.Tensor:
    """Integer zero points (groups, n), packed like the weights of a row."""
    ordered = scales(points, grouped=True)
    if not small_a:
        order = _NIBBLES[False] if bits == 4 else _BYTES[False]
        ordered = ordered.reshape(-1, len(order))[:, list(order)].reshape(points.shape)
    return packed_columns(ordered, bits)


def nvfp4_scales(values: torch.Tensor) -> torch.Tensor:
    """Non-negative e4m3 scales, ordered already, as unsigned numbers of five exponent bits."""
    half = values.to(torch.float16)
    half = half.reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(values.shape)
    high = (half * 2.0**7).view(torch.int16) << 1
    return high.view(torch.float8_e4m3fn)[:, 1::2].contiguous()


def mxfp4_scales(values: torch.Tensor) -> torch.Tensor:
    """Power-of-two scales, ordered already, as their exponents."""
    ordered = values.reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(values.shape)
    return ordered.to(torch.float8_e8m0fnu).contiguous()


def exponent_gap(dtype: torch.dtype, exponent_bits: int) -> int:
    """How far the exponent bias of `dtype` is from that of a float with `exponent_bits`.

    The kernel moves bits of small floats into `dtype` and leaves the bias to the scale.
    """
    wide = 5 if dtype == torch.float16 else 8
    return int(2 ** (wide - 1) - 2 ** (exponent_bits - 1))


def _thread_order(bits: int, *, small_a: bool) -> torch.Tensor:
    """For each place in storage the element of a block of tiles that stands there."""
    order: list[int] = []
    # A thread holds runs of rows, twice, in two 8-column halves; tiles repeat along n.
    run, step, tiles = (4, 16, 2) if small_a else (2, 8, 4)
    for thread in range(32):
        column, first = thread // 4, run * (thread % 4)
        rows = [first + base + i for base in (0, step) for i in range(run)]
        own = [TILE * row + column + 8 * half for half in (0, 1) for row in rows]
        order += [element + TILE * 2 * step * tile for tile in range(tiles) for element in own]
    places = _NIBBLES[small_a] if bits == 4 else _BYTES[small_a]
    return torch.tensor(order).reshape(-1, len(places))[:, list(places)].reshape(-1)


# 2:4 sparse weights


def sparse_weights(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The kept codes (k / 2, n) in the order of the sparse instructions."""
    k, n = codes.shape
    tiles = codes.reshape(k // TILE, TILE, n // TILE, TILE).permute(0, 2, 1, 3)
    tiles = tiles.reshape(k // TILE, n * TILE)
    order: list[int] = []
    for thread in range(32):
        column, first = thread // 4, 2 * (thread % 4)
        rows = (first, first + 1, first + 8, first + 9)
        base = column // 2 * 256 + 8 * (column % 2)
        own = [TILE * row + base + 4 * half for half in (0, 1) for row in rows]
        order += [element + tile for tile in range(4) for element in own]
    places = _NIBBLES[False] if bits == 4 else _BYTES[False]
    index = torch.tensor(order).reshape(-1, len(places))[:, list(places)].reshape(-1)
    tiles = tiles.reshape(-1, index.numel())[:, index.to(codes.device)].reshape(tiles.shape)
    return packed_columns(tiles, bits)


def sparse_scales(values: torch.Tensor, *, grouped: bool) -> torch.Tensor:
    """Scales of sparse weights: pairs of columns four apart stand together, if there are groups."""
    if not grouped:
        return values.contiguous()
    order = [8 * i + j for i in range(8) for j in (0, 4, 1, 5, 2, 6, 3, 7)]
    return values.reshape(-1, len(order))[:, order].reshape(values.shape).contiguous()


def sparse_positions(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Which two of each four rows are kept, (k / 4, n) each, as the instructions read it.

    Two bits a position, four groups of rows in an int16, in CUTLASS's interleaved order of rows and
    columns; the shape is (k / 32, 2 n).
    """
    quads = (first | second << 2).T.contiguous().to(torch.int64)  # (n, k / 4)
    n = quads.shape[0]
    words = (quads.reshape(n, -1, 4) << (torch.arange(4, device=quads.device) * 4)).sum(-1)
    row = torch.arange(n, device=quads.device)[:, None].expand(words.shape)
    column = torch.arange(words.shape[1], device=quads.device).expand(words.shape)
    row = row // 64 * 64 + row % 2 * 2 + row % 8 // 4 + row % 32 % 4 // 2 * 32 + row % 64 // 8 * 4
    # In each 2 x 2 block the off-diagonal words change places.
    swap = ((row % 2 == 0) & (column % 2 == 1)).long() - ((row % 2 == 1) & (column % 2 == 0)).long()
    row, column = row + swap, column - swap
    place = column // 2 * n * 2 + row * 2 + column % 2
    flat = torch.empty(words.numel(), dtype=torch.int64, device=quads.device)
    flat[place.reshape(-1)] = words.reshape(-1)
    signed = torch.where(flat >= 1 << 15, flat - (1 << 16), flat).to(torch.int16)
    return signed.reshape(words.shape[1] // 2, n * 2)
