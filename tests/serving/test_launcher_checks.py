"""Bad input and full machines: one sentence each, before an engine is built."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import checks, environment, options
from launcher.console import Console
from launcher.diagnose import diagnose, is_known
from launcher.errors import BadInput, EngineFailed, LauncherError, MachineRefuses

ROOT = Path(__file__).resolve().parents[2]
GIB = checks.GIB


def run(*arguments: str | Path, **extra: str) -> tuple[int, str]:
    """The launcher without any vLLM: what is found out must be found out before the import."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder as far as the checks read it: 2 GiB of weights, sparse."""
    folder = tmp_path / "my model"
    folder.mkdir()
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "torch_dtype": "bfloat16",
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "num_hidden_layers": 32,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(2 * GIB)
    return folder


def test_help_is_there_without_vllm() -> None:
    code, said = run("--help")
    assert code == 0
    for name in ("--model", "--max-queue", "--stop-timeout", "8100", "--help=all"):
        assert name in said


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing/here/at all", "there is no model folder"),
        ("./nothing", "there is no model folder"),
        ("C:\\models\\nothing", "there is no model folder"),
        ("{tmp}/empty", "has no config.json"),
        ("{tmp}/bare", "has no weights"),
        ("{tmp}/model.gguf", "is a GGUF file"),
        ("{tmp}/weights.safetensors", "is a file, not a model"),
    ],
)
def test_model_that_cannot_be_one(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    for file in ("model.gguf", "weights.safetensors"):
        (tmp_path / file).write_bytes(b"x")
    code, said = run("--model", name.replace("{tmp}", str(tmp_path)))
    assert code == 2
    assert sentence in said
    assert "hint: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-1.5B", "gpt2", "s3://bucket/a/b", "org/name:Q4"])
def test_names_of_the_hub_are_left_to_vllm(name: str) -> None:
    checks.check_model(name)


def test_weights_are_asked_for_only_where_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    checks.check_model(str(tmp_path), "dummy")
    guess = options.early(["--model", str(tmp_path), "--load-format=dummy"])
    assert guess is not None
    checks.check_options(guess)
    with pytest.raises(BadInput, match="has no weights"):
        checks.check_model(str(tmp_path), "auto")


def test_port_in_use(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = run("--model", model, "--port", str(port))
    assert code == 3
    assert f"port {port} is in use" in said
    assert f"--port {port + 1}" in said
    assert "Traceback" not in said


def test_listener_holds_the_port_and_answers_nobody_yet() -> None:
    with checks.listener("127.0.0.1", 0) as bound:
        host, port = bound.getsockname()
        assert host == "127.0.0.1"
        assert bound.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for no other
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=5)
        bound.listen()
        with pytest.raises(MachineRefuses):
            checks.listener("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "70000"], "--port 70000 is no port"),
        (["--max-queue", "-1"], "--max-queue"),
        (["--stop-timeout", "nan"], "--stop-timeout"),
        (["--host", "no.such.host.invalid"], "is no address"),
    ],
)
def test_bad_option(model: Path, arguments: list[str], sentence: str) -> None:
    code, said = run("--model", model, *arguments)
    assert code == 2
    assert sentence in said


def test_several_gpus_are_refused_on_windows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = options.early(["--model", str(model), "--tensor-parallel-size", "2"])
    assert asked is not None
    checks.check_options(asked)  # elsewhere it is upstream's business
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BadInput, match=r"tensor-parallel-size 2.*Windows.*NCCL"):
        checks.check_options(asked)


@pytest.mark.parametrize(
    ("arguments", "model_name"),
    [
        (["--model", "a", "--port=8200", "--seed", "3"], "a"),
        (["--model=a", "--max_num_seqs", "3"], "a"),
        (["a"], "a"),
        (["--enforce-eager", "a"], None),  # might be the value of an option unknown here
        (["--model", "a", "--config", "x.yaml"], None),
        (["--model", "a", "--port", "x"], None),
    ],
)
def test_early_look_at_the_command_line(arguments: list[str], model_name: str | None) -> None:
    found = options.early(arguments)
    assert (found and found.model) == model_name


@given(st.lists(st.text(max_size=8), max_size=6))
def test_early_look_never_raises(arguments: list[str]) -> None:
    found = options.early(arguments)
    assert found is None or isinstance(found, argparse.Namespace)


# --- memory -----------------------------------------------------------------------------------


def test_need_of_a_model(model: Path) -> None:
    wanted = checks.need(model)
    assert wanted is not None
    assert wanted.weights == 2 * GIB
    assert wanted.kv_per_token == 2 * 32 * 4 * 128 * 2  # K and V, layers, heads, size, bytes
    as_float = checks.need(model, "float32")
    assert as_float is not None
    assert as_float.weights == 4 * GIB


@pytest.mark.parametrize(
    ("weights", "machine", "sentence", "hint"),
    [
        (15, (24, 24, 0.6), "do not fit: 24.0 GiB .* 0.6 = 14.4 GiB, less 15.0", "0.67"),
        (30, (24, 24, 0.6), "do not fit", "smaller model"),
        (4, (24, 10, 0.6), "only 10.0 of 24.0 GiB .* are free", "0.41"),
        (14, (24, 14.5, 0.6), "", ""),
    ],
)
def test_memory(
    weights: float, machine: tuple[float, float, float], sentence: str, hint: str
) -> None:
    wanted = checks.Need(int(weights * GIB), 131072)
    total, free, share = machine
    asked: Any = ("M", wanted, int(total * GIB), int(free * GIB), share)
    if not sentence:
        checks.check_memory(*asked)
        return
    with pytest.raises(MachineRefuses, match=sentence) as refusal:
        checks.check_memory(*asked)
    assert hint in refusal.value.hint
    assert "1000 tokens of KV cache take 0.12 GiB" in refusal.value.message


@given(st.floats(0.1, 100), st.floats(1, 100), st.floats(0, 1), st.floats(0.05, 0.99))
def test_memory_hint_leads_out(weights: float, total: float, free: float, share: float) -> None:
    """Doing what the hint says leads to no further refusal."""
    wanted = checks.Need(int(weights * GIB), None)
    here = (int(total * GIB), int(total * free * GIB))
    try:
        checks.check_memory("M", wanted, *here, share)
    except MachineRefuses as refusal:
        words = refusal.hint.replace(",", "").split()
        if "--gpu-memory-utilization" in words:
            better = float(words[words.index("--gpu-memory-utilization") + 1])
            if "do not fit" in refusal.message:
                here = (here[0], here[0])
            checks.check_memory("M", wanted, *here, better)


# --- what vLLM says ------------------------------------------------------------------------------

NO_ROOM = (
    "To serve at least one request with the models's max seq len (32768), (1.75 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (0.54 GiB). Based on the available "
    "memory, the estimated maximum model length is 10000. Try increasing `gpu_memory_utilization`"
)
FREE = (
    "Free memory on device cuda:0 (3.1/24.0 GiB) on startup is less than desired GPU memory "
    "utilization (0.6, 14.4 GiB). Decrease GPU memory utilization"
)


@pytest.mark.parametrize(
    ("error", "kind", "sentence", "hint"),
    [
        (
            ValueError(NO_ROOM),
            MachineRefuses,
            "needs 1.75 GiB .* and 0.54 GiB",
            "--max-model-len 10000",
        ),
        (ValueError(FREE), MachineRefuses, "only 3.1 of 24.0 GiB .* 0.6 asks for 14.4", "lower"),
        (RuntimeError("CUDA out of memory. Tried to"), MachineRefuses, "memory ran out", "smaller"),
        (
            RuntimeError("makeDeviceForHostname(): unsupported gloo device"),
            MachineRefuses,
            "gloo",
            "patched",
        ),
        (
            ImportError("DLL load failed while importing _C: The"),
            MachineRefuses,
            "module _C",
            "torch",
        ),
        (
            OSError("nobody/x is not a local folder and is not a valid model identifier"),
            BadInput,
            "neither a folder",
            "--model",
        ),
    ],
)
def test_known_failures_of_the_start(
    error: Exception, kind: type[LauncherError], sentence: str, hint: str
) -> None:
    wrapped = RuntimeError("Engine core initialization failed.")
    wrapped.__cause__ = error
    found = diagnose(wrapped)
    assert isinstance(found, kind)
    assert is_known(found)
    assert re.search(sentence, found.message)
    assert hint in found.hint


def test_unknown_failure_is_quoted() -> None:
    found = diagnose(RuntimeError("first line\nsecond"))
    assert isinstance(found, EngineFailed)
    assert "RuntimeError: first line" in found.message
    assert not is_known(found)


# --- the environment ---------------------------------------------------------------------------


def test_variables_of_windows() -> None:
    on_windows = environment.variables("win32", "0.14.1")
    assert on_windows["VLLM_ATTENTION_BACKEND"] == "FLASH_ATTN"
    assert on_windows["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert on_windows["VLLM_HOST_IP"] == "127.0.0.1"
    assert "VLLM_ATTENTION_BACKEND" not in environment.variables("win32", "0.17.1")
    assert "VLLM_HOST_IP" not in environment.variables("linux", "0.14.1")


def test_variables_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    monkeypatch.setitem(sys.modules, "uvloop", sys)
    environment.prepare()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert sys.modules["uvloop"] is sys


def test_uvloop_stand_in_runs() -> None:
    async def answer() -> int:
        return 42

    assert environment.uvloop_stand_in().run(answer()) == 42


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        (None, False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str | None, loopback: bool) -> None:
    assert checks.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "keys", "variable", "warned"),
    [
        ("0.0.0.0", None, None, True),
        ("0.0.0.0", [""], None, True),
        ("0.0.0.0", ["k"], None, False),
        ("0.0.0.0", None, "k", False),
        ("127.0.0.1", None, None, False),
    ],
)
def test_loud_warning_of_an_open_server(
    host: str,
    keys: list[str] | None,
    variable: str | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    if variable:
        monkeypatch.setenv("VLLM_API_KEY", variable)
    asked = argparse.Namespace(host=host, api_key=keys)
    assert checks.open_to_anybody(asked) is warned
    said = io.StringIO()
    Console(said).open_to_others(host)
    assert "WARNING: 0.0.0.0" in said.getvalue() or not warned


def test_console_survives_old_encodings() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="cp1252")
    Console(stream).error(BadInput("no model in D:\\\u6771\u4eac", "caf\u00e9"))
    assert raw.getvalue().decode("cp1252").splitlines() == [
        "error: no model in D:\\??",
        "hint: caf\u00e9",
    ]
