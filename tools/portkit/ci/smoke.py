"""A smoke test of the launcher on this machine: does a model answer, and does the server end.

The model is made on the spot, with random weights, a tokenizer and a chat template, so nothing is
downloaded; what it says means nothing, but it says the same streamed and not.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from portkit.ci.served import STOP, Answer, ServerFailed, ServerProcess
from portkit.errors import BadInput, Unavailable
from portkit.model import Event, Events, silent

MODEL = "tiny"
TOKENS = 24
MODELS_SCRIPT = Path(__file__).with_name("tiny_models.py")
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "ignore_eos": True,
}
_PATH = "/v1/chat/completions"
_MAKE_S, _ASK_S, _STOP_S = 300, 120, 60
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Smoke:
    """What was said, both times, and how long the start and the whole took."""

    text: str
    start_s: float
    all_s: float


@dataclass(frozen=True)
class Said:
    """The text of an answer, and why it ended."""

    text: str
    reason: str


def run(
    root: Path,
    python: Path,
    log: Path,
    *,
    start_s: float,
    options: Sequence[str] = (),
    events: Events = silent,
) -> Smoke:
    """Serve a tiny model with the launcher at `root`, in an environment that has vLLM.

    Raises `ServerFailed` for whatever the server does wrong, `Unavailable` where it could not be
    asked to; `start_s` bounds its start, and all else is bounded too.
    """
    begun = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        events(Event("making a model", 0, 4, "steps"))
        make_models(python, Path(name))
        events(Event("starting the launcher", 1, 4, "steps"))
        given = ("--model", f"{name}/chat", "--served-model-name", MODEL, "--host", "127.0.0.1")
        with ServerProcess(python, (*given, *options), log, root) as server:
            started = time.monotonic()
            server.wait_ready(start_s)
            ready = time.monotonic() - started
            events(Event("asking", 2, 4, "steps"))
            whole = _asked(server, CHAT, answered)
            streamed = _asked(server, {**CHAT, "stream": True}, stream_answered)
            if whole != streamed:
                raise ServerFailed(f"streamed it says {streamed!a}, else {whole!a}")
            events(Event("stopping", 3, 4, "steps"))
            _stopped(server)
    return Smoke(whole.text, ready, time.monotonic() - begun)


def make_models(python: Path, folder: Path) -> None:
    """Make the tiny models in `folder`, with the torch and transformers of `python`."""
    command = [python, MODELS_SCRIPT, folder]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_MAKE_S)
    except FileNotFoundError:
        raise BadInput(f"there is no {python}", hint="name the Python that has vLLM") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{python} made no tiny model in {_MAKE_S} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(
            f"{python} could not make a tiny model: {said[-1]}",
            hint="name the Python that has vLLM: --python",
        )


def _asked(server: ServerProcess, body: Any, read: Callable[[Answer], _Found]) -> _Found:
    try:
        return read(server.ask(_PATH, body, timeout=_ASK_S))
    except (OSError, HTTPException) as error:
        raise server.failed(f"{_PATH} was not answered ({error})") from None


def answered(answer: Answer) -> Said:
    """What a chat completion says; raises `ServerFailed` where it is none of `TOKENS` tokens."""
    content = _completion(answer.status, answer.body, "chat.completion")
    try:
        (choice,) = content["choices"]
        said = Said(choice["message"]["content"], choice["finish_reason"])
        role, tokens = choice["message"]["role"], content["usage"]["completion_tokens"]
    except (KeyError, TypeError, ValueError):
        raise _malformed(answer.body) from None
    if (role, tokens, said.reason) != ("assistant", TOKENS, "length") or not said.text:
        raise _malformed(answer.body)
    return said


def stream_answered(answer: Answer) -> Said:
    """The same of a streamed one."""
    events = [line for line in answer.body.split(b"\n") if line.strip()]
    if answer.status == 200 and (not events or events[-1].strip() != b"data: [DONE]"):
        raise ServerFailed(f"{_PATH} ended its stream without [DONE]: {answer.body[-200:]!a}")
    pieces, reasons = [], []
    for event in events[:-1] or [answer.body]:
        content = _completion(answer.status, event.removeprefix(b"data: "), "chat.completion.chunk")
        try:
            (choice,) = content["choices"]
            pieces.append(choice["delta"].get("content") or "")
            reasons.append(choice["finish_reason"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise _malformed(event) from None
    if len(pieces) < 2 or any(reasons[:-1]) or not isinstance(reasons[-1], str):
        raise ServerFailed(f"{_PATH} streamed {len(pieces)} pieces, which end with {reasons}")
    return Said("".join(pieces), reasons[-1])


def _completion(status: int, body: bytes, kind: str) -> dict[str, Any]:
    if status != 200:
        raise ServerFailed(f"{_PATH} answered {status}: {body[:300]!a}")
    try:
        content = json.loads(body)
    except ValueError:
        raise _malformed(body) from None
    if not isinstance(content, dict) or content.get("object") != kind:
        raise _malformed(body)
    return content


def _malformed(body: bytes) -> ServerFailed:
    return ServerFailed(f"{_PATH} answered what is no chat completion as asked: {body[:300]!a}")


def _stopped(server: ServerProcess) -> None:
    server.signal(STOP)
    try:
        code = server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        raise server.failed(f"it still ran {_STOP_S} s after it was asked to stop") from None
    if code:
        raise server.failed(f"asked to stop, it ended with {code} instead of 0")
