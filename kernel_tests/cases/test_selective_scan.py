from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import ROUNDING, Tolerance
from kernel_tests.references.scan import selective_scan

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OP = "_C::selective_scan_fwd"
PAD = -1
# A block of threads takes 256, 512, 1024 or 2048 steps at once, by the length.
EVEN = [256, 512, 1024, 2048, 4096]
ODD = [1, 3, 100, 300, 777, 1500, 2049, 5000]


@dataclass
class Inputs:
    """Inputs of `batch` sequences of one length, or with `varlen` of all lengths in a row."""

    u: torch.Tensor
    delta: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    d: torch.Tensor | None
    z: torch.Tensor | None
    bias: torch.Tensor | None


def inputs(
    bench: Bench,
    lead: tuple[int, ...],
    dim: int,
    length: int,
    dtype: torch.dtype,
    *,
    states: int = 16,
    groups: int = 1,
    gated: bool = True,
    extras: bool = True,
) -> Inputs:
    def normal(*shape: int) -> torch.Tensor:
        return bench.normal(*lead, *shape, length, dtype=dtype)

    return Inputs(
        u=normal(dim),
        delta=bench.uniform(*lead, dim, length, low=0.0, high=0.5, dtype=dtype),
        a=-bench.uniform(dim, states, low=0.1, high=1.0),
        b=normal(groups, states),
        c=normal(groups, states),
        d=bench.normal(dim) if extras else None,
        z=normal(dim) if gated else None,
        bias=bench.uniform(dim, low=-0.2, high=0.2) if extras else None,
    )


def allowed(dtype: torch.dtype, length: int) -> Tolerance:
    """Decay forgets, so errors do not grow with the length, only float32's in a scan do."""
    return Tolerance(2 * ROUNDING[dtype], 2e-5 + 2 * ROUNDING[dtype] * 1e-2 + 1e-8 * length)


def call(bench: Bench, x: Inputs, state: torch.Tensor, **more: object) -> torch.Tensor:
    """Run the op, which writes its result over `z`, or over `delta` without a gate."""
    options = {
        "query_start_loc": None, "cache_indices": None, "has_initial_state": None,
        "pad_slot_id": PAD, "block_size": 0, "first": None, "last": None, "initial": None, **more,
    }  # fmt: skip
    bench.call(
        OP, x.u, x.delta, x.a, x.b, x.c, x.d, x.z, x.bias, True,
        options["query_start_loc"], options["cache_indices"], options["has_initial_state"],
        state, options["pad_slot_id"], options["block_size"],
        options["first"], options["last"], options["initial"],
    )  # fmt: skip
    return x.delta if x.z is None else x.z


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("length", [*EVEN, *ODD])
def test_fixed_length(bench: Bench, length: int, gated: bool, dtype: torch.dtype) -> None:
    batch, dim, states = 2, 12, 16
    x = inputs(bench, (batch,), dim, length, dtype, gated=gated, groups=2)
    state = bench.normal(batch, dim, states, dtype=torch.float32)
    has_state = torch.tensor([True, False], device=bench.device)
    expected = [
        selective_scan(
            x.u[i], x.delta[i], x.a, x.b[i], x.c[i], d=x.d, z=None if x.z is None else x.z[i],
            delta_bias=x.bias, softplus=True, state=state[i] if has_state[i] else None,
        )
        for i in range(batch)
    ]  # fmt: skip
    out = call(bench, x, state, has_initial_state=has_state)
    limit = allowed(dtype, length)
    bench.close("output", out, torch.stack([one[0] for one in expected]), limit)
    bench.close(
        "state", state, torch.stack([one[1] for one in expected]), allowed(torch.float32, length)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(
    "lengths",
    [
        [256],
        [100, 156],
        [1, 255, 256],
        [512, 1, 511],
        [300, 77, 5],
        [2048, 2048],
        [1, 3000, 40],
        [40, 5, 0, 300],
    ],
    ids=str,
)
def test_variable_length(bench: Bench, lengths: list[int], gated: bool, dtype: torch.dtype) -> None:
    """Sequences in a row, states at cache slots of their own; a padded slot is left alone."""
    dim, states, total = 8, 16, sum(lengths)
    x = inputs(bench, (), dim, total, dtype, gated=gated)
    cache = bench.normal(len(lengths) + 3, dim, states, dtype=dtype)
    slots = bench.permutation(len(lengths) + 3)[: len(lengths)].to(torch.int32)
    padded = len(lengths) > 2
    if padded:
        slots[1] = PAD
    has_state = torch.tensor([i % 2 == 0 for i in range(len(lengths))], device=bench.device)
    starts = torch.tensor([0, *lengths], device=bench.device).cumsum(0).to(torch.int32)
    before = [one.clone() for one in (x.delta if x.z is None else x.z, cache)]
    expected, expected_cache = before[0].to(torch.float64), before[1].to(torch.float64)
    for i, slot in enumerate(slots.tolist()):
        part = slice(int(starts[i]), int(starts[i + 1]))
        if slot == PAD:
            continue
        expected[:, part], expected_cache[slot], _ = selective_scan(
            x.u[:, part], x.delta[:, part], x.a, x.b[..., part], x.c[..., part], d=x.d,
            z=None if x.z is None else x.z[:, part], delta_bias=x.bias, softplus=True,
            state=cache[slot] if has_state[i] else None,
        )  # fmt: skip
    out = call(
        bench, x, cache, query_start_loc=starts, cache_indices=slots, has_initial_state=has_state
    )
    bench.close("output", out, expected, allowed(dtype, total))
    bench.close("states", cache, expected_cache, allowed(dtype, total))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", [[1024], [2500, 1024], [1, 1025, 3000]], ids=str)
def test_states_kept_by_block(bench: Bench, lengths: list[int], dtype: torch.dtype) -> None:
    """With cached prefixes, the state after each 1024 steps goes to a slot of its own."""
    block, dim, states = 1024, 8, 16
    x = inputs(bench, (), dim, sum(lengths), dtype)
    assert x.z is not None
    blocks = [-(-length // block) for length in lengths]
    width = max(blocks) + 1
    slots = bench.permutation(len(lengths) * width).to(torch.int32).reshape(len(lengths), width)
    cache = bench.normal(len(lengths) * width, dim, states, dtype=torch.float32)
    starts = torch.tensor([0, *lengths], device=bench.device).cumsum(0).to(torch.int32)
    has_state = torch.tensor([i % 2 == 0 for i in range(len(lengths))], device=bench.device)
    first = torch.ones(len(lengths), dtype=torch.int32, device=bench.device)
    last = torch.tensor(blocks, dtype=torch.int32, device=bench.device)
    initial = torch.zeros(len(lengths), dtype=torch.int32, device=bench.device)
    expected, expected_cache = x.z.to(torch.float64), cache.to(torch.float64)
    for i in range(len(lengths)):
        part = slice(int(starts[i]), int(starts[i + 1]))
        y, final, kept = selective_scan(
            x.u[:, part], x.delta[:, part], x.a, x.b[..., part], x.c[..., part], d=x.d,
            z=x.z[:, part], delta_bias=x.bias, softplus=True, keep_every=block,
            state=cache[int(slots[i, 0])] if has_state[i] else None,
        )  # fmt: skip
        expected[:, part] = y
        for number, state in enumerate([*kept[: blocks[i] - 1], final]):
            expected_cache[int(slots[i, 1 + number])] = state
    out = call(
        bench, x, cache, query_start_loc=starts, cache_indices=slots, has_initial_state=has_state,
        block_size=block, first=first, last=last, initial=initial,
    )  # fmt: skip
    bench.close("output", out, expected, allowed(dtype, max(lengths)))
    bench.close("states", cache, expected_cache, allowed(torch.float32, max(lengths)))


@pytest.mark.parametrize("states", [1, 8, 128, 256])
def test_state_sizes(bench: Bench, states: int) -> None:
    x = inputs(bench, (1,), 4, 333, torch.float32, states=states, extras=False, gated=False)
    state = torch.zeros(1, 4, states, device=bench.device)
    y, final, _ = selective_scan(x.u[0], x.delta[0], x.a, x.b[0], x.c[0], softplus=True)
    out = call(bench, x, state)
    limit = Tolerance(1e-5, 1e-5 * states**0.5 * 4)
    bench.close("output", out[0], y, limit)
    bench.close("state", state[0], final, limit)


def test_nan_spreads_as_upstreams(bench: Bench) -> None:
    x = inputs(bench, (2,), 8, 700, torch.bfloat16)
    x.u[0, 3, 100], x.u[1, 2, 5] = float("nan"), float("inf")
    call(bench, x, torch.zeros(2, 8, 16, device=bench.device))


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_no_steps_leave_the_state(bench: Bench, gated: bool) -> None:
    x = inputs(bench, (2,), 8, 0, torch.bfloat16, gated=gated)
    state = bench.normal(2, 8, 16)
    before = state.clone()
    call(bench, x, state)
    bench.equal("state", state, before)


def test_no_sequences(bench: Bench) -> None:
    x = inputs(bench, (0,), 8, 64, torch.bfloat16)
    state = bench.normal(0, 8, 16)
    arguments = (x.u, x.delta, x.a, x.b, x.c, x.d, x.z, x.bias, True, None, None, None, state)
    more = (PAD, 0, None, None, None)
    bench.nothing_to_do(OP, *arguments, *more, upstream="launches an empty grid")


@pytest.mark.parametrize("length", [2048, 4000])
def test_speed(bench: Bench, length: int) -> None:
    x = inputs(bench, (8,), 1024, length, torch.bfloat16)
    state = torch.zeros(8, 1024, 16, device=bench.device)
    arguments = (x.u, x.delta, x.a, x.b, x.c, x.d, x.z, x.bias, True, None, None, None, state)
    what = f"8 x 1024 x {length} bf16"
    bench.speed(OP, *arguments, PAD, 0, None, None, None, what=what)
