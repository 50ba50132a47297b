"""Real vLLM engines for the tests: an environment per version, and servers run in it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from filelock import FileLock

from portkit.upstream import Cache

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_S = 400
UNVERIFIED = ssl._create_unverified_context()  # the tests' certificates are self-signed
KEY = "sk-test"
MODEL = "tiny"
NEWEST = "0.32.0"
PINNED = "0.14.1"
UPSTREAMS_SERVER = "vllm.entrypoints.openai.api_server"
COMMON: list[str | Path] = [
    *("--host", "127.0.0.1", "--served-model-name", MODEL, "--api-key", KEY),
    *("--enforce-eager", "--max-num-seqs", "64", "--gpu-memory-utilization", "0.6"),
]
LEAN = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""`vllm serve` in two processes instead of three: on CPUs its worker has one of its own."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONUNBUFFERED": "1",
}


class NoEngine(Exception):
    """The engine's environment cannot be made here."""


def engine_python(version: str) -> Path:
    """The Python of an environment with vLLM `version` for CPUs, made once per machine.

    It lies in the project's user cache, and is made anew when its list of packages changes.

    Raises:
        NoEngine: pip could not install it.
    """
    pins = HERE / f"engine-{version}.txt"
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    base = Cache.default().path / "engines"
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"{version}-{digest[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "complete"
    with FileLock(base / f"{version}.lock"):
        if not stamp.exists():
            venv.create(folder, with_pip=True, clear=True)
            install: list[str | Path] = [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--no-compile",
            ]
            done = subprocess.run(
                [*install, "-r", pins], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise NoEngine(f"pip could not install {pins.name}:\n{done.stderr[-2000:]}")
            _add_metadata(python, version)
            stamp.touch()
    return python


def _add_metadata(python: Path, version: str) -> None:
    """Tell importlib that `vllm` is installed: the wheel for CPUs goes by another name."""
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    info = Path(packages.stdout.strip()) / f"vllm-{version}.dist-info"
    info.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (info / "METADATA").write_text(text)


def make_models(python: Path) -> Path:
    """The folder of the tiny models, made once per engine environment."""
    script = HERE / "tiny_models.py"
    folder = python.parents[1] / f"models-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            subprocess.run([python, script, folder], check=True, capture_output=True)
            (folder / "complete").touch()
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@dataclass
class ServerProcess:
    """A server started as a user starts it; use it in a `with`."""

    python: Path
    arguments: Sequence[str | Path]
    log: Path
    module: str = "launcher"
    extra: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **self.extra}
        command = [self.python, "-m", self.module, "--port", str(self.port), *self.arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env=environment,
                cwd=self.log.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_ready(self) -> ServerProcess:
        """Until /health answers.

        Raises:
            AssertionError: it ended, or takes too long; with the end of its log.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output[-4000:]
            try:
                if self.ask("/health", timeout=5).status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready after {START_S} s\n{self.output[-4000:]}")

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> Answer:
        """One request; any status is an answer. A `body` of bytes goes as it is."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=UNVERIFIED) as reply:
                return Answer(reply.status, _lower(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 60) -> int:
        return self.process.wait(timeout)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass(frozen=True)
class Engine:
    """An environment with a vLLM, and tiny models for it."""

    version: str
    python: Path
    models: Path

    def server(
        self, log: Path, model: str | Path, *options: str | Path, **named: object
    ) -> ServerProcess:
        """Start a server (`module` names another one than the launcher)."""
        arguments = ["--model", self.models / model, *COMMON, *options]
        return ServerProcess(self.python, arguments, log, **named)  # type: ignore[arg-type]
