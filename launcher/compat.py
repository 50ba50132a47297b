"""Where each vLLM version keeps what the launcher uses of it; nothing else knows.

Every name is looked up where it lives now, then where it lived before (0.14.1 is the oldest).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

PLACES = {
    "build_app": ("vllm.entrypoints.launchers.app", "vllm.entrypoints.openai.api_server"),
    "init_app_state": (
        "vllm.entrypoints.launchers.api_server.app_state",
        "vllm.entrypoints.openai.api_server",
    ),
    "make_arg_parser": (
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.launchers.cli_args",
        "vllm.entrypoints.openai.cli_args",
    ),
    "validate_parsed_serve_args": (
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.launchers.cli_args",
        "vllm.entrypoints.openai.cli_args",
    ),
    "validate_api_server_args": (
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.launchers.launcher",
        "vllm.entrypoints.openai.api_server",
    ),
    "get_uvicorn_log_config": (
        "vllm.entrypoints.launchers.utils.server_utils",
        "vllm.entrypoints.serve.utils.server_utils",
        "vllm.entrypoints.openai.server_utils",
    ),
    "load_log_config": ("vllm.entrypoints.openai.api_server",),
    "SSLCertRefresher": (
        "vllm.entrypoints.launchers.utils.ssl",
        "vllm.entrypoints.serve.utils.ssl",
        "vllm.entrypoints.ssl",
    ),
    "_add_shutdown_handlers": ("vllm.entrypoints.launcher",),
    "configure_logging_from_args": ("vllm.logger",),
}
"""Name to the modules that have it, newest first."""


def upstream(name: str) -> Any:
    """The function or class of this name; None where this vLLM has none.

    A module that is there but fails to import raises what it raises: that is no missing name.
    """
    for module in PLACES[name]:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        if found is not None:
            return found
    return None


def required(name: str) -> Any:
    """As `upstream`, for what every version has."""
    found = upstream(name)
    if found is None:
        raise ImportError(f"this vLLM has no {name} in any of {', '.join(PLACES[name])}")
    return found


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call it with those of the named arguments that its version takes."""
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        named = {name: value for name, value in named.items() if name in parameters}
    return function(*arguments, **named)
