from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench

OP = "_C::probe_next_pow_2"
LAST = 1 << 31  # above, the result does not fit the type and upstream's is undefined


def expected(values: torch.Tensor) -> torch.Tensor:
    """The least power of two that is not below the value; zero stays."""
    return torch.tensor(
        [value if value <= 1 else 1 << (value - 1).bit_length() for value in values.tolist()],
        dtype=torch.int64,
        device=values.device,
    )


@pytest.mark.parametrize("where", ["host", "device"])
def test_powers_and_their_neighbours(bench: Bench, where: str) -> None:
    near = {(1 << bit) + step for bit in range(32) for step in (-2, -1, 0, 1, 2)}
    values = torch.tensor(sorted(value for value in near if 0 <= value <= LAST))
    check(bench, values, where)


@pytest.mark.parametrize("where", ["host", "device"])
def test_small_and_random_values(bench: Bench, where: str) -> None:
    check(bench, torch.arange(70_000), where)
    check(bench, bench.integers(100_000, low=0, high=LAST + 1), where)
    check(bench, torch.empty(0, dtype=torch.int64), where)


def test_whole_range_on_the_device(bench: Bench) -> None:
    """Every argument up to 2**31, in parts."""
    part = 1 << 27
    for first in range(0, LAST, part):
        values = torch.arange(first, first + part, device=bench.device)
        bench.call(OP, values)
        argument = torch.arange(first, first + part, device=bench.device)
        power = torch.exp2(torch.ceil(torch.log2(argument.to(torch.float64)))).to(torch.int64)
        wanted = torch.where(argument <= 1, argument, power)
        assert torch.equal(values, wanted), f"wrong in {first}…"


def check(bench: Bench, values: torch.Tensor, where: str) -> None:
    there = values.to(bench.device if where == "device" else "cpu").clone()
    wanted = expected(there)
    bench.call(OP, there)
    bench.equal(f"on the {where}", there, wanted)
