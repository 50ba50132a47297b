from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, E4M3_MAX, Steps, Tolerance, rounded
from kernel_tests.references.quantisation import gated, quantised

DTYPES = [torch.float16, torch.bfloat16]
SHAPES = [(1, 8), (3, 24), (7, 33), (17, 512), (83, 1027), (512, 13824)]
GROUP = 128
LEAST = 11996  # the bits of the bf16 number that a group's maximum is at least (about 1e-10)
OP = "_C::persistent_masked_m_silu_mul_quant"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_silu_and_mul(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> None:
    rows, columns = shape
    if columns % 8:
        # Rows of 16-byte vectors: upstream reads a row's second half at its start.
        columns += 8 - columns % 8
    x = bench.normal(rows, 2 * columns, dtype=dtype, scale=2.0)
    scale = bench.uniform(1, low=0.005, high=0.05)
    out = bench.poisoned(rows, columns, dtype=E4M3)
    bench.call("_C::silu_and_mul_quant", out, x, scale)
    bench.stepped("quantised", out, quantised(gated(x), scale, E4M3), Steps(1, 0.02))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_silu_and_mul_limits(bench: Bench, dtype: torch.dtype) -> None:
    """Large gates saturate, very negative ones vanish; NaN becomes what upstream makes of it."""
    x = bench.normal(16, 2 * 256, dtype=dtype)
    x[:, :64], x[:, 64:128] = 200.0, -200.0
    scale = torch.full((1,), 0.1, device=bench.device)
    out = bench.poisoned(16, 256, dtype=E4M3)
    bench.call("_C::silu_and_mul_quant", out, x, scale)
    bench.stepped("quantised", out, quantised(gated(x), scale, E4M3), Steps(1, 0.02))
    x[3, 5], x[4, 300], x[5, 5] = float("nan"), float("inf"), float("-inf")
    bench.call("_C::silu_and_mul_quant", out, x, scale)


def test_silu_and_mul_of_no_rows(bench: Bench) -> None:
    x, out = bench.normal(0, 128, dtype=torch.float16), bench.poisoned(0, 64, dtype=E4M3)
    scale = torch.ones(1, device=bench.device)
    arguments = (out, x, scale)
    bench.nothing_to_do("_C::silu_and_mul_quant", *arguments, upstream="launches an empty grid")


def masked(
    bench: Bench, experts: int, tokens: int, size: int, counts: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (experts, tokens, 2 * size) and how many tokens of each expert there are."""
    x = bench.normal(experts, tokens, 2 * size, dtype=torch.bfloat16)
    if counts is None:
        return x, bench.integers(experts, low=0, high=tokens + 1, dtype=torch.int32)
    return x, torch.tensor(counts, dtype=torch.int32, device=bench.device)


def expected_groups(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gated values by group, and each group's scale before any power of two; all bf16."""
    value = gated(x).unflatten(-1, (-1, GROUP))
    least = torch.tensor(LEAST, dtype=torch.int16, device=x.device).view(torch.bfloat16)
    largest = value.abs().amax(dim=-1).clamp(min=float(least))
    inverse = rounded(torch.tensor(1 / E4M3_MAX, dtype=torch.float64, device=x.device), x.dtype)
    return value, rounded(largest * inverse, x.dtype)


def requantised(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The gated values over the scale as bf16 has it: times the rounded inverse, then rounded."""
    inverse = rounded(1.0 / scale, torch.bfloat16).unsqueeze(-1)
    ratio = rounded(value * inverse, torch.bfloat16)
    return quantised(ratio, torch.ones_like(ratio), E4M3).flatten(-2)


EXPERTS = [
    (1, 1, 128, [1]),
    (1, 8, 256, [8]),
    (4, 7, 384, [0, 7, 3, 0]),
    (3, 8, 256, [0, 0, 0]),
    (8, 33, 1024, None),
    (33, 16, 2048, None),
    (9, 130, 4096, None),
    (5, 64, 7168, None),
    (256, 128, 1024, None),
]


@pytest.mark.parametrize("power", [False, True], ids=["float-scale", "power-of-two"])
@pytest.mark.parametrize("sizes", EXPERTS, ids=lambda sizes: "x".join(map(str, sizes[:3])))
def test_persistent(
    bench: Bench, sizes: tuple[int, int, int, list[int] | None], power: bool
) -> None:
    experts, tokens, size, fixed = sizes
    x, counts = masked(bench, experts, tokens, size, fixed)
    out = bench.poisoned(experts, tokens, size, dtype=E4M3)
    scale = bench.poisoned(experts, tokens, size // GROUP, dtype=torch.float32)
    bench.call(OP, x, counts, out, scale, power)
    present = torch.arange(tokens, device=bench.device)[None, :] < counts[:, None]
    value, wanted = (one[present] for one in expected_groups(x))
    actual = scale[present].to(torch.float64)
    if power:
        check_powers(actual, wanted)
    else:
        bench.close("scale", actual, wanted, Tolerance(2 * 2.0**-8))
    bench.stepped("quantised", out[present], requantised(value, actual), Steps(1, 0.02))
    absent = bench.poisoned(experts, tokens, size, dtype=E4M3)
    bench.equal("rows without a token", out[~present], absent[~present])
    assert scale[~present].isnan().all()


def test_persistent_with_tiny_groups(bench: Bench) -> None:
    """Groups of zeros, and of values below the least maximum, get the scale of that."""
    x, counts = masked(bench, 2, 4, 512, [4, 4])
    x[0, :, :] = 0.0
    x[1] *= 1e-6
    out = bench.poisoned(2, 4, 512, dtype=E4M3)
    scale = bench.poisoned(2, 4, 4, dtype=torch.float32)
    bench.call(OP, x, counts, out, scale, False)
    value, wanted = expected_groups(x)
    bench.close("scale", scale, wanted, Tolerance(2 * 2.0**-8))
    bench.stepped("quantised", out, requantised(value, scale.to(torch.float64)), Steps(1, 0.02))


@pytest.mark.parametrize("power", [False, True], ids=["float-scale", "power-of-two"])
def test_persistent_with_nan_and_infinity(bench: Bench, power: bool) -> None:
    """They stay in their group; what they become there is for upstream to say."""
    x, counts = masked(bench, 2, 8, 512, [8, 5])
    x[0, 2, 130], x[1, 1, 5], x[1, 3, 700] = float("nan"), float("inf"), float("-inf")
    out = bench.poisoned(2, 8, 512, dtype=E4M3)
    scale = bench.poisoned(2, 8, 4, dtype=torch.float32)
    bench.call(OP, x, counts, out, scale, power)
    present = torch.arange(8, device=bench.device)[None, :] < counts[:, None]
    touched = ~torch.isfinite(gated(x).unflatten(-1, (-1, GROUP))).all(-1)
    value, _ = expected_groups(x)
    others = present.unsqueeze(-1) & ~touched
    wanted = requantised(value, scale.to(torch.float64)).unflatten(-1, (-1, GROUP))
    mine = out.unflatten(-1, (-1, GROUP))
    bench.stepped("other groups", mine[others], wanted[others], Steps(1, 0.02))


def check_powers(actual: torch.Tensor, wanted: torch.Tensor) -> None:
    """Each scale is the power of two from the float one on; beside one, bf16's log decides."""
    mantissa, exponent = torch.frexp(actual)
    assert (mantissa == 0.5).all(), "a scale is no power of two"
    exponent = exponent - 1
    upper = torch.ceil(torch.log2(wanted))
    near = (torch.log2(wanted) - torch.log2(wanted).round()).abs() < 0.04
    wrong = (exponent != upper) & ~(near & ((exponent - upper).abs() <= 1))
    assert not wrong.any(), f"{int(wrong.sum())} scales are another power of two"


@pytest.mark.parametrize("sizes", [(3, 12, 1024), (5, 20, 2560), (2, 64, 8192)], ids=str)
def test_persistent_with_packed_scales(bench: Bench, sizes: tuple[int, int, int]) -> None:
    """Four exponents in an int32, tokens before groups, as DeepGEMM reads them."""
    experts, tokens, size = sizes
    x, counts = masked(bench, experts, tokens, size)
    counts[0] = tokens
    groups = size // GROUP
    packs = -(-groups // 4)
    out = bench.poisoned(experts, tokens, size, dtype=E4M3)
    home = bench.poisoned(experts, packs, tokens, dtype=torch.int32)
    packed = home.transpose(1, 2)
    bench.call(OP, x, counts, out, packed, True)
    present = torch.arange(tokens, device=bench.device)[None, :] < counts[:, None]
    codes = home.view(torch.uint8).reshape(experts, packs, tokens, 4).permute(0, 2, 1, 3)
    codes = codes.reshape(experts, tokens, -1)[..., :groups]
    value, wanted = (one[present] for one in expected_groups(x))
    # The code is the exponent of a float32 with its bias.
    actual = (codes[present].to(torch.int32) << 23).view(torch.float32).to(torch.float64)
    check_powers(actual, wanted)
    bench.stepped("quantised", out[present], requantised(value, actual), Steps(1, 0.02))


@pytest.mark.parametrize("op", ["plain", "persistent"])
def test_speed(bench: Bench, op: str) -> None:
    if op == "plain":
        x = bench.normal(8192, 2 * 8192, dtype=torch.bfloat16)
        out = torch.empty(8192, 8192, dtype=E4M3, device=bench.device)
        scale = torch.ones(1, device=bench.device)
        bench.speed("_C::silu_and_mul_quant", out, x, scale, what="8192 x 8192 bf16")
        return
    x, counts = masked(bench, 32, 512, 7168, [400] * 32)
    out = torch.empty(32, 512, 7168, dtype=E4M3, device=bench.device)
    scale = torch.ones(32, 512, 56, device=bench.device)
    bench.speed(OP, x, counts, out, scale, False, what="32 x 400 x 7168 bf16")
