"""The command line: the launcher's own options and defaults, and every option of `vllm serve`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .compat import required, upstream
from .errors import BadInput

DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 8100,
    "gpu_memory_utilization": 0.6,
    "max_num_seqs": 64,
    "max_model_len": -1,  # `auto`: the model's length, or what the KV cache has room for
}
WINDOWS_DEFAULTS: dict[str, Any] = {"enforce_eager": True}

HELP = """\
usage: python -m launcher --model MODEL [options]

vLLM's OpenAI-compatible server in one process, on Windows and Linux.

options of the launcher:
  --model MODEL                   a folder, or a name on the model hub (required)
  --host HOST                     default 127.0.0.1
  --port PORT                     default 8100
  --api-key KEY                   ask clients for this key; set one before binding elsewhere
  --gpu-memory-utilization SHARE  share of the GPU's memory to use in all, default 0.6
  --max-model-len TOKENS          default auto: the model's, or what the KV cache has room for
  --max-num-seqs N                requests computed at once, default 64
  --max-queue N                   requests waiting beyond those before the server answers 429,
                                  default 512; 0 for no bound
  --stop-timeout SECONDS          how long a stop lets running requests finish, default 10
  --verbose                       vLLM's own log, and one line per request

Every other option of `vllm serve` works as there:
  --help=all, --help=ModelConfig, --help=Frontend, ... show them."""

ONE_ENGINE = {
    "api_server_count": (None, 1),
    "data_parallel_size": (1, None),
    "headless": (False,),
    "grpc": (False,),
}
"""Options of `vllm serve` that ask for more than one engine or server, and what they may be."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add what `vllm serve` does not have."""
    parser.add_argument("--max-queue", type=int, default=512)
    parser.add_argument("--stop-timeout", type=float, default=10.0)
    parser.add_argument("--verbose", action="store_true")


def early(arguments: list[str]) -> argparse.Namespace | None:
    """The few options that can be checked before vLLM is imported, which takes long.

    None if a config file may still change them, or what is there cannot be read: upstream's
    parser says it better.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _unreadable  # type: ignore[method-assign, assignment]
    own_options(parser)
    parser.add_argument("model_tag", nargs="?")
    for name in ("--model", "--host", "--uds", "--config", "--api-key"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--load-format", default="auto")
    parser.set_defaults(host=DEFAULTS["host"], port=DEFAULTS["port"])
    try:
        options, rest = parser.parse_known_args([_dashed(a) for a in arguments])
    except _Unreadable:
        return None
    if options.config is not None or (options.model is None and rest):
        return None  # a positional name may hide among the values of options unknown here
    options.model = options.model or options.model_tag
    return options


def parse(arguments: list[str]) -> argparse.Namespace:
    """All options, by upstream's parser.

    Raises:
        BadInput: they contradict each other, or ask for what one process cannot give.
        SystemExit: code 2 for a wrong option (said by argparse), 0 after a help text.
    """
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="python -m launcher")
    own_options(parser)
    parser = required("make_arg_parser")(parser)
    parser.set_defaults(**DEFAULTS)
    if sys.platform == "win32":
        parser.set_defaults(**WINDOWS_DEFAULTS)
    options: argparse.Namespace = parser.parse_args(arguments)
    if (configure_logging := upstream("configure_logging_from_args")) is not None:
        configure_logging(options)
    if not _names_model(arguments, options):
        raise BadInput("no model was given", "name one: --model FOLDER_OR_NAME")
    options.model = options.model_tag or options.model
    if not options.verbose:
        options.disable_uvicorn_access_log = True
    for name, allowed in ONE_ENGINE.items():
        value = getattr(options, name, allowed[0])
        if value not in allowed:
            raise BadInput(
                f"--{name.replace('_', '-')} is not for the launcher: it runs one engine and "
                "one server in one process",
                "leave it out, or use `vllm serve` on Linux",
            )
    try:
        required("validate_parsed_serve_args")(options)
        _load_plugins(options)
        required("validate_api_server_args")(options)
    except (TypeError, ValueError, KeyError) as error:
        raise BadInput(
            str(error.args[0] if error.args else error).removeprefix("Error: ")
        ) from None
    return options


def _names_model(arguments: list[str], options: argparse.Namespace) -> bool:
    """Whether the user named a model: upstream's parser has one of its own as default."""
    named = any(_dashed(a).partition("=")[0] == "--model" for a in arguments)
    return bool(named or options.model_tag or options.config)


def _load_plugins(options: argparse.Namespace) -> None:
    if options.tool_parser_plugin:
        from vllm.tool_parsers import ToolParserManager

        ToolParserManager.import_tool_parser(options.tool_parser_plugin)
    if options.reasoning_parser_plugin:
        from vllm.reasoning import ReasoningParserManager

        ReasoningParserManager.import_reasoning_parser(options.reasoning_parser_plugin)


class _Unreadable(Exception):
    pass


def _unreadable(message: str) -> None:
    raise _Unreadable(message)


def _dashed(argument: str) -> str:
    """`--max_queue=3` as `--max-queue=3`, as upstream's parser reads it."""
    if not argument.startswith("--"):
        return argument
    name, sign, value = argument.partition("=")
    return name.replace("_", "-") + sign + value
