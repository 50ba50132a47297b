"""How a launcher ends: by signals, by a dead engine; and how it turns clients away."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from serving.engines import KEY, MODEL, ROOT, Answer, Engine, ServerProcess

TESTS_PATH = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
AUTHORISED = {"Authorization": f"Bearer {KEY}"}


def generate(server: ServerProcess, tokens: int, **more: Any) -> Answer:
    body = {"model": MODEL, "prompt": "Go", "max_tokens": tokens, "ignore_eos": True, **more}
    return server.ask("/v1/completions", body, headers=AUTHORISED)


def running(server: ServerProcess, count: int = 1) -> None:
    """Wait until so many requests are in the engine."""
    for _ in range(200):
        status = server.ask("/status").json
        if status["requests_running"] + status["requests_waiting"] >= count:
            return
        time.sleep(0.05)
    pytest.fail("the requests did not arrive")


@pytest.fixture
def certificate(tmp_path: Path) -> list[str | Path]:
    """Options that serve TLS with a certificate made here."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return ["--ssl-keyfile", key, "--ssl-certfile", certificate]


def test_full_queue_turns_away_and_stop_lets_finish(
    engine: Engine, tmp_path: Path, certificate: list[str | Path]
) -> None:
    options = [
        "--max-model-len",
        "2048",
        "--max-num-seqs",
        "2",
        "--max-queue",
        "2",
        "--stop-timeout",
        "60",
    ]
    with (
        engine.server(tmp_path / "log", "chat", *options) as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        server.wait_ready()
        held = [pool.submit(generate, server, 500) for _ in range(4)]
        running(server, 4)
        refused = generate(server, 1)
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json["error"]["code"] == 429
        assert server.ask("/health").status == 200  # only work is turned away
        assert server.ask("/v1/models", headers=AUTHORISED).status == 200

        server.signal(signal.SIGTERM)
        answers = [future.result() for future in held]
        assert [answer.status for answer in answers] == [200] * 4
        assert server.wait() == 0
        with pytest.raises(urllib.error.URLError):
            server.ask("/health", timeout=2)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_ctrl_c_leaves_nothing_behind(engine: Engine, tmp_path: Path, loop: str) -> None:
    without = {"WITHOUT_UVLOOP": "1"} if loop == "asyncio" else {}
    with engine.server(
        tmp_path / "log",
        "chat",
        "--stop-timeout",
        "1",
        module="serving.leaks",
        extra={"PYTHONPATH": TESTS_PATH, **without},
    ) as server:
        server.wait_ready()
        threading.Thread(target=_swallow, args=(server,), daemon=True).start()
        running(server)
        begun = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.wait(30) == 0
        assert time.monotonic() - begun < 20
        left = json.loads(server.output.splitlines()[-1])
        assert left == {"loop": loop, "tasks": [], "threads": []}
        assert "Traceback" not in server.output


def _swallow(server: ServerProcess) -> None:
    """A request that will be cut off."""
    with contextlib.suppress(OSError):
        generate(server, 1900)


def test_ctrl_c_and_sigterm_while_starting(engine: Engine, tmp_path: Path) -> None:
    for number, stage in ((signal.SIGTERM, "importing"), (signal.SIGINT, "loading")):
        with engine.server(tmp_path / "log", "chat") as server:
            for _ in range(1200):
                if stage in server.output:
                    break
                time.sleep(0.1)
            server.signal(number)
            assert server.wait(20) == 130
            assert "Traceback" not in server.output
            assert "interrupted" in server.output


def test_second_ctrl_c_ends_at_once(engine: Engine, tmp_path: Path) -> None:
    with engine.server(tmp_path / "log", "chat", "--stop-timeout", "300") as server:
        server.wait_ready()
        threading.Thread(target=_swallow, args=(server,), daemon=True).start()
        running(server)
        server.signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait(5) == 130


def test_pause_holds_requests_and_a_dead_engine_fails_them(engine: Engine, tmp_path: Path) -> None:
    bomb = ("--logits-processors", "serving.faults:Bomb")
    extra = {"PYTHONPATH": TESTS_PATH, "VLLM_SERVER_DEV_MODE": "1"}
    with (
        engine.server(tmp_path / "log", "chat", *bomb, extra=extra) as server,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        server.wait_ready()
        assert server.ask("/pause?mode=keep", b"").status == 200
        held = pool.submit(generate, server, 3)
        running(server)
        time.sleep(1)
        assert not held.done()
        assert server.ask("/resume", b"").status == 200
        assert held.result(20).status == 200

        bystander = pool.submit(generate, server, 1900)
        running(server)
        culprit = pool.submit(generate, server, 5, vllm_xargs={"bomb": 1})
        assert culprit.result(20).status == 500
        assert bystander.result(20).status == 500
        health = server.ask("/health")
        assert health.status == 503
        assert server.wait(20) == 1
        assert "error: the engine died" in server.output
        assert "the bomb went off" in server.output
