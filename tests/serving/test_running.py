"""A running launcher: its own pages, clients that leave, many clients at once."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from serving.engines import KEY, MODEL, Engine, ServerProcess

LONG = 900


def client(server: ServerProcess) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=120)


def idle(server: ServerProcess, within: float = 15) -> bool:
    """Whether the server comes to have nothing to do."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        status = server.ask("/status").json
        if status["requests_running"] == status["requests_waiting"] == 0:
            return True
        time.sleep(0.1)
    return False


def test_health_says_ok(launched: ServerProcess) -> None:
    answer = launched.ask("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_start_tells_stages_and_addresses_and_no_more(launched: ServerProcess) -> None:
    log = launched.output
    for told in ("loading ", "weights ", "KV cache ", "tokens in 1.00 GiB", f"{launched.url}/v1"):
        assert told in log
    assert " INFO " not in log


def test_page_needs_nothing_but_the_server(launched: ServerProcess) -> None:
    answer = launched.ask("/")
    assert answer.status == 200
    page = answer.body.decode()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script src" not in page


def test_api_key_guards_the_api_alone(launched: ServerProcess) -> None:
    assert launched.ask("/v1/models").status == 401
    assert launched.ask("/status").status == 200


def test_metrics_are_served(launched: ServerProcess) -> None:
    assert b"vllm:num_requests_running" in launched.ask("/metrics").body


async def _long_stream(server: ServerProcess) -> Any:
    return await client(server).chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Go on"}],
        max_tokens=LONG,
        stream=True,
        extra_body={"ignore_eos": True},
    )


def test_request_of_a_client_that_leaves_is_aborted(launched: ServerProcess) -> None:
    async def leave() -> dict[str, Any]:
        stream = await _long_stream(launched)
        async for _ in stream:
            break
        running: dict[str, Any] = launched.ask("/status").json
        await stream.close()
        return running

    before = launched.ask("/status").json["generated_tokens"]
    running = asyncio.run(leave())
    assert running["requests_running"] == 1
    assert running["kv_cache_used"] > 0
    assert idle(launched)
    assert launched.ask("/status").json["generated_tokens"] - before < LONG


def test_unary_request_of_a_client_that_leaves_is_aborted(launched: ServerProcess) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": LONG, "ignore_eos": True, "n": 4}
    before = launched.ask("/status").json["generated_tokens"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{launched.url}/v1/completions",
            json=body,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=httpx.Timeout(30, read=0.3),
        )
    assert idle(launched)
    assert launched.ask("/status").json["generated_tokens"] - before < 4 * LONG


# --- load -------------------------------------------------------------------------------------


class Crowd:
    """Mixed clients, each of which checks its own answer."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.server = server
        self.api = client(server)
        self.random = random.Random(seed)
        self.reference: dict[tuple[int, int], str] = {}
        self.done: dict[str, int] = {}

    def _request(self, topic: int, tokens: int) -> dict[str, Any]:
        text = f"Topic {topic}: tell me about number {topic * 7919 % 1000}."
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "extra_body": {"ignore_eos": True},
        }

    async def learn(self, topic: int, tokens: int) -> None:
        """The answer of a topic when nobody else asks."""
        reply = await self.api.chat.completions.create(**self._request(topic, tokens))
        self.reference[topic, tokens] = reply.choices[0].message.content or ""

    async def unary(self, topic: int, tokens: int) -> None:
        reply = await self.api.chat.completions.create(**self._request(topic, tokens))
        assert reply.choices[0].message.content == self.reference[topic, tokens]
        assert reply.usage is not None
        assert reply.usage.completion_tokens == tokens

    async def stream(self, topic: int, tokens: int) -> None:
        said, reasons = "", []
        stream = await self.api.chat.completions.create(**self._request(topic, tokens), stream=True)
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            reasons.append(chunk.choices[0].finish_reason)
        assert said == self.reference[topic, tokens]
        assert reasons[-1] == "length"

    async def cancelled(self, topic: int, tokens: int) -> None:
        stream = await self.api.chat.completions.create(**self._request(topic, LONG), stream=True)
        said = ""
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            if len(said) > 5:
                break
        await stream.close()
        assert said.startswith(self.reference[topic, tokens][:5])

    async def malformed(self, topic: int, tokens: int) -> None:
        with pytest.raises(openai.BadRequestError):
            await self.api.chat.completions.create(**self._request(topic, -tokens))

    async def oversized(self, topic: int, tokens: int) -> None:
        request = self._request(topic, tokens)
        request["messages"] = [{"role": "user", "content": "fox " * 4000}]
        with pytest.raises(openai.BadRequestError, match="context length"):
            await self.api.chat.completions.create(**request)

    async def run(self, requests: int, at_once: int) -> None:
        """That many requests, `at_once` at a time; a failed check fails it."""
        kinds = [self.unary, self.stream, self.stream, self.cancelled, self.malformed]
        kinds.append(self.oversized)
        pairs = [(topic, tokens) for topic in range(12) for tokens in (8, 48)]
        for pair in pairs:
            if pair not in self.reference:
                await self.learn(*pair)
        places = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with places:
                kind = self.random.choice(kinds)
                await kind(*self.random.choice(pairs))
                self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1

        await asyncio.gather(*(one() for _ in range(requests)))


def test_crowd_of_500(launched: ServerProcess) -> None:
    async def run() -> dict[str, int]:
        crowd = Crowd(launched, seed=1)
        await crowd.run(requests=500, at_once=64)
        return crowd.done

    done = asyncio.run(run())
    assert sum(done.values()) == 500
    assert min(done.values()) > 20
    assert len(done) == 5
    assert idle(launched)


def test_memory_and_threads_stay_flat(engine: Engine, tmp_path: Path, soak_seconds: float) -> None:
    # What a CPU's engine keeps by design grows for minutes and would hide a leak: pages of the KV
    # cache that were not used before, and a compiled kernel for every size of a batch.
    small = ("--max-model-len", "1024", "--num-gpu-blocks-override", "640")
    kernels = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}
    with engine.server(tmp_path / "log", "chat", *small, extra=kernels) as server:
        server.wait_ready()
        seen = asyncio.run(_soaked(server, soak_seconds))
    for number in (0, len(seen) // 2, -1):
        print("resident {} bytes, {} threads, {} descriptors".format(*seen[number]))
    first, last = seen[0], seen[-1]
    assert last[0] - first[0] < 8 * 2**20, seen
    assert last[1] <= first[1] + 2, seen
    assert last[2] <= first[2] + 40, seen


async def _soaked(server: ServerProcess, seconds: float) -> list[tuple[int, int, int]]:
    """Memory, threads and descriptors after each 150 requests."""
    process = psutil.Process(server.process.pid)
    crowd = Crowd(server, seed=2)
    await crowd.run(requests=400, at_once=32)  # caches of all kinds fill up
    seen: list[tuple[int, int, int]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(seen) < 3:
        await crowd.run(requests=150, at_once=32)
        seen.append((process.memory_info().rss, process.num_threads(), process.num_fds()))
    return seen
