"""What ports often do: one synchronous `LLM` behind a lock, one endpoint, streams of one piece.

The slow peer of `benchmarks/launcher.py`; run by an engine's Python with --port and the engine's
options.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser

app = FastAPI()
lock = threading.Lock()
engine: Any = None


@app.get("/health")  # type: ignore[untyped-decorator]
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/chat/completions")  # type: ignore[untyped-decorator]
def chat(body: dict[str, Any]) -> StreamingResponse:
    return StreamingResponse(_answer(body), media_type="text/event-stream")


def _answer(body: dict[str, Any]) -> Iterator[str]:
    """Server-sent events, one per token, while the lock keeps every other request out."""
    tokens = body.get("max_completion_tokens") or body.get("max_tokens") or 16
    wanted = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    with lock:
        said = ""
        prompt = engine.get_tokenizer().apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        engine.add_request(str(time.time_ns()), prompt, wanted)
        while engine.has_unfinished_requests():
            for output in engine.step():
                text = output.outputs[0].text
                yield _event({"choices": [{"index": 0, "delta": {"content": text[len(said) :]}}]})
                said = text
    usage = {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}
    yield _event({"choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    parser.add_argument("--port", type=int)
    EngineArgs.add_cli_args(parser)
    options, _ = parser.parse_known_args()
    engine = LLMEngine.from_engine_args(EngineArgs.from_cli_args(options))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")
