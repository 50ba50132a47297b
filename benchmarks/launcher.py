r"""Speed of the launcher beside `vllm serve` of the same version and a lock-serialised server.

    python benchmarks/launcher.py --rounds 3 --model chat --markdown FILE

The client is upstream's own `vllm bench serve`, in a process of its own: streamed chats of 64
random tokens in and 64 out.  All servers are up at once, on the same machine and model; those that
are not asked are stopped (SIGSTOP), and they take turns in every round, so that what else the
machine does meets all alike.  Figures are medians over the rounds.  POSIX only.

On a GPU, `--python` names an environment with a vLLM for it.  Options that are not of this command
go to every server; of one GPU each takes the same share:

    python benchmarks/launcher.py --python PYTHON --model large \
        --servers launcher "vllm serve" --gpu-memory-utilization 0.3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from serving.engines import (
    ENVIRONMENT,
    KEY,
    LEAN,
    MODEL,
    NEWEST,
    UPSTREAMS_SERVER,
    Engine,
    ServerProcess,
    engine_python,
)

from benchmarks.report import described, machine, table
from portkit.ci.smoke import MODELS_SCRIPT

OURS, PEER, PEER_2, LOCKED = "launcher", "vllm serve", "vllm serve, 2 processes", "one lock"
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    OURS: ("launcher", {}),
    PEER: (UPSTREAMS_SERVER, {}),
    PEER_2: (UPSTREAMS_SERVER, LEAN),
    LOCKED: ("benchmarks.locked_server", LEAN),
}
"""What each server runs, and with which variables: on CPUs `vllm serve` has three processes."""
HERE = Path(__file__).resolve().parent
CLIENT = HERE / "bench_client.py"
FIGURES = {
    "tokens/s": "output_throughput",
    "TTFT p50": "median_ttft_ms",
    "TTFT p99": "p99_ttft_ms",
    "ITL p50": "median_itl_ms",
    "ITL p99": "p99_itl_ms",
    "TPOT p50": "median_tpot_ms",
}
"""Column to key of the client's result; times in milliseconds."""
HEAD = ("server", "streams", *FIGURES, "of `vllm serve`")


@dataclass(frozen=True)
class Run:
    """One run of the client."""

    server: str
    streams: int
    figures: dict[str, float]


@contextlib.contextmanager
def servers(
    engine: Engine, folder: Path, model: Path, names: Sequence[str], more: Sequence[str]
) -> Iterator[dict[str, ServerProcess]]:
    """The servers, ready, and stopped until they are asked."""
    options = ["--max-model-len", "1024", *more]
    if not any(model.glob("*.safetensors")):
        options += ["--load-format", "dummy"]
    started: dict[str, ServerProcess] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            module, extra = KINDS[name]
            log = folder / name
            server = engine.server(log, model, *options, module=module, extra=extra)
            started[name] = stack.enter_context(server).wait_ready()
            os.killpg(server.process.pid, signal.SIGSTOP)
        try:
            yield started
        finally:
            for server in started.values():
                os.killpg(server.process.pid, signal.SIGCONT)


class Client:
    """`vllm bench serve`, imported once, asking for `model`; it writes to `folder`."""

    def __init__(self, python: Path, folder: Path, model: Path) -> None:
        self.folder, self.model, self.log = folder, model, folder / "client"
        with self.log.open("wb") as written:
            self.process = subprocess.Popen(
                [python, CLIENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                env={**os.environ, **ENVIRONMENT, "OPENAI_API_KEY": KEY},
            )

    def measure(self, name: str, server: ServerProcess, streams: int) -> dict[str, float]:
        """One run against a server, the others standing still.

        Four requests a stream, after one to warm up: a new size of batch may compile kernels.  The
        server with one lock, whose time a longer queue only adds to, gets one.
        """
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        count = max(16, streams if name == LOCKED else 4 * streams)
        os.killpg(server.process.pid, signal.SIGCONT)
        try:
            self._run(
                *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
                *("--base-url", server.url, "--model", MODEL, "--tokenizer", self.model),
                *("--dataset-name", "random", "--random-input-len", 64),
                *("--random-output-len", 64, "--num-prompts", count, "--ignore-eos"),
                *("--max-concurrency", streams, "--num-warmups", 1 if name == LOCKED else streams),
                *("--percentile-metrics", "ttft,itl,tpot", "--metric-percentiles", "50,99"),
                *("--save-result", "--result-dir", self.folder, "--result-filename", result.name),
            )
        finally:
            os.killpg(server.process.pid, signal.SIGSTOP)
        said = json.loads(result.read_bytes())
        if said["completed"] != count:
            sys.exit(f"{count - said['completed']} of {count} requests failed")
        return {column: float(said[key]) for column, key in FIGURES.items()}

    def _run(self, *arguments: object) -> None:
        assert self.process.stdin and self.process.stdout
        print(json.dumps(list(map(str, arguments))), file=self.process.stdin, flush=True)
        if self.process.stdout.readline() != "done\n":
            sys.exit(f"vllm bench serve failed:\n{self.log.read_text('utf-8')[-4000:]}")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def measured(
    client: Client, started: Mapping[str, ServerProcess], streams: Sequence[int], rounds: int
) -> Iterator[Run]:
    """Every server in turn, with each number of streams, in every round; told as it happens."""
    for number in range(1, rounds + 1):
        for count in streams:
            for name, server in started.items():
                figures = client.measure(name, server, count)
                told = ", ".join(f"{key} {value:.1f}" for key, value in figures.items())
                print(f"{number}: {count:2} streams, {name}: {told}", file=sys.stderr)
                yield Run(name, count, figures)


def medians(runs: list[Run]) -> list[list[str]]:
    """Rows of the table: server, streams, figures, and tokens per second beside `vllm serve`."""
    rows = []
    for streams in sorted({run.streams for run in runs}):
        chosen = {
            name: [run.figures for run in runs if (run.server, run.streams) == (name, streams)]
            for name in dict.fromkeys(run.server for run in runs)
        }
        middle = {
            name: {key: statistics.median(f[key] for f in figures) for key in FIGURES}
            for name, figures in chosen.items()
            if figures
        }
        for name, figures in middle.items():
            beside = middle.get(PEER, figures)["tokens/s"]
            cells = [f"{figures[key]:.0f}" for key in list(FIGURES)[:1]]
            cells += [f"{figures[key]:.1f}" for key in list(FIGURES)[1:]]
            rows.append([name, str(streams), *cells, f"{figures['tokens/s'] / beside:.2f}"])
    return rows


def engine_facts(python: Path) -> dict[str, str]:
    """Versions of what the servers run on, and the GPU if there is one."""
    script = (
        "import importlib.metadata, json, platform, torch; "
        "said = {name: importlib.metadata.version(name) for name in ('vllm', 'torch')}; "
        "said['python of the servers'] = platform.python_version(); "
        "said |= {'gpu': torch.cuda.get_device_name()} if torch.cuda.is_available() else {}; "
        "print(json.dumps(said))"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} has no vLLM: {done.stderr.strip()[-300:]}")
    said: dict[str, str] = json.loads(done.stdout)
    return said


def main() -> int:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 32])
    models = ("chat", "wide", "deep", "large")
    parser.add_argument(
        "--model", choices=models, default="chat", help="of tools/portkit/ci/tiny_models.py"
    )
    parser.add_argument("--python", type=Path, help="of an environment with vLLM and pandas")
    parser.add_argument("--work", type=Path, help="keep model, logs and results in this folder")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    options, more = parser.parse_known_args()
    python = options.python or engine_python(NEWEST)
    if not options.python:
        subprocess.run([python, "-m", "pip", "install", "-q", "pandas", "datasets"], check=True)
    facts = engine_facts(python)
    engine = Engine(facts["vllm"], python, HERE)
    runs: list[Run] = []
    with contextlib.ExitStack() as stack:
        folder = options.work or Path(stack.enter_context(TemporaryDirectory()))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [python, MODELS_SCRIPT, folder, options.model], check=True, capture_output=True
        )
        model = folder / options.model
        client = stack.enter_context(Client(python, folder, model))
        started = stack.enter_context(servers(engine, folder, model, options.servers, more))
        try:
            for run in measured(client, started, options.streams, options.rounds):
                runs.append(run)
        except KeyboardInterrupt:
            print("interrupted: the table has what was measured", file=sys.stderr)
        text = described(machine() | facts) + "\n" + table(HEAD, medians(runs))
        print(text, flush=True)
        if options.markdown:
            options.markdown.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
