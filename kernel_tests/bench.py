"""What a case works with: fresh inputs, poisoned outputs, both builds, comparisons, a stopwatch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kernel_tests.numeric import Steps, Tolerance, steps_apart

_SAMPLES = 60  # of each build, interleaved
_SAMPLE_SECONDS = 400e-6  # a sample is as many launches as fill this
_MOST_LAUNCHES = 64
_POISON = 0xA5

Arguments = Sequence[Any]


@dataclass(frozen=True)
class Check:
    """One comparison: how far off, in units of what is allowed (1 is the limit)."""

    what: str
    error: float
    allowed: str


@dataclass(frozen=True)
class Timing:
    """Medians in microseconds of patched, upstream, and upstream a second time."""

    op: str
    what: str
    patched: float
    upstream: float
    again: float


@dataclass
class Bench:
    """One case's hands: it makes inputs with its own seed and calls ops of both builds.

    `sides` are the prefixes of the libraries: the patched ones carry upstream's names, and
    upstream's build, where there is one, is the second.
    """

    device: torch.device
    seed: int
    sides: tuple[str, ...] = ("",)
    measure: bool = False
    checks: list[Check] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device).manual_seed(self.seed)

    # inputs and outputs

    def normal(
        self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> torch.Tensor:
        value = torch.randn(shape, generator=self.generator, device=self.device)
        return (value * scale).to(dtype)

    def uniform(
        self, *shape: int, low: float, high: float, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        value = torch.rand(shape, generator=self.generator, device=self.device)
        return (value * (high - low) + low).to(dtype)

    def integers(
        self, *shape: int, low: int, high: int, dtype: torch.dtype = torch.int64
    ) -> torch.Tensor:
        """Integers in [low, high)."""
        value = torch.randint(low, high, shape, generator=self.generator, device=self.device)
        return value.to(dtype)

    def permutation(self, count: int) -> torch.Tensor:
        return torch.randperm(count, generator=self.generator, device=self.device)

    def poisoned(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """An output that shows what was not written: NaN, or bytes that no kernel writes."""
        value = torch.empty(shape, dtype=dtype, device=self.device)
        if dtype.is_floating_point and dtype.itemsize > 1:
            return value.fill_(float("nan"))
        value.view(torch.uint8).fill_(0x7F if dtype.is_floating_point else _POISON)
        return value

    def to_device(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.device)

    # the ops

    def call(
        self,
        op: str,
        *arguments: Any,
        alike: Callable[[torch.Tensor], torch.Tensor] | None = None,
        compare: bool = True,
    ) -> Any:
        """Run `op` (`library::name`) on both builds; the patched build's result and arguments.

        Every tensor must be the same in both, bit for bit, or after `alike` where the order of
        the result is free; `compare=False` is for ops that add in no fixed order.
        """
        copies = _copied(arguments) if len(self.sides) > 1 else ()
        result = _op(op, self.sides[0])(*arguments)
        if copies:
            other = _op(op, self.sides[1])(*copies)
            self._synchronise()
            if compare:
                self._same(op, (*arguments, result), (*copies, other), alike)
        self._synchronise()
        return result

    def nothing_to_do(self, op: str, *arguments: Any, upstream: str) -> None:
        """Run `op` with no rows, on both builds: what `upstream` says happens, and no more.

        `runs`, `refuses`, or `launches an empty grid`, which CUDA takes for an error; a kernel
        without a check of its own leaves that for the next one to report, which is here.
        """
        for side in self.sides:
            said = _outcome(_op(op, side), _copied(arguments), self.device)
            assert said == upstream, f"{op} {said} with nothing to do; upstream's {upstream}"
        self._note(f"{op} with nothing to do: {upstream}", 0.0, "as upstream's")

    def speed(self, op: str, *arguments: Any, what: str) -> None:
        """Time `op` on both builds, interleaved, if this run measures and has both."""
        if not self.measure or len(self.sides) < 2:
            return
        runs = [
            _replayed(_op(op, side), _copied(arguments))
            for side in (self.sides[0], self.sides[1], self.sides[1])
        ]
        samples: list[list[float]] = [[], [], []]
        for number in range(_SAMPLES):
            order = [0, 1, 2] if number % 2 else [2, 1, 0]
            for index in order:
                samples[index].append(runs[index]())
        self.timings.append(Timing(op, what, *(statistics.median(one) for one in samples)))

    # comparisons

    def close(
        self, what: str, actual: torch.Tensor, expected: torch.Tensor, allowed: Tolerance
    ) -> None:
        """Compare with the float64 `expected`; infinities and NaN must be in the same places."""
        actual, expected = actual.to(torch.float64), expected.to(torch.float64)
        assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
        special = ~torch.isfinite(expected)
        wrong = special & ~((actual == expected) | (actual.isnan() & expected.isnan()))
        assert not wrong.any(), f"{what}: {int(wrong.sum())} special values differ"
        limit = allowed.absolute + allowed.relative * expected.abs()
        difference = (actual - expected).abs() / limit
        difference = difference.masked_fill(special, 0.0).nan_to_num(nan=float("inf"))
        self._note(what, float(difference.max()) if difference.numel() else 0.0, str(allowed))

    def stepped(
        self, what: str, actual: torch.Tensor, expected: torch.Tensor, allowed: Steps
    ) -> None:
        """Compare 8-bit values by the steps between them."""
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
        apart = steps_apart(actual, expected)
        if not apart.numel():
            return
        # One element that lies on a tie is no share of a tiny tensor.
        share = max(int((apart > 0).sum()) - 1, 0) / apart.numel()
        self._note(what, max(int(apart.max()) / allowed.most, share / allowed.share), str(allowed))

    def equal(self, what: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
        """Compare bit for bit."""
        assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
        differing = int((_bits(actual) != _bits(expected)).sum())
        self._note(what, 0.0 if not differing else float("inf"), "the same bits")

    def _note(self, what: str, error: float, allowed: str) -> None:
        self.checks.append(Check(what, error, allowed))
        assert error <= 1.0, (
            f"{what}: off by {error:.4g} of the allowed {allowed} (seed {self.seed})"
        )

    def _same(
        self,
        op: str,
        ours: Arguments,
        theirs: Arguments,
        alike: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        for one, other in zip(ours, theirs, strict=True):
            if not isinstance(one, torch.Tensor):
                continue
            if alike is not None:
                one, other = alike(one), alike(other)  # noqa: PLW2901
            self.equal(f"{op}: bits of upstream's build", one, other)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _op(name: str, prefix: str) -> Callable[..., Any]:
    library, _, op = name.partition("::")
    found: Callable[..., Any] = getattr(getattr(torch.ops, prefix + library), op)
    return found


def _copied(arguments: Arguments) -> list[Any]:
    """The arguments with tensors of their own, alike in strides and in what they share."""
    storages: dict[int, torch.UntypedStorage] = {}

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        storage = value.untyped_storage()
        if storage.data_ptr() not in storages:
            storages[storage.data_ptr()] = storage.clone()
        empty = torch.empty(0, dtype=value.dtype, device=value.device)
        return empty.set_(
            storages[storage.data_ptr()], value.storage_offset(), value.size(), value.stride()
        )

    return [copy(value) for value in arguments]


def _outcome(op: Callable[..., Any], arguments: Arguments, device: torch.device) -> str:
    try:
        op(*arguments)
        torch.ones(1, device=device)
    except (RuntimeError, ValueError, IndexError) as error:
        return "launches an empty grid" if "invalid configuration" in str(error) else "refuses"
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return "runs"


def _replayed(op: Callable[..., Any], arguments: Arguments) -> Callable[[], float]:
    """A function that runs `op` often enough to be timed, and gives microseconds for one."""
    for _ in range(3):
        op(*arguments)
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(5):
        op(*arguments)
    end.record()
    end.synchronize()
    launches = max(1, min(_MOST_LAUNCHES, int(_SAMPLE_SECONDS * 5e3 / begin.elapsed_time(end))))

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            op(*arguments)

    def sample() -> float:
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e3 / launches

    sample()
    return sample


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)
