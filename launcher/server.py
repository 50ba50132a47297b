"""Builds the engine and upstream's app, serves them with uvicorn, and stops in bounded time."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import types
from collections.abc import Iterator
from typing import Any

import uvicorn

from . import checks, compat
from .console import Console, stages_shown
from .environment import stop_signals
from .pages import QueueBound, add_pages
from .watch import Watch

DEATH_GRACE_S = 3.0
"""How long a server with a dead engine goes on to answer: /health with 503, work with 500."""
ENGINE_STOP_S = 10.0
TASKS_STOP_S = 2.0
LAST_BYTES_S = 5
"""How long answers that were cut off have to reach their clients."""
H11_MAX_INCOMPLETE_EVENT_SIZE = 4 << 20
H11_MAX_HEADER_COUNT = 256


def serve(options: argparse.Namespace, bound: socket.socket, console: Console) -> int:
    """Run the server until it is stopped; the exit code.

    Raises:
        Whatever vLLM raises while the engine is built.
        KeyboardInterrupt: a signal came before the server answered.
    """
    import uvloop  # as upstream does; a stand-in over asyncio where it is missing

    code: int = uvloop.run(Launch(options, bound, console).run())
    return code


class Launch:
    """One run of the server, from its options to its end."""

    def __init__(self, options: argparse.Namespace, bound: socket.socket, console: Console) -> None:
        self.options, self.bound, self.console = options, bound, console
        self.limit = options.max_num_seqs + options.max_queue if options.max_queue else 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.signalled = False
        self.server: Server | None = None
        self.watch: Watch | None = None
        self.code = 0

    async def run(self) -> int:
        from .engine import install

        install()
        self.loop = asyncio.get_running_loop()
        with self._signals():
            with stages_shown(self.console):
                engine = self._engine()
            try:
                await engine.reset_mm_cache()
                self.server = self._uvicorn(await self._app(engine))
                engine.engine_core.on_death = self._engine_died
                self._announce(engine)
                await self._serve(engine)
            finally:
                await self._stop(engine)
        return self.code

    async def _serve(self, engine: Any) -> None:
        assert self.server is not None
        others = [
            asyncio.create_task(self._beat(engine)),
            asyncio.create_task(self._cut_off(engine, self.server)),
        ]
        try:
            await self.server.serve(sockets=[self.bound])
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _engine(self) -> Any:
        """Upstream's AsyncLLM; blocks the event loop, on which nothing runs yet."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs.from_cli_args(self.options)
        context = UsageContext.OPENAI_API_SERVER
        config = arguments.create_engine_config(usage_context=context)
        checks.check_gpu(self.options)
        return compat.call(
            AsyncLLM.from_vllm_config,
            vllm_config=config,
            usage_context=context,
            enable_log_requests=arguments.enable_log_requests,
            aggregate_engine_logging=getattr(arguments, "aggregate_engine_logging", False),
            disable_log_stats=arguments.disable_log_stats,
        )

    async def _app(self, engine: Any) -> Any:
        from vllm.version import __version__

        tasks = await engine.get_supported_tasks()
        app = compat.call(
            compat.required("build_app"),
            self.options,
            supported_tasks=tasks,
            model_config=engine.model_config,
        )
        await compat.call(
            compat.required("init_app_state"),
            engine,
            app.state,
            self.options,
            supported_tasks=tasks,
        )
        name = (self.options.served_model_name or [self.options.model])[0]
        self.watch = Watch(engine.engine_core, name, __version__, self.limit)
        add_pages(app, engine.engine_core, self.watch)
        return app

    def _uvicorn(self, app: Any) -> Server:
        from vllm import envs

        options = self.options
        named: dict[str, Any] = {}
        if (log_config := self._log_config()) is not None:
            named["log_config"] = log_config
        if getattr(options, "ssl_ciphers", None):
            named["ssl_ciphers"] = options.ssl_ciphers
        config = uvicorn.Config(
            # Around upstream's app: it takes no more middleware once it is built.
            QueueBound(app, self.limit, options.root_path or "") if self.limit else app,
            log_level=options.uvicorn_log_level if options.verbose else "warning",
            access_log=not options.disable_uvicorn_access_log,
            timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(options.stop_timeout) + LAST_BYTES_S,
            ssl_keyfile=options.ssl_keyfile,
            ssl_certfile=options.ssl_certfile,
            ssl_ca_certs=options.ssl_ca_certs,
            ssl_cert_reqs=options.ssl_cert_reqs,
            h11_max_incomplete_event_size=options.h11_max_incomplete_event_size
            or H11_MAX_INCOMPLETE_EVENT_SIZE,
            **named,
        )
        # Read by vLLM's header limit, not a setting of uvicorn's.
        config.h11_max_header_count = options.h11_max_header_count or H11_MAX_HEADER_COUNT
        config.load()
        server = Server(config)
        # Upstream's error handlers tell their server to exit when the engine is dead; ours goes
        # on for a moment, so that /health can say so.
        stand_in = types.SimpleNamespace(should_exit=False)
        app.state.server = stand_in
        if (add_handlers := compat.upstream("_add_shutdown_handlers")) is not None:
            add_handlers(app, stand_in)
        if getattr(options, "enable_ssl_refresh", False) and config.ssl is not None:
            server.refresher = compat.required("SSLCertRefresher")(
                ssl_context=config.ssl,
                key_path=options.ssl_keyfile,
                cert_path=options.ssl_certfile,
                ca_path=options.ssl_ca_certs,
            )
        return server

    def _log_config(self) -> Any:
        if (log_config := compat.upstream("get_uvicorn_log_config")) is not None:
            return log_config(self.options)
        return compat.required("load_log_config")(self.options.log_config_file)

    def _announce(self, engine: Any) -> None:
        host, port = self.bound.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            host, f"[{host}]" if ":" in host else host
        )
        scheme = "https" if self.options.ssl_certfile else "http"
        tokens, size = engine.engine_core.kv_cache()
        longest = engine.model_config.max_model_len
        self.console.ready(f"{scheme}://{shown}:{port}", tokens, size, longest)

    # --- while it runs -------------------------------------------------------------------

    async def _beat(self, engine: Any) -> None:
        """Once a second: the rates, and whether upstream's output handler is still there."""
        assert self.watch is not None
        while not engine.errored:
            self.watch.sample()
            await asyncio.sleep(1)
        self._engine_died()

    async def _cut_off(self, engine: Any, server: Server) -> None:
        """Once a stop has lasted its time, end what still runs: its clients get what there is."""
        await server.stopping.wait()
        await asyncio.sleep(self.options.stop_timeout)
        requests = list(engine.output_processor.request_states)
        await compat.call(engine.abort, requests, internal=True)

    def _engine_died(self) -> None:
        if self.code or self.server is None or self.server.should_exit:
            return
        self.code = 1
        self.console.line("error: the engine died; its last words are above")
        self.console.line(f"hint: the server ends in {DEATH_GRACE_S:g} s with exit code 1")
        asyncio.get_running_loop().call_later(DEATH_GRACE_S, self.server.stop)

    # --- the end -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and Ctrl-Break stop the server; a second one ends the process."""
        before = {number: signal.signal(number, self._signalled) for number in stop_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, _: Any) -> None:
        if self.server is None or self.loop is None:
            raise KeyboardInterrupt
        if self.signalled:
            self.console.line("stopped at once")
            os._exit(130)
        self.signalled = True
        self.console.line(
            f"stopping: running requests have {self.options.stop_timeout:g} s to finish "
            "(again to stop at once)"
        )
        self.loop.call_soon_threadsafe(self.server.stop)

    async def _stop(self, engine: Any) -> None:
        """End the engine's thread, in bounded time, and leave no task behind."""
        if self.server is not None and self.server.refresher is not None:
            self.server.refresher.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, engine.engine_core.shutdown, ENGINE_STOP_S)
        engine.shutdown()
        # Upstream's tasks: its output handler, and those of requests that were cut off.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=TASKS_STOP_S)
        if not engine.engine_core.stopped:
            self.console.line(f"the engine did not stop within {ENGINE_STOP_S:g} s and was left")
            sys.stderr.flush()
            os._exit(self.code)


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's, with the signals left to the launcher."""

    refresher: Any = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Accept nothing more and wait for what runs."""
        self.should_exit = True
        self.stopping.set()
