"""`ci/smoke.py` on a real engine, and what it says of answers that are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving.engines import ENVIRONMENT, ROOT, Engine

from portkit.ci.served import Answer, ServerFailed
from portkit.ci.smoke import Said, answered, stream_answered
from portkit.errors import Exit

TOKENS = 24


def smoke(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "ci/smoke.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def test_the_launcher_passes(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = smoke("--python", engine.python, "--log", log, "--json")
    assert done.returncode == Exit.OK, done.stderr + log.read_text()
    found = json.loads(done.stdout)
    assert found["text"] and 0 < found["start_s"] < found["all_s"]
    assert "stopping" in log.read_text()


def test_a_launcher_that_does_not_start_fails_in_one_sentence(
    engine: Engine, tmp_path: Path
) -> None:
    options = ("--python", engine.python, "--log", tmp_path / "log")
    done = smoke(*options, "--", "--no-such-option")
    assert done.returncode == Exit.WAITING
    first, second = done.stderr.splitlines()
    assert first.startswith("error: launcher ended with 2 before it was ready: ")
    assert first.endswith("unrecognized arguments: --no-such-option")
    assert second == f"hint: all that it said is in {tmp_path / 'log'}"
    done = smoke(*options, "--start-timeout", "0.5")
    assert done.returncode == Exit.WAITING
    assert done.stderr.startswith("error: launcher was not ready after 0.5 s: ")


def test_a_python_that_has_no_engine_is_named(tmp_path: Path) -> None:
    done = smoke("--python", tmp_path / "python")
    assert (done.returncode, done.stdout) == (Exit.BAD_INPUT, "")
    assert f"there is no {tmp_path / 'python'}" in done.stderr
    done = smoke("--log", tmp_path / "log")
    assert done.returncode == Exit.UNAVAILABLE
    assert "could not make a tiny model: ModuleNotFoundError" in done.stderr


def whole(**changed: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "ab"}, "finish_reason": "length"}
    return {
        "object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": TOKENS},
        **changed,
    }  # fmt: skip


def piece(text: str | None, reason: str | None = None) -> dict[str, Any]:
    choice = {"delta": {"content": text}, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> Answer:
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Answer(200, {}, (lines + end).encode())


def test_an_answer_as_asked_for_is_read() -> None:
    assert answered(Answer(200, {}, json.dumps(whole()).encode())) == Said("ab", "length")
    said = stream_answered(stream(piece(None), piece("a"), piece("b", "length")))
    assert said == Said("ab", "length")


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"error": "no"},
        whole(object="text_completion"),
        whole(choices=[]),
        whole(choices=whole()["choices"] * 2),
        whole(choices=[{"message": {"role": "assistant", "content": "a"}, "finish_reason": None}]),
        whole(choices=[{"message": {"role": "user", "content": "a"}, "finish_reason": "length"}]),
        whole(
            choices=[{"message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]
        ),
        whole(usage={"completion_tokens": TOKENS - 1}),
        whole(usage=None),
    ],
)
def test_an_answer_that_is_none_is_refused(body: Any) -> None:
    with pytest.raises(ServerFailed, match="no chat completion as asked"):
        answered(Answer(200, {}, json.dumps(body).encode()))


@pytest.mark.parametrize("read", [answered, stream_answered])
def test_a_status_and_a_page_are_told(read: Any) -> None:
    with pytest.raises(ServerFailed, match="answered 503: b'busy'"):
        read(Answer(503, {}, b"busy"))
    with pytest.raises(ServerFailed):
        read(Answer(200, {}, b"<html>"))
    with pytest.raises(ServerFailed):
        read(Answer(200, {}, b""))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (stream(piece("a"), piece("b", "length"), end=""), "without \\[DONE\\]"),
        (stream(piece("a"), piece("b")), "end with"),
        (stream(piece("ab", "length")), "streamed 1 pieces"),
        (stream(piece("a", "length"), piece("b", "length")), "end with"),
        (stream(piece("a"), {"error": {"message": "died"}}), "no chat completion"),
        (stream(piece("a"), whole()), "no chat completion"),
        (stream(), "streamed 0|no chat completion"),
    ],
)
def test_a_stream_that_is_none_is_refused(answer: Answer, said: str) -> None:
    with pytest.raises(ServerFailed, match=said):
        stream_answered(answer)
