"""The hands of a case on the CPU, with ops of torch's own; they need torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from kernel_tests.bench import Bench  # noqa: E402


@pytest.fixture
def bench() -> Iterator[Any]:
    """Both builds with ops that run, refuse, and leave an error as an empty grid does."""

    def refuses(x: Any) -> None:
        raise RuntimeError("x has no rows")

    def empty(x: Any) -> None:
        raise RuntimeError("CUDA error: invalid configuration argument\nSearch for it")

    libraries = []
    for prefix in ("", "upstream"):
        library = torch.library.Library(f"{prefix}bench_test", "FRAGMENT")
        for name, op in {"runs": lambda x: None, "refuses": refuses, "empty": empty}.items():
            library.define(f"{name}(Tensor x) -> ()")
            library.impl(name, op, "CPU")
        other = refuses if prefix else (lambda x: None)
        library.define("differs(Tensor x) -> ()")
        library.impl("differs", other, "CPU")
        libraries.append(library)
    yield Bench(torch.device("cpu"), 1, ("", "upstream"))
    for library in libraries:
        library._destroy()


@pytest.mark.parametrize(
    ("op", "said"),
    [("runs", "runs"), ("refuses", "refuses"), ("empty", "launches an empty grid")],
)
def test_nothing_to_do_is_as_upstream_does_it(bench: Any, op: str, said: str) -> None:
    x = torch.empty(0, 4)
    bench.nothing_to_do(f"bench_test::{op}", x, upstream=said)
    assert bench.checks[-1].allowed == "as upstream's"
    for other in {"runs", "refuses", "launches an empty grid"} - {said}:
        with pytest.raises(AssertionError, match=f"{said} with nothing to do, not {other}"):
            bench.nothing_to_do(f"bench_test::{op}", x, upstream=other)


def test_nothing_to_do_asks_both_builds(bench: Any) -> None:
    with pytest.raises(AssertionError, match="refuses with nothing to do, not runs: x has no rows"):
        bench.nothing_to_do("bench_test::differs", torch.empty(0, 4), upstream="runs")
