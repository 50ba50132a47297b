"""vLLM's engine core on a thread of the server's own process.

Upstream runs the engine core in a second process and talks to it over ZMQ sockets, which native
Windows does not carry.  Here both ends stay upstream's (`EngineCoreProc` with its loop, pausing
and draining; `AsyncMPClient` with every call of its interface) and only what lies between them is
replaced: requests go through a queue, outputs through `call_soon_threadsafe`.  No message is
packed, and no interface of a vLLM version is written down twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator
from typing import Any

from vllm.logger import init_logger
from vllm.v1.engine import EngineCoreRequestType, UtilityOutput
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.core_client import AsyncMPClient, EngineCoreClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.utils import EngineZmqAddresses

logger = init_logger("vllm.launcher.engine")

ADD, ABORT, UTILITY = (
    EngineCoreRequestType.ADD,
    EngineCoreRequestType.ABORT,
    EngineCoreRequestType.UTILITY,
)
STOP = None
"""In place of a request type: the end of the input."""

_TAKEN_S = 0.005
"""How long the engine waits at most for the event loop to take a step's outputs."""
_POLL_S = 0.2
"""How long the main thread waits at a time: on Windows a wait without end swallows Ctrl-C."""


class _Stopped(Exception):
    """Leaves upstream's busy loop."""


class ThreadCore(EngineCoreProc):  # type: ignore[misc]
    """Upstream's engine core with queues for sockets; built and stepped by one thread.

    `inbox` takes `(EngineCoreRequestType, payload)`; every output is handed to `deliver`, on
    whichever thread it arises.
    """

    def __init__(self, inbox: queue.SimpleQueue[Any], deliver: Any, **config: Any) -> None:
        self._inbox = inbox
        super().__init__(local_client=True, handshake_address="", **config)
        # Upstream only ever puts to it; nothing reads it, the outputs are handed over at once.
        self.output_queue = _Handover(deliver)

    @contextlib.contextmanager
    def _perform_handshakes(self, *_: Any) -> Iterator[EngineZmqAddresses]:
        yield EngineZmqAddresses(inputs=[], outputs=[])

    def process_output_sockets(self, *_: Any) -> None:
        """Upstream's output thread has nothing to do here."""

    def process_input_sockets(self, *sockets: Any, **named: Any) -> None:
        """Upstream's input thread: prepare requests while the engine steps, keep their order."""
        ready: threading.Event = named.get("ready_event") or sockets[-1]
        ready.set()
        while True:
            kind, payload = self._inbox.get()
            if kind is ADD:
                payload = self._admitted(payload)
                if payload is None:
                    continue
            elif kind is ABORT:
                # Both queues, as upstream: the first is read in the middle of a step.
                self.aborts_queue.put_nowait(payload)
            self.input_queue.put_nowait((kind, payload))
            if kind is STOP:
                return

    def _admitted(self, request: Any) -> Any:
        """The request as the scheduler wants it; None if it was answered with an error."""
        try:
            return self.preprocess_add_request(request)
        except Exception as error:
            # By name: which of them a version has differs.
            if type(error).__name__ == "MultiModalCacheMissError":
                self._handle_mm_cache_miss(request, error)
            elif hasattr(self, "_handle_request_validation_error") and (
                type(error).__name__ == "VLLMValidationError"
            ):
                self._handle_request_validation_error(request, error)
            else:
                self._handle_request_preproc_error(request)
            return None

    def _handle_client_request(self, request_type: Any, request: Any) -> None:
        if request_type is STOP:
            raise _Stopped
        super()._handle_client_request(request_type, request)


class _Handover:
    """The engine's end of the output queue."""

    def __init__(self, deliver: Any) -> None:
        self.put_nowait = deliver

    def empty(self) -> bool:
        return True


class ThreadClient(AsyncMPClient):  # type: ignore[misc]
    """Upstream's client with its transport replaced; the rest of its interface is inherited.

    Made on the event loop's thread, which blocks until the engine is up.  `on_death` is called on
    the event loop if the engine dies.
    """

    def __init__(self, vllm_config: Any, executor_class: Any, log_stats: bool, **_: Any) -> None:
        self.vllm_config = vllm_config
        self.client_count, self.client_index = 1, 0
        self.core_engine = (0).to_bytes(2, "little")
        self.core_engines = [self.core_engine]
        self.engine_ranks_managed = [0]
        self.engines_running = False
        self.resources = _Resources()
        self.outputs_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.utility_results: dict[int, asyncio.Future[Any]] = {}
        self._engine_status: dict[int, Any] = {}
        self._kv_event_sources: dict[int, Any] = {}
        self.death: BaseException | None = None
        self.tokens = 0
        self.on_death: Any = None
        self._call_ids = itertools.count(1)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._started = threading.Event()
        self._taken = threading.Event()
        self.core: ThreadCore | None = None
        config = {
            "vllm_config": vllm_config,
            "executor_class": executor_class,
            "log_stats": log_stats,
        }
        self._thread = threading.Thread(
            target=self._run, args=(config,), name="EngineCore", daemon=True
        )
        self._thread.start()
        while not self._started.wait(_POLL_S):
            pass
        if self.death is not None:
            raise self.death

    # --- the engine's thread -------------------------------------------------------------

    def _run(self, config: dict[str, Any]) -> None:
        try:
            self.core = ThreadCore(self._inbox, self._hand_over, **config)
            self._started.set()
            self.core.run_busy_loop()
        except (_Stopped, SystemExit):
            pass
        except BaseException as error:
            self.death = error
            if self._started.is_set():
                logger.exception("The engine died.")
                self._on_loop(self._die)
        finally:
            if self.core is not None:
                with contextlib.suppress(Exception):
                    self.core.shutdown()
            self._started.set()

    def _hand_over(self, item: Any) -> None:
        """Called by the engine with `(client index, EngineCoreOutputs)`.

        Then stands aside until the loop has begun with them.  A step lets go of the GIL often, but
        for moments, too short for another thread to wake up and take it: without this, outputs and
        new requests would wait for longer than a step (docs/launcher.md has the numbers).
        """
        self._taken.clear()
        self._on_loop(self._receive, item[1])
        self._taken.wait(_TAKEN_S)

    def _on_loop(self, function: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- the event loop's thread ---------------------------------------------------------

    def _receive(self, outputs: Any) -> None:
        self._taken.set()
        if outputs.utility_output:
            self._resolve(outputs.utility_output)
        elif outputs.outputs or outputs.scheduler_stats:
            self.tokens += sum(len(output.new_token_ids) for output in outputs.outputs)
            self.outputs_queue.put_nowait(outputs)

    def _resolve(self, output: UtilityOutput) -> None:
        waiting = self.utility_results.pop(output.call_id, None)
        if waiting is None or waiting.done():
            return
        if output.failure_message is not None:
            waiting.set_exception(Exception(output.failure_message))
        else:
            waiting.set_result(output.result.result if output.result else None)

    def _die(self) -> None:
        """Fail whoever waits; upstream's output handler passes the error on to every request."""
        self.resources.engine_dead = True
        self.outputs_queue.put_nowait(EngineDeadError())
        for waiting in self.utility_results.values():
            if not waiting.done():
                waiting.set_exception(EngineDeadError())
        self.utility_results.clear()
        if self.on_death is not None:
            self.on_death()

    async def get_output_async(self) -> Any:
        outputs = await self.outputs_queue.get()
        if isinstance(outputs, Exception):
            raise outputs
        return outputs

    def ensure_alive(self) -> None:
        if self.resources.engine_dead:
            raise EngineDeadError()

    def _ensure_output_queue_task(self) -> None:
        """Outputs arrive by themselves."""

    async def _send_input(self, request_type: Any, request: Any, engine: Any = None) -> None:
        self.ensure_alive()
        self._inbox.put((request_type, request))

    async def _call_utility_async(self, method: str, *args: Any, engine: Any) -> Any:
        self.ensure_alive()
        call_id = next(self._call_ids)
        waiting = self.utility_results[call_id] = self._loop.create_future()
        self._inbox.put((UTILITY, (self.client_index, call_id, method, args)))
        return await waiting

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop the engine between two steps; waits for it at most `timeout` seconds (10)."""
        self.resources.engine_dead = True
        self._inbox.put((STOP, None))
        self._thread.join(10 if timeout is None else timeout)

    # --- what the status page reads, while the engine's thread may be changing it ------------

    def request_counts(self) -> tuple[int, int]:
        """Requests running and waiting."""
        running, waiting = self.core.scheduler.get_request_counts() if self.core else (0, 0)
        return int(running), int(waiting)

    def kv_used(self) -> float:
        """Used share of the KV cache, 0 to 1."""
        manager = getattr(self.core.scheduler, "kv_cache_manager", None) if self.core else None
        return float(manager.usage) if manager else 0.0

    def kv_cache(self) -> tuple[int, int]:
        """Size of the KV cache in tokens and bytes; zeros for a model that has none."""
        if self.core is None:
            return 0, 0
        cache = self.vllm_config.cache_config
        layout = self.core.scheduler.kv_cache_config
        tokens = getattr(cache, "kv_cache_size_tokens", None)
        if tokens is None:
            groups = len(layout.kv_cache_groups) or 1
            tokens = (cache.num_gpu_blocks or 0) * cache.block_size // groups
        return int(tokens), sum(int(tensor.size) for tensor in layout.kv_cache_tensors)

    @property
    def stopped(self) -> bool:
        """Whether the engine's thread has ended and its memory is given back."""
        return not self._thread.is_alive()


class _Resources:
    """What upstream's front end looks at of `BackgroundResources`."""

    def __init__(self) -> None:
        self.engine_dead = False
        self.engine_manager = self.coordinator = self.output_queue_task = None


def install() -> None:
    """Make `AsyncLLM` use the engine in this process."""
    EngineCoreClient.make_async_mp_client = staticmethod(ThreadClient)
