"""A server run as a user runs it: started as a command, asked over HTTP, stopped by a signal."""

from __future__ import annotations

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from portkit.errors import Exit, PortError

START_S = 400
UNVERIFIED = ssl._create_unverified_context()  # certificates of tests are self-signed

if sys.platform == "win32":
    STOP = signal.CTRL_BREAK_EVENT
    _GROUP = subprocess.CREATE_NEW_PROCESS_GROUP  # else the signal reaches whoever sends it too
else:
    STOP = signal.SIGTERM
    _GROUP = 0


class ServerFailed(PortError):
    """The server did not do what it was asked to."""

    exit_code = Exit.WAITING


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """An answer over HTTP, whatever its status."""

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
    """`python -m module`, by default the launcher of the repository at `root`; use it in a `with`.

    `log` has what it prints; `extra` are environment variables beside ours.
    """

    python: Path
    arguments: Sequence[str | Path]
    log: Path
    root: Path
    module: str = "launcher"
    extra: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        environment = {
            **os.environ, "PYTHONPATH": str(self.root), "PYTHONUNBUFFERED": "1", **self.extra,
        }  # fmt: skip
        command = [self.python, "-m", self.module, "--port", str(self.port), *self.arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env=environment,
                cwd=self.log.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                creationflags=_GROUP,
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_ready(self, seconds: float = START_S) -> ServerProcess:
        """Until /health answers.

        Raises:
            ServerFailed: it ended, or takes too long; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            code = self.process.poll()
            if code is not None:
                raise self.failed(f"{self.module} ended with {code} before it was ready")
            try:
                if self.ask("/health", timeout=5).status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.2)
        raise self.failed(f"{self.module} was not ready after {seconds:g} s")

    def failed(self, what: str) -> ServerFailed:
        """The error that says `what`, with its last word and the place of the others."""
        return ServerFailed(f"{what}: {self._last()}", hint=f"all that it said is in {self.log}")

    def _last(self) -> str:
        """What it said of its own failure, else the last line that it printed."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it printed nothing"])[-1]

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
            self.process.send_signal(STOP)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
