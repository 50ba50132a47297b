from __future__ import annotations

import pytest
import torch

from kernel_tests.bench import Bench
from kernel_tests.numeric import ROUNDING, Tolerance
from kernel_tests.references.experts import aligned

# Fewer than 1024 choices and 64 experts at most take a kernel of their own.
SIZES = [
    (0, 2, 8),
    (1, 1, 1),
    (1, 2, 8),
    (3, 5, 7),
    (13, 3, 64),
    (128, 8, 64),
    (200, 8, 128),
    (2000, 6, 160),
    (4096, 2, 8),
]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("block", [1, 4, 16, 64, 128])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_align(bench: Bench, sizes: tuple[int, int, int], block: int, dtype: torch.dtype) -> None:
    """Each expert's tokens fill blocks of one size; within an expert their order is free."""
    tokens, chosen, experts = sizes
    scores = bench.uniform(tokens, max(experts, chosen), low=0.0, high=1.0)
    choices = (scores.topk(chosen, dim=1).indices % experts).to(dtype)
    most = choices.numel() + experts * (block - 1)
    sorted_ids = bench.poisoned(most, dtype=torch.int32)
    owners = bench.poisoned(-(-most // block), dtype=torch.int32)
    count = bench.poisoned(1, dtype=torch.int32)
    op = "_moe_C::moe_align_block_size"
    bench.call(op, choices, experts, block, sorted_ids, owners, count, None, compare=False)
    wanted = aligned(choices, experts, block)
    total = wanted.tokens.numel()
    assert int(count) == total
    used = total // block
    bench.equal("experts", owners[:used].cpu(), wanted.experts)
    by_expert = sorted_ids[:total].cpu().reshape(used, block)
    reference = wanted.tokens.reshape(used, block)
    for expert in range(experts):
        mine = wanted.experts == expert
        bench.equal(
            "tokens of an expert",
            by_expert[mine].reshape(-1).sort().values,
            reference[mine].reshape(-1).sort().values,
        )
    # What lies behind the last block reads as padding.
    assert (sorted_ids[total:] == choices.numel()).all()


@pytest.mark.parametrize(
    "sizes", [(1, 8, 4), (3, 0, 16), (5, 33, 16), (64, 256, 64), (300, 70, 128)], ids=str
)
def test_batched_align(bench: Bench, sizes: tuple[int, int, int]) -> None:
    """Tokens of a batch each: batch b has ids from b * most on."""
    batches, most, block = sizes
    counts = bench.integers(batches, low=0, high=most + 1, dtype=torch.int32)
    room = -(-most // block) * block
    ids = bench.poisoned(batches * room, dtype=torch.int32)
    owners = bench.poisoned(batches * room // block, dtype=torch.int32)
    total = bench.poisoned(1, dtype=torch.int32)
    bench.call("_moe_C::batched_moe_align_block_size", most, block, counts, ids, owners, total)
    padding = batches * most
    wanted: list[int] = []
    experts: list[int] = []
    for batch, count in enumerate(counts.tolist()):
        blocks = -(-count // block)
        wanted += [batch * most + i for i in range(count)] + [padding] * (blocks * block - count)
        experts += [batch] * blocks
    assert int(total) == len(wanted)
    wanted += [padding] * (ids.numel() - len(wanted))
    experts += [-1] * (owners.numel() - len(experts))
    bench.equal("ids", ids.cpu(), torch.tensor(wanted, dtype=torch.int32))
    bench.equal("experts", owners.cpu(), torch.tensor(experts, dtype=torch.int32))


def test_no_tokens_for_many_experts(bench: Bench) -> None:
    """The kernel for many experts sorts in a second launch, whose grid is empty."""
    choices = torch.empty(0, 2, dtype=torch.int32, device=bench.device)
    outputs = [bench.poisoned(size, dtype=torch.int32) for size in (256, 64, 1)]
    arguments = (choices, 128, 4, *outputs, None)
    name = "_moe_C::moe_align_block_size"
    bench.nothing_to_do(name, *arguments, upstream="launches an empty grid")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chosen", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("sizes", [(1, 1), (7, 33), (65, 1500)], ids=str)
def test_sum(bench: Bench, sizes: tuple[int, int], chosen: int, dtype: torch.dtype) -> None:
    """The sum over the experts of a token; NaN and infinity stay where they are."""
    tokens, size = sizes
    x = bench.normal(tokens, chosen, size, dtype=dtype)
    if tokens > 1:
        x[1, 0, 3], x[2, chosen - 1, 4] = float("nan"), float("inf")
    out = bench.poisoned(tokens, size, dtype=dtype)
    bench.call("_moe_C::moe_sum", x, out)
    # Each addition is rounded to the type at most.
    limit = Tolerance(ROUNDING[dtype], chosen * 5 * ROUNDING[dtype])
    bench.close("sum", out, x.to(torch.float64).sum(1), limit)


def test_speed(bench: Bench) -> None:
    choices = bench.integers(8192, 8, low=0, high=128, dtype=torch.int32)
    most = choices.numel() + 128 * 63
    outputs = [
        torch.empty(size, dtype=torch.int32, device=bench.device)
        for size in (most, most // 64 + 1, 1)
    ]
    arguments = (choices, 128, 64, *outputs, None)
    bench.speed("_moe_C::moe_align_block_size", *arguments, what="8192 x 8 of 128, blocks of 64")
