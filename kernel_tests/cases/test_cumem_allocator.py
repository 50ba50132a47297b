from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch

from kernel_tests.bench import Bench

MIB = 1 << 20


class Memory:
    """What vLLM keeps beside the allocator: the handle of each piece, by its address.

    The allocator holds the callbacks without owning them, so this lives as long as the process.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.pieces: dict[int, tuple[int, int, int, int]] = {}
        self._callbacks = (self._taken, self._freed)
        module.init_module(*self._callbacks)

    def _taken(self, handle: tuple[int, int, int, int]) -> None:
        self.pieces[handle[2]] = handle

    def _freed(self, address: int) -> tuple[int, int, int, int]:
        return self.pieces.pop(address)

    @contextmanager
    def used(self) -> Iterator[Any]:
        """Allocations of torch inside come from the allocator."""
        file = self.module.__file__
        allocator = torch.cuda.memory.CUDAPluggableAllocator(file, "my_malloc", "my_free")
        pool = torch.cuda.MemPool(allocator.allocator())
        with torch.cuda.use_mem_pool(pool):
            yield pool, allocator

    def sleep(self) -> None:
        for handle in self.pieces.values():
            self.module.python_unmap_and_release(*handle)

    def wake(self) -> None:
        for handle in self.pieces.values():
            self.module.python_create_and_map(*handle)


_MEMORIES: dict[str, Memory] = {}


@pytest.fixture
def memory(modules: tuple[ModuleType | None, ...]) -> Memory:
    """The allocator with nothing allocated."""
    module = modules[0]
    assert module is not None
    name = str(module.__file__)
    if name not in _MEMORIES:
        _MEMORIES[name] = Memory(module)
    found = _MEMORIES[name]
    settle()
    assert not found.pieces
    return found


def settle() -> None:
    """Let torch give back what nobody uses."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def free_bytes() -> int:
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


def test_allocate_sleep_wake(bench: Bench, memory: Memory) -> None:
    """Memory given back while asleep is there again at the same address."""
    size = 256 * MIB
    with memory.used() as keep:
        x = torch.full((size,), 7, dtype=torch.uint8, device=bench.device)
    assert len(memory.pieces) == 1
    address, before = x.data_ptr(), free_bytes()
    memory.sleep()
    assert free_bytes() - before >= size, "sleep gives the memory back"
    memory.wake()
    assert before - free_bytes() <= MIB, "wake takes no more than there was"
    x.fill_(9)
    assert x.data_ptr() == address
    assert int(x.to(torch.int64).sum()) == 9 * size
    del keep


@pytest.mark.parametrize("size", [1, 511, 2 * MIB, 2 * MIB + 1, 100 * MIB + 12345])
def test_sizes(bench: Bench, memory: Memory, size: int) -> None:
    """A piece holds what was asked for and is a multiple of the device's granularity."""
    with memory.used() as keep:
        x = bench.integers(size, low=0, high=255, dtype=torch.int32).to(torch.uint8)
    copy = x.clone()
    bench.equal("contents", x, copy)
    assert all(piece[1] % (2 * MIB) == 0 for piece in memory.pieces.values())
    assert any(piece[2] <= x.data_ptr() < piece[2] + piece[1] for piece in memory.pieces.values())
    del keep


def test_nothing_is_taken_for_nothing(bench: Bench, memory: Memory) -> None:
    with memory.used() as keep:
        x = torch.empty(0, device=bench.device)
    assert not memory.pieces and x.numel() == 0
    del keep


def test_more_than_a_32_bit_size(bench: Bench, memory: Memory) -> None:
    """A piece of 5 GiB, of which the end is used."""
    size = 5 << 30
    with memory.used() as keep:
        x = torch.empty(size, dtype=torch.uint8, device=bench.device)
    x[-MIB:] = 3
    assert int(x[-MIB:].sum()) == 3 * MIB
    assert max(piece[1] for piece in memory.pieces.values()) >= size
    del keep


def test_nothing_leaks(bench: Bench, memory: Memory) -> None:
    """Pieces that are freed are really gone, round after round."""
    del bench
    base = 0
    for turn in range(6):
        with memory.used() as keep:
            x = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
            memory.sleep()
            memory.wake()
        del x, keep
        settle()
        if turn == 0:
            base = free_bytes()
    assert not memory.pieces
    assert base - free_bytes() <= 4 * MIB


def test_wrong_arguments_are_errors(memory: Memory) -> None:
    for call in (memory.module.python_create_and_map, memory.module.python_unmap_and_release):
        with pytest.raises(TypeError, match="tuple of size 4"):
            call(1, 2)
