"""Real vLLM engines for the tests: an environment per version, and servers run in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from portkit.ci import smoke
from portkit.ci.served import Answer, ServerProcess
from portkit.upstream.source import Cache

__all__ = ["Answer", "ServerProcess"]  # for the tests that use the fixtures

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
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
    digest = hashlib.sha256(smoke.MODELS_SCRIPT.read_bytes()).hexdigest()[:12]
    folder = python.parents[1] / f"models-{digest}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            smoke.make_models(python, folder)
            (folder / "complete").touch()
    return folder


@dataclass(frozen=True)
class Engine:
    """An environment with a vLLM, and tiny models for it."""

    version: str
    python: Path
    models: Path

    def server(
        self,
        log: Path,
        model: str | Path,
        *options: str | Path,
        module: str = "launcher",
        extra: Mapping[str, str] | None = None,
        scheme: str = "http",
    ) -> ServerProcess:
        """Start a server (`module` names another one than the launcher)."""
        arguments = ["--model", self.models / model, *COMMON, *options]
        variables = {**ENVIRONMENT, **(extra or {})}
        return ServerProcess(self.python, arguments, log, ROOT, module, variables, scheme)
