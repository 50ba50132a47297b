"""Requests of every shape that a text model's server answers, well and badly formed.

A shape goes through the `openai` client where that has the call, so that its own parsing and
its exceptions take part; else over plain HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
from serving.engines import KEY, MODEL, ServerProcess

HELLO = [{"role": "user", "content": "Hello world"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "The quick brown fox"},
    {"role": "assistant", "content": "jumps"},
    {"role": "user", "content": "over what?"},
]
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
CALLED = [
    *HELLO,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]
VOLATILE = {"id", "created", "created_at", "completed_at", "response_id", "item_id", "call_id"}
VOLATILE |= {"request_id", "system_fingerprint", "metrics", "obfuscation", "sequence_number"}
VOLATILE |= {"content_index"}  # in streamed responses 0.14.1 counts the pieces with it
"""Keys whose values differ from run to run; that they are there is compared."""

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """One request: `kind` is a call of the openai client, or an HTTP method."""

    name: str
    kind: str
    body: Any = None
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def chat(name: str, messages: Any = HELLO, **body: Any) -> Shape:
    sent = {"model": MODEL, "messages": messages, "max_tokens": 12, "temperature": 0, **body}
    return Shape(f"chat {name}", "chat", sent)


def text(name: str, prompt: Any = "The quick", **body: Any) -> Shape:
    sent = {"model": MODEL, "prompt": prompt, "max_tokens": 12, "temperature": 0, **body}
    return Shape(f"text {name}", "completions", sent)


def respond(name: str, input_: Any = "Hello world", **body: Any) -> Shape:
    sent = {"model": MODEL, "input": input_, "max_output_tokens": 16, "temperature": 0, **body}
    return Shape(f"responses {name}", "responses", sent)


def post(path: str, name: str, body: Any, **headers: str) -> Shape:
    return Shape(f"{path} {name}", "POST", body, path, headers)


def get(path: str, **headers: str) -> Shape:
    return Shape(f"GET {path}", "GET", None, path, headers)


SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
SHAPES = [
    chat("plain"),
    chat("conversation", TALK),
    chat("content parts", [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]),
    chat("stream", stream=True),
    chat("stream with usage", stream=True, stream_options={"include_usage": True}),
    chat("stop", stop=["a", "e"]),
    chat("stop kept", stop=["e"], include_stop_str_in_output=True),
    chat("stop token", stop_token_ids=list(range(3, 200))),
    chat("stream stop", stop=["a"], stream=True),
    chat("n", n=2, temperature=0.8, seed=3),
    chat("n stream", n=2, stream=True, temperature=0.8, seed=3),
    chat("seed", seed=11, temperature=1.0),
    chat("top", top_p=0.5, top_k=5, min_p=0.01, temperature=0.9, seed=5),
    chat("penalties", presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=1.2),
    chat("logit bias", logit_bias={"65": 50}),
    chat("logprobs", logprobs=True, top_logprobs=3),
    chat("logprobs stream", logprobs=True, top_logprobs=2, stream=True),
    chat("prompt logprobs", prompt_logprobs=1),
    chat("echo", echo=True),
    chat("ids", return_token_ids=True),
    chat("min tokens", min_tokens=10, ignore_eos=True),
    chat("max completion tokens", max_completion_tokens=3, max_tokens=None),
    chat("bad words", bad_words=["the", "qu"]),
    chat("choice", structured_outputs={"choice": ["yes", "no"]}),
    chat("regex", structured_outputs={"regex": "[0-9]{4}"}),
    chat("grammar", structured_outputs={"grammar": 'root ::= "a" "b"+ "c"'}),
    chat("json object", response_format={"type": "json_object"}, max_tokens=30),
    chat("json schema", response_format=SCHEMA, max_tokens=40),
    chat("json schema stream", response_format=SCHEMA, max_tokens=40, stream=True),
    chat("tools auto", tools=[WEATHER]),
    chat("tools auto stream", tools=[WEATHER], stream=True),
    chat("tools none", tools=[WEATHER], tool_choice="none"),
    chat("tools required", tools=[WEATHER], tool_choice="required", max_tokens=60),
    chat(
        "tools named",
        tools=[WEATHER],
        tool_choice=WEATHER | {"function": {"name": "get_weather"}},
        max_tokens=40,
    ),
    chat(
        "tools named stream",
        tools=[WEATHER],
        stream=True,
        max_tokens=40,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    ),
    chat("tool result", CALLED, tools=[WEATHER]),
    chat(
        "continue",
        [*HELLO, {"role": "assistant", "content": "The"}],
        add_generation_prompt=False,
        continue_final_message=True,
    ),
    chat("LoRA", model="adapter"),
    chat("unicode", [{"role": "user", "content": "naïve 東京 🙂 \u0000 end"}]),
    chat("priority", priority=3),
    chat("no messages", []),
    chat("unknown model", model="nobody"),
    chat("unknown role", [{"role": "martian", "content": "x"}]),
    chat("negative tokens", max_tokens=-3),
    chat("temperature", temperature=-1),
    chat("top p", top_p=3),
    chat("n too small", n=0),
    chat("too long", [{"role": "user", "content": "fox " * 3000}]),
    chat("too many tokens asked", max_tokens=5000),
    chat("too many logprobs", logprobs=True, top_logprobs=500),
    chat(
        "bad schema",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "no"}},
        },
    ),
    chat("bad grammar", structured_outputs={"grammar": "root :: ="}),
    chat("bad tool choice", tool_choice="required"),
    text("plain"),
    text("list", ["Hello", "The quick"]),
    text("tokens", [65, 66, 67]),
    text("token lists", [[65, 66], [70, 71]]),
    text("stream", stream=True),
    text("stream list", ["Hello", "The"], stream=True, stream_options={"include_usage": True}),
    text("echo", echo=True),
    text("echo logprobs", echo=True, logprobs=2),
    text("logprobs", logprobs=3),
    text("n", n=3, temperature=0.7, seed=1),
    text("suffix", suffix="end"),
    text("zero tokens", max_tokens=0, echo=True),
    text("one token", max_tokens=1),
    text("LoRA", model="adapter"),
    text("no prompt", None),
    text("wild tokens", [99999]),
    text("negative token", [-5]),
    respond("plain"),
    respond("instructions", instructions="Be brief."),
    respond("messages", TALK[:2]),
    respond("stream", stream=True),
    respond(
        "schema",
        text={"format": {"type": "json_schema", "name": "city", "schema": CITY}},
        max_output_tokens=40,
    ),
    respond("unknown model", model="nobody"),
    respond("unknown previous", previous_response_id="resp_none"),
    post(
        "/v1/messages",
        "plain",
        {"model": MODEL, "max_tokens": 8, "messages": HELLO, "temperature": 0},
    ),
    post(
        "/v1/messages",
        "stream",
        {"model": MODEL, "max_tokens": 8, "messages": HELLO, "temperature": 0, "stream": True},
    ),
    post("/v1/messages", "bad", {"model": MODEL, "messages": HELLO}),
    post("/tokenize", "prompt", {"model": MODEL, "prompt": "Hello 東京"}),
    post("/tokenize", "strings", {"model": MODEL, "prompt": "Hello", "return_token_strs": True}),
    post("/tokenize", "chat", {"model": MODEL, "messages": TALK}),
    post("/tokenize", "bad", {"model": MODEL}),
    post("/detokenize", "ids", {"model": MODEL, "tokens": [65, 66, 67]}),
    post("/detokenize", "bad", {"model": MODEL, "tokens": "x"}),
    post("/v1/chat/completions", "no JSON", b"{nonsense"),
    post("/v1/chat/completions", "a list", []),
    post("/v1/chat/completions", "wrong key", {}, Authorization="Bearer wrong"),
    post("/v1/embeddings", "of a chat model", {"model": MODEL, "input": "x"}),
    post("/v1/nowhere", "", {}),
    get("/v1/models"),
    get("/version"),
    get("/v1/completions"),
]
EMBEDDING_SHAPES = [
    Shape(
        "embeddings",
        "embeddings",
        {"model": MODEL, "input": "Hello world", "encoding_format": "float"},
    ),
    Shape(
        "embeddings of a list",
        "embeddings",
        {"model": MODEL, "input": ["Hello", "The"], "encoding_format": "float"},
    ),
    Shape(
        "embeddings in base64",
        "embeddings",
        {"model": MODEL, "input": "Hello", "encoding_format": "base64"},
    ),
    post("/pooling", "plain", {"model": MODEL, "input": "Hello world"}),
    post("/score", "pair", {"model": MODEL, "text_1": "Hello", "text_2": "The quick"}),
    post("/rerank", "two", {"model": MODEL, "query": "Hello", "documents": ["The", "quick"]}),
    post("/tokenize", "prompt", {"model": MODEL, "prompt": "Hello"}),
    post("/v1/chat/completions", "of an embedding model", {"model": MODEL, "messages": HELLO}),
    post("/v1/embeddings", "too long", {"model": MODEL, "input": "fox " * 900}),
]
REASONING_SHAPES = [
    chat("reasoning"),
    chat("reasoning stream", stream=True),
    chat("reasoning left out", include_reasoning=False),
    respond("reasoning"),
]
EXTRA = {"top_k", "min_p", "repetition_penalty", "include_stop_str_in_output", "stop_token_ids"}
EXTRA |= {"prompt_logprobs", "echo", "return_token_ids", "min_tokens", "ignore_eos", "bad_words"}
EXTRA |= {"structured_outputs", "add_generation_prompt", "continue_final_message", "priority"}
EXTRA |= {"include_reasoning"}
"""What vLLM takes beyond the API; the client passes it on in `extra_body`."""


def ask(server: ServerProcess, shape: Shape) -> Any:
    """Send a shape; its answer as plain data, without what differs from run to run."""
    if shape.kind in ("GET", "POST"):
        headers = {"Authorization": f"Bearer {KEY}", **shape.headers}
        answer = server.ask(shape.path, shape.body, shape.kind, headers)
        return [answer.status, plain(_parsed(answer.body))]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    call = {
        "chat": client.chat.completions.create,
        "completions": client.completions.create,
        "responses": client.responses.create,
        "embeddings": client.embeddings.create,
    }[shape.kind]
    own = EXTRA if shape.kind != "completions" else EXTRA - {"echo"}
    extra = {key: value for key, value in shape.body.items() if key in own}
    body = {key: value for key, value in shape.body.items() if key not in own}
    try:
        reply = call(**body, extra_body=extra)  # type: ignore[operator]
        if shape.body.get("stream"):
            return [200, folded([plain(chunk.model_dump()) for chunk in reply])]
        return [200, plain(reply.model_dump())]
    except openai.APIStatusError as error:
        return [error.status_code, plain(error.body)]
    finally:
        client.close()


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        lines = body.decode().splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
        return folded([plain(json.loads(line)) for line in data]) if data else body.decode()


def plain(value: Any) -> Any:
    """The value with volatile parts masked and numbers rounded to what two runs agree on."""
    if isinstance(value, Mapping):
        return {
            key: ("*" if value[key] is not None else None) if key in VOLATILE else plain(value[key])
            for key in value
        }
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    return value


TEXTS = {"content", "text", "arguments", "reasoning", "reasoning_content", "delta", "thinking"}


def folded(chunks: list[Any]) -> list[Any]:
    """The chunks of a stream put together: where it is cut depends on who is faster.

    One value for a completion; one for each kind of event and place, in order of appearance.
    """
    events: dict[tuple[Any, ...], Any] = {}
    for chunk in chunks:
        names = ("type", "output_index", "content_index", "index")
        key = tuple(chunk.get(name) for name in names)
        events[key] = merged(events[key], chunk) if key in events else chunk
    return list(events.values())


def merged(one: Any, two: Any, key: str = "") -> Any:
    """Two pieces of a stream as one: texts and lists go on, of the rest the later counts."""
    if one is None or two is None:
        return one if two is None else two
    if isinstance(one, dict) and isinstance(two, dict):
        names = [*one, *(name for name in two if name not in one)]
        return {name: merged(one.get(name), two.get(name), name) for name in names}
    if isinstance(one, list) and isinstance(two, list):
        if not all(isinstance(item, dict) and "index" in item for item in one + two):
            return one + two
        places: dict[int, Any] = {}
        for item in one + two:
            place = item["index"]
            places[place] = merged(places[place], item) if place in places else item
        return [places[place] for place in sorted(places)]
    if isinstance(one, str) and isinstance(two, str) and key in TEXTS:
        return one + two
    return two
