"""`series.py completion`: a short command `series` for a shell, which completes its arguments.

The shells ask `series.py` itself, through argcomplete; so completion knows every option, and the
patches there are.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from portkit.commands.arguments import subcommand
from portkit.errors import Exit

if TYPE_CHECKING:
    from portkit.commands.arguments import Subcommands

ASKED = "_ARGCOMPLETE"  # in the environment when a shell asks for completions
SHELLS = ("bash", "zsh", "fish", "powershell")

_SCRIPT = Path(__file__).resolve().parents[2] / "series.py"
_PATCHES = {"patch", "patches", "which", "other"}  # what arguments that mean patches are called
_PLACES = {"file", "place", "path"}


def add(subcommands: Subcommands, root: Path) -> None:
    """Add the commands of this module."""
    parser = subcommand(
        subcommands,
        "completion",
        "a shell command `series` that completes commands, options and patches",
        "series.py completion bash",
        description="Print what defines the command `series`, which runs this script and "
        "completes its commands, options, patches and files, for a shell.  What the shell reads "
        'when it starts takes it up: eval "$(...)" in .bashrc, and in .zshrc after compinit; '
        "... | source in config.fish; ... | Out-String | Invoke-Expression in $PROFILE.",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--name", default="series", help="of the command (default: %(default)s)")
    parser.set_defaults(run=partial(_completion, root=root))


def _completion(given: argparse.Namespace, root: Path) -> int:
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415

    print(_function(given.shell, given.name, sys.executable, str(_SCRIPT)))
    print(shellcode([given.name], shell=given.shell))
    return Exit.OK


def _function(shell: str, name: str, python: str, script: str) -> str:
    """The definition of a function that runs `script` with the arguments it gets."""
    if shell == "powershell":
        words = " ".join("'" + word.replace("'", "''") + "'" for word in (python, script))
        return f"function {name} {{ & {words} @args }}"
    if shell == "fish":
        escaped = (word.replace("\\", "\\\\").replace("'", "\\'") for word in (python, script))
        words = " ".join(f"'{word}'" for word in escaped)
        return f"function {name}; {words} $argv; end"
    # A shell of Unix, on Windows too: it takes forward slashes.
    words = shlex.join(Path(word).as_posix() for word in (python, script))
    return f'{name}() {{ {words} "$@"; }}'


def answer(parser: argparse.ArgumentParser, root: Path) -> None:
    """Answer a shell that asks what may come next, and end the process."""
    import argcomplete  # noqa: PLC0415

    for action in _actions(parser):
        names = {action.dest, str(action.metavar or "").lower()}
        if names & _PATCHES:
            cast(Any, action).completer = partial(_patches, root)
        elif names & _PLACES:
            cast(Any, action).completer = partial(_files, root)
    argcomplete.autocomplete(parser, always_complete_options="long")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def _patches(root: Path, prefix: str, **_: Any) -> list[str]:
    """The files the patches change; once something is typed, also their names and last parts."""
    files = _files(root, prefix)
    if not prefix:
        return files
    last = [file.rpartition("/")[2] for file in files]
    return [*files, *_names(root), *(name for name in last if last.count(name) == 1)]


def _files(root: Path, prefix: str, **_: Any) -> list[str]:
    names = [name.removesuffix(".patch").split("/") for name in _names(root)]
    return ["/".join(parts[2 if parts[0] == "deps" else 1 :]) for parts in names]


def _names(root: Path) -> list[str]:
    """The names in `series`, whatever is wrong with it."""
    from portkit.patches.series import SERIES_FILE, order_lines  # noqa: PLC0415

    try:
        lines = order_lines((root / SERIES_FILE).read_bytes())
    except OSError:
        return []
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
