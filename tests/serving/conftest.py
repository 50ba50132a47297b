"""Servers shared by the tests of the launcher; those that use one are marked `engine` by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving.engines import NoEngine, ServerProcess, engine_python, make_models
from serving.shapes import KEY, MODEL

NEWEST = "0.32.0"
UPSTREAMS_SERVER = "vllm.entrypoints.openai.api_server"
COMMON: list[str | Path] = [
    *("--host", "127.0.0.1", "--served-model-name", MODEL, "--api-key", KEY),
    *("--enforce-eager", "--max-num-seqs", "64", "--gpu-memory-utilization", "0.6"),
]
ENGINE_FIXTURES = {"engine", "launched", "chat_pair"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ENGINE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.engine)
            # One worker of a parallel run starts the servers, not each of them.
            item.add_marker(pytest.mark.xdist_group("engine"))


@dataclass(frozen=True)
class Engine:
    """An environment with a vLLM, and tiny models for it."""

    version: str
    python: Path
    models: Path

    def server(self, log: Path, model: str, *options: str | Path, **named: object) -> ServerProcess:
        """Start a server (`module` names another one than the launcher)."""
        arguments = ["--model", self.models / model, *COMMON, *options]
        return ServerProcess(self.python, arguments, log, **named)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        python = engine_python(NEWEST)
        return Engine(NEWEST, python, make_models(python, NEWEST))
    except NoEngine as error:
        pytest.fail(f"{error}\nleave these tests out: -m 'not engine'", pytrace=False)


def chat_options(engine: Engine) -> list[str | Path]:
    return [
        *("--max-model-len", "1024", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--enable-lora", "--max-lora-rank", "8"),
        *("--lora-modules", f"adapter={engine.models / 'lora'}"),
    ]


@pytest.fixture(scope="session")
def launched(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The launcher with the chat model; do not stop it."""
    log = tmp_path_factory.mktemp("launched") / "log"
    with engine.server(log, "chat", *chat_options(engine)) as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def chat_pair(
    engine: Engine, launched: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """The launcher, and `vllm serve` of the same version with the same options."""
    log = tmp_path_factory.mktemp("upstream") / "log"
    with engine.server(log, "chat", *chat_options(engine), module=UPSTREAMS_SERVER) as server:
        yield launched, server.wait_ready()
