"""What a running server is doing: the numbers of the status page."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

WINDOW_S = 10.0


class Watch:
    """Counts over the last ten seconds, and the engine's own state, read when asked."""

    def __init__(self, client: Any, model: str, version: str, limit: int) -> None:
        self._client, self._model, self._version, self._limit = client, model, version, limit
        self._begun = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def sample(self) -> None:
        """Remember the count of tokens now; call it about once a second."""
        now = time.monotonic()
        self._samples.append((now, self._client.tokens))
        while now - self._samples[0][0] > WINDOW_S and len(self._samples) > 1:
            self._samples.popleft()

    def tokens_per_second(self) -> float:
        """Generated tokens per second over the window."""
        since, before = self._samples[0]
        elapsed = time.monotonic() - since
        return (self._client.tokens - before) / elapsed if elapsed > 0 else 0.0

    def status(self) -> dict[str, Any]:
        """One object for `/status`: counts, seconds, tokens, shares from 0 to 1."""
        running, waiting = self._client.request_counts()
        tokens, size = self._client.kv_cache()
        return {
            "model": self._model,
            "vllm": self._version,
            "healthy": self._client.death is None,
            "uptime_s": round(time.monotonic() - self._begun, 1),
            "requests_running": running,
            "requests_waiting": waiting,
            "requests_limit": self._limit or None,
            "generated_tokens": self._client.tokens,
            "tokens_per_second": round(self.tokens_per_second(), 1),
            "kv_cache_used": round(self._client.kv_used(), 4),
            "kv_cache_tokens": tokens,
            "kv_cache_bytes": size,
        }
