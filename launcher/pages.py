"""What the launcher adds to upstream's app: `/`, `/status`, `/health` and a bound on the queue."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .watch import Watch

PAGE = Path(__file__).with_name("status.html")
WORK = frozenset(
    f"{prefix}/{name}"
    for prefix in ("", "/v1", "/v2")
    for name in (
        *("chat/completions", "completions", "responses", "messages", "generate"),
        *("embeddings", "embed", "pooling", "classify", "score", "rerank"),
        *("audio/transcriptions", "audio/translations"),
    )
) | {"/inference/v1/generate", "/invocations"}
"""Paths whose POST makes the engine work; whatever else is asked is always answered."""


def add_pages(app: FastAPI, client: Any, watch: Watch) -> None:
    """Put the launcher's own routes before upstream's."""
    page = PAGE.read_text("utf-8")

    async def index(_: Request) -> Response:
        return HTMLResponse(page)

    async def status(_: Request) -> Response:
        return JSONResponse(watch.status(), headers={"Cache-Control": "no-store"})

    async def health(_: Request) -> Response:
        if client.death is not None:
            return JSONResponse({"status": "error", "reason": "the engine died"}, 503)
        return JSONResponse({"status": "ok"})

    app.router.routes[:0] = [
        Route("/", index, methods=["GET"], include_in_schema=False),
        Route("/status", status, methods=["GET"], include_in_schema=False),
        Route("/health", health, methods=["GET"], include_in_schema=False),
    ]


class QueueBound:
    """Refuses work beyond a number of unfinished requests, with 429 and Retry-After.

    Counts what clients wait for, from the arrival of a request's head to the last byte of its
    answer; several choices of one request count as one.
    """

    def __init__(self, app: ASGIApp, limit: int, root_path: str = "") -> None:
        self.app, self.limit, self.root_path = app, limit, root_path
        self.unfinished = 0
        self.mean_s = 1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(self.root_path)
        if scope["type"] != "http" or scope["method"] != "POST" or path not in WORK:
            await self.app(scope, receive, send)
            return
        if self.unfinished >= self.limit:
            await self._refuse()(scope, receive, send)
            return
        self.unfinished += 1
        begun = time.monotonic()
        try:
            await self.app(scope, receive, send)
        finally:
            self.unfinished -= 1
            self.mean_s += (time.monotonic() - begun - self.mean_s) / 16

    def _refuse(self) -> Response:
        error = {
            "message": f"The server has {self.unfinished} unfinished requests, its limit. "
            "Please retry later.",
            "type": "rate_limit_error",
            "param": None,
            "code": 429,
        }
        return Response(
            json.dumps({"error": error}),
            429,
            {"Retry-After": str(self.retry_after())},
            media_type="application/json",
        )

    def retry_after(self) -> int:
        """Seconds an answer takes on the average: by then the queue has moved."""
        return min(60, max(1, math.ceil(self.mean_s)))
