"""Servers shared by the tests of the launcher; those that use one are marked `engine` by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving.engines import (
    LEAN,
    NEWEST,
    PINNED,
    UPSTREAMS_SERVER,
    Engine,
    NoEngine,
    ServerProcess,
    engine_python,
    make_models,
)

ENGINE_FIXTURES = {"engine", "pinned_engine", "launched", "chat_pair"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ENGINE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.engine)
            # One worker of a parallel run starts the servers, not each of them.
            item.add_marker(pytest.mark.xdist_group("engine"))


def made_engine(version: str) -> Engine:
    try:
        python = engine_python(version)
        return Engine(version, python, make_models(python))
    except NoEngine as error:
        pytest.fail(f"{error}\nleave these tests out: -m 'not engine'", pytrace=False)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The newest vLLM that there is for CPUs, or `LAUNCHER_ENGINE` (0.14.1)."""
    return made_engine(os.environ.get("LAUNCHER_ENGINE", NEWEST))


@pytest.fixture(scope="session")
def pinned_engine() -> Engine:
    """The vLLM of the pin."""
    if not os.environ.get("LAUNCHER_PIN"):
        pytest.skip("LAUNCHER_PIN=1 installs the engine of the pin, several gigabytes")
    return made_engine(PINNED)


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
    options = chat_options(engine)
    with engine.server(log, "chat", *options, module=UPSTREAMS_SERVER, extra=LEAN) as server:
        yield launched, server.wait_ready()


@pytest.fixture
def soak_seconds() -> float:
    """How long to watch the memory under load: `LAUNCHER_SOAK_SECONDS=3600` for an hour."""
    return float(os.environ.get("LAUNCHER_SOAK_SECONDS", "0"))
