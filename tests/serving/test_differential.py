"""The launcher answers as `vllm serve` of the same version does, field by field."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving.engines import LEAN, PINNED, UPSTREAMS_SERVER, Engine, ServerProcess
from serving.shapes import EMBEDDING_SHAPES, REASONING_SHAPES, SHAPES, Shape, ask

Pair = tuple[ServerProcess, ServerProcess]
FAULTS = {"/v1/chat/completions a list"}
"""What 0.14.1 answers with 500."""
FATAL = {"text negative token"}
"""What ends the engine of 0.14.1, upstream's as well as ours."""


def test_there_are_shapes_enough() -> None:
    names = [shape.name for shape in SHAPES]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_chat_model(engine: Engine, chat_pair: Pair, shape: Shape) -> None:
    pinned = engine.version == PINNED
    if pinned and shape.name in FATAL:
        pytest.skip("vLLM 0.14.1 does not survive it")
    ours, theirs = (ask(server, shape) for server in chat_pair)
    assert ours == theirs
    assert ours[0] < 500 or ours[0] == 501 or (pinned and shape.name in FAULTS)


@pytest.mark.parametrize(
    ("model", "options", "shapes"),
    [
        ("embedding", ("--max-model-len", "512"), EMBEDDING_SHAPES),
        ("chat", ("--max-model-len", "512", "--reasoning-parser", "deepseek_r1"), REASONING_SHAPES),
    ],
    ids=["embedding", "reasoning"],
)
def test_other_models(
    engine: Engine, tmp_path: Path, model: str, options: tuple[str, ...], shapes: list[Shape]
) -> None:
    with (
        engine.server(tmp_path / "ours", model, *options) as ours,
        engine.server(
            tmp_path / "theirs", model, *options, module=UPSTREAMS_SERVER, extra=LEAN
        ) as theirs,
    ):
        ours.wait_ready(), theirs.wait_ready()
        for shape in shapes:
            assert ask(ours, shape) == ask(theirs, shape), shape.name
