"""`tools/doctor.py`: what a maintainer asks for in a bug report, and known failures of a log."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from portkit.build import catalogue, examine, health, kvcache
from portkit.build.examine import Findings
from portkit.build.machine import Machine
from portkit.build.pinned import Pinned
from portkit.build.toolchain import GIB
from portkit.build.words import Check, failed
from portkit.commands.building import add_wanted, checks_as_json, print_checks, wanted_of
from portkit.errors import BadInput, Exit
from portkit.face import console
from portkit.patches import patched, series
from portkit.patches import pin as pinfile
from portkit.upstream.pristine import Pristine

_EXAMPLE = """\
examples:
  tools/doctor.py                                    this machine, to build and to run
  tools/doctor.py build.log                          what is known of the failure in a log
  tools/doctor.py --model C:\\models\\Qwen --gpu-memory-utilization 0.8
"""


def main(
    arguments: Sequence[str], root: Path = console.ROOT, machine: Machine | None = None
) -> int:
    """Run the command on the repository at `root`."""
    machine = machine or Machine()
    given = _parse(arguments)
    if given.catalogue:
        print(catalogue.render(), end="")
        return Exit.OK
    text = _log(given.log)
    console.settle(root)
    pin = pinfile.read(root / pinfile.PIN_FILE)
    with Pristine(pin, upstream=given.upstream, progress=console.progress) as pristine:
        tree = patched.verified_tree(pristine.store, pin, series.load(root).upstream)
        pinned = Pinned.of(pristine.store, pin, tree)
        found = examine.examine(machine, wanted_of(given, root), pinned, load=True)
        checks = [*found.checks, *health.running(machine, found, pinned)]
    if found.target is not None and found.target.vllm is not None:
        checks = health.for_running(checks)
    if given.model is not None:
        checks.append(_model(given, found))
    in_log = health.log_checks(text) if text is not None else []
    if given.json:
        result = {"checks": checks_as_json(checks), "log": checks_as_json(in_log)}
        console.print_json("doctor", result)
    else:
        print_checks(checks)
        if in_log:
            print(f"\n{given.log}:")
            print_checks(in_log)
    return Exit.WAITING if failed([*checks, *in_log]) else Exit.OK


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = console.parser(
        "Look at this machine: what vLLM is built and run with, each with a remedy.",
        prog="doctor.py",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{_EXAMPLE}\n{parser.epilog}"
    parser.add_argument(
        "log", nargs="?", type=Path, metavar="LOGFILE", help="a log to find known failures in"
    )
    parser.add_argument(
        "--catalogue",
        action="store_true",
        help="print the known failures (docs/troubleshooting.md)",
    )
    add_wanted(parser)
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="a model's folder: does it fit, with what context",
    )
    parser.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="of the card (default: this machine's)"
    )
    parser.add_argument(
        "--gpu-memory-utilization",
        type=float,
        default=kvcache.UTILISATION,
        metavar="SHARE",
        help=f"as for the launcher (default: {kvcache.UTILISATION})",
    )
    parser.add_argument(
        "--max-model-len",
        type=int,
        metavar="TOKENS",
        help="length of one request (default: the model's)",
    )
    parser.add_argument(
        "--kv-cache-dtype", default="auto", metavar="TYPE", help="auto, fp8, bfloat16, …"
    )
    return parser.parse_args(arguments)


def _log(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    # PowerShell's redirection writes UTF-16 with a mark.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, errors="replace")


def _model(given: argparse.Namespace, found: Findings) -> Check:
    card, memory, free = "the card", 0, None
    if given.gpu_memory is not None:
        memory, card = int(given.gpu_memory * GIB), f"a card with {given.gpu_memory:g} GiB"
    elif found.gpus:
        gpu = found.gpus[0]
        memory, card, free = gpu.memory, gpu.name, gpu.memory - gpu.used
    if memory <= 0:
        raise BadInput(
            "there is no GPU here to fit the model on", hint="name its memory: --gpu-memory 24"
        )
    model = kvcache.read_model(given.model)
    fit = kvcache.fit(
        model,
        memory,
        utilisation=given.gpu_memory_utilization,
        context=given.max_model_len,
        cache_dtype=given.kv_cache_dtype,
    )
    return health.model_check(model, fit, card, free)
