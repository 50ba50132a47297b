from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import E4M3, Steps, Tolerance
from kernel_tests.references.quantisation import by_group, dynamic_scale, quantised

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 1), (1, 16), (7, 33), (3, 1027), (128, 256), (83, 4096), (4096, 5120)]
ALMOST = Steps(1, 0.001)
# A scale made of the largest value puts up to one in 16 of bf16's few values on a tie of e4m3, and
# float32's rounding of the scale decides for half of them.
LOOSER = Steps(1, 0.05)
SCALE = Tolerance(4 * 2.0**-24)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_static_per_tensor(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = bench.normal(*shape, dtype=dtype, scale=3.0)
    scale = bench.uniform(1, low=0.002, high=0.05)
    out = bench.poisoned(*shape, dtype=E4M3)
    bench.call("_C::static_scaled_fp8_quant", out, x, scale, None)
    bench.stepped("quantised", out, quantised(x, scale, E4M3), ALMOST)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "group", [(1, -1), (-1, 1), (1, 8), (1, 128), (16, 16), (128, 128)], ids=str
)
def test_static_groups(bench: Bench, group: tuple[int, int], dtype: torch.dtype) -> None:
    rows, columns = 256, 1024
    shape = (rows if group[0] == -1 else group[0], columns if group[1] == -1 else group[1])
    x = bench.normal(rows, columns, dtype=dtype)
    scale = bench.uniform(rows // shape[0], columns // shape[1], low=0.002, high=0.05)
    out = bench.poisoned(rows, columns, dtype=E4M3)
    flat = -1 in group
    bench.call(
        "_C::static_scaled_fp8_quant", out, x, scale.reshape(-1) if flat else scale,
        group if flat else None,
    )  # fmt: skip
    bench.stepped("quantised", out, quantised(x, by_group(x, scale, shape), E4M3), ALMOST)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic_per_tensor(bench: Bench, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = bench.normal(*shape, dtype=dtype, scale=10.0)
    out, scale = bench.poisoned(*shape, dtype=E4M3), bench.poisoned(1, dtype=torch.float32)
    bench.call("_C::dynamic_scaled_fp8_quant", out, x, scale)
    expected = x.to(torch.float64).abs().max().reshape(1) / 448.0
    bench.close("scale", scale, expected, SCALE)
    bench.stepped("quantised", out, quantised(x, expected, E4M3), LOOSER)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limit", [None, 2.5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic_per_token(
    bench: Bench, shape: tuple[int, int], limit: float | None, dtype: torch.dtype
) -> None:
    x = bench.normal(*shape, dtype=dtype, scale=4.0)
    x[0] = 0.0  # the scale of zeros is the least there is
    upper = None if limit is None else torch.tensor([limit], device=bench.device)
    out = bench.poisoned(*shape, dtype=E4M3)
    scale = bench.poisoned(shape[0], 1, dtype=torch.float32)
    bench.call("_C::dynamic_per_token_scaled_fp8_quant", out, x, scale, upper)
    expected = dynamic_scale(x, E4M3, limit=upper)
    bench.close("scale", scale, expected, SCALE)
    bench.stepped("quantised", out, quantised(x, expected, E4M3), LOOSER)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_limits_of_the_format(bench: Bench, dtype: torch.dtype) -> None:
    """Beyond the largest value the result saturates, infinities too; ties go to even."""
    values = [448.0, 449.0, 1000.0, float("inf"), -448.0, -5e4, float("-inf"), 0.0, -0.0,
              1.0625, 1.1875, 2.0**-9, 2.0**-10, 3 * 2.0**-10, 17.0, 19.0]  # fmt: skip
    x = torch.tensor([values], device=bench.device).to(dtype)
    scale = torch.ones(1, device=bench.device)
    out = bench.poisoned(*x.shape, dtype=E4M3)
    bench.call("_C::static_scaled_fp8_quant", out, x, scale, None)
    bench.equal("quantised", out, _signed_zero(quantised(x, scale, E4M3), x))


def test_nan_goes_where_upstream_puts_it(bench: Bench) -> None:
    """No definition says what NaN becomes; the patched kernel must do as upstream's."""
    x = bench.normal(64, 256, dtype=torch.bfloat16)
    x[::3, ::7] = float("nan")
    out, scale = bench.poisoned(64, 256, dtype=E4M3), torch.full((1,), 0.01, device=bench.device)
    bench.call("_C::static_scaled_fp8_quant", out, x, scale, None)
    row_scale = bench.poisoned(64, 1, dtype=torch.float32)
    bench.call("_C::dynamic_per_token_scaled_fp8_quant", out, x, row_scale, None)


@pytest.mark.parametrize("op", ["static", "dynamic", "dynamic_per_token"])
def test_no_rows(bench: Bench, op: str) -> None:
    x, out = bench.normal(0, 64), bench.poisoned(0, 64, dtype=E4M3)
    scale = torch.ones(0 if op == "dynamic_per_token" else 1, 1, device=bench.device)
    arguments = (out, x, scale) if op == "dynamic" else (out, x, scale, None)
    name = f"_C::{op}_scaled_fp8_quant"
    bench.nothing_to_do(name, *arguments, upstream="launches an empty grid")


def test_infinity_goes_where_upstream_puts_it(bench: Bench) -> None:
    """A scale made of an infinity: infinity over infinity is for upstream to say."""
    x = bench.normal(64, 256, dtype=torch.float16)
    x[3, 7], x[9, 0] = float("inf"), float("-inf")
    out, scale = bench.poisoned(64, 256, dtype=E4M3), bench.poisoned(1, dtype=torch.float32)
    bench.call("_C::dynamic_scaled_fp8_quant", out, x, scale)
    assert scale.isinf()
    row_scale = bench.poisoned(64, 1, dtype=torch.float32)
    bench.call("_C::dynamic_per_token_scaled_fp8_quant", out, x, row_scale, None)
    assert row_scale.isinf().flatten().nonzero().flatten().tolist() == [3, 9]


def test_rows_of_a_wider_tensor(bench: Bench) -> None:
    """Rows may lie apart in memory; the gaps are not written."""
    wide = bench.normal(40, 512, dtype=torch.bfloat16)
    x = wide[:, 128:384]
    home = bench.poisoned(40, 512, dtype=E4M3)
    out, scale = home[:, :256], bench.poisoned(40, 1, dtype=torch.float32)
    bench.call("_C::dynamic_per_token_scaled_fp8_quant", out, x, scale, None)
    bench.stepped("quantised", out.contiguous(), quantised(x, dynamic_scale(x, E4M3), E4M3), LOOSER)
    bench.equal("gap", home[:, 256:], bench.poisoned(40, 256, dtype=E4M3))


@pytest.mark.parametrize("op", ["static", "dynamic", "per-token"])
def test_speed(bench: Bench, op: str) -> None:
    x = bench.normal(8192, 8192, dtype=torch.bfloat16)
    out = torch.empty(x.shape, dtype=E4M3, device=bench.device)
    scale = torch.ones(8192 if op == "per-token" else 1, 1, device=bench.device)
    what = "8192 x 8192 bf16"
    if op == "static":
        bench.speed("_C::static_scaled_fp8_quant", out, x, scale, None, what=what)
    elif op == "dynamic":
        bench.speed("_C::dynamic_scaled_fp8_quant", out, x, scale, what=what)
    else:
        bench.speed("_C::dynamic_per_token_scaled_fp8_quant", out, x, scale, None, what=what)


def _signed_zero(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Zeros with the sign of what was quantised, which is lost in float64's ordering."""
    code = value.view(torch.uint8)
    zero = (code & 0x7F) == 0
    return torch.where(zero, torch.signbit(like).to(torch.uint8) * 0x80, code).view(E4M3)
