"""`python -m launcher`: check, then import vLLM, then serve."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from . import checks, environment
from .console import Console, quiet
from .errors import LauncherError
from .options import HELP, early, parse


def main(arguments: list[str]) -> int:
    """Run the launcher; the exit code (0, 1, 2, 3 or 130, see docs/launcher.md)."""
    if not arguments or arguments in (["-h"], ["--help"]):
        print(HELP)
        return 0 if arguments else 2
    console = Console()
    for number in environment.stop_signals():
        signal.signal(number, signal.default_int_handler)
    try:
        return _run(arguments, console)
    except KeyboardInterrupt:
        console.line("interrupted; nothing is running")
        return 130
    except LauncherError as error:
        console.error(error)
        return error.exit_code
    except Exception as error:
        from .diagnose import diagnose, is_known

        known = diagnose(error)
        if "--verbose" in arguments or not is_known(known):
            traceback.print_exception(error)
        console.error(known)
        return known.exit_code


def _run(arguments: list[str], console: Console) -> int:
    guess = early(arguments)
    if guess is not None and guess.model is not None:
        checks.check_options(guess)
        if not guess.uds:
            checks.listener(guess.host, guess.port).close()
    environment.prepare()
    if "--verbose" not in arguments:
        quiet()
    console.stage(f"importing vLLM {environment.vllm_version() or ''}")
    options = parse(arguments)
    checks.check_options(options)
    if options.uds:
        bound = checks.unix_listener(options.uds)
    else:
        bound = checks.listener(options.host, options.port)
        if checks.open_to_anybody(options):
            console.open_to_others(options.host or "every address of this machine")
    with bound:
        from .server import serve

        return serve(options, bound, console)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: an engine that is still being built has threads that would hold it up.
    os._exit(code)
