"""Whether quotes around an argument of CMake matter, asked of the real CMake.

A quoted argument is always one; without quotes its value is split at `;`, and none if it is empty.
Both spellings are evaluated for paths of every other kind and must give the same arguments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from portkit.audit.cmakefold import Quoted
from portkit.audit.doubt import Doubt
from portkit.errors import Unavailable

VALUES = (
    "/usr/bin/python3", "/opt/my python (3)/bin/python3", "/a:/b:/c", "/x=y/$HOME/#1",
    "it's/\"so\"",
    "/naïve/路径", "relative/path", "/with\\\\backslash", "a,b|c&d<e>f",
)  # fmt: skip
_REFERENCE = re.compile(r"\$(ENV)?\{(\w+)\}")


def same_arguments(quoted: Sequence[Quoted]) -> str:
    """What was asked of CMake, in words.

    Raises `Doubt` where quotes matter, `Unavailable` where there is no CMake.
    """
    program = cmake()
    if program is None:
        raise Unavailable("there is no cmake", hint="pip install cmake")
    script = "\n".join(_script(quoted)) + "\n"
    with tempfile.TemporaryDirectory(prefix="portkit-cmake-") as temp:
        file = Path(temp, "arguments.cmake")
        file.write_text(script, encoding="utf-8")
        done = subprocess.run(
            [program, "-P", str(file)], capture_output=True, encoding="utf-8", check=False
        )
    if done.returncode:
        raise Doubt(f"cmake refuses the arguments: {done.stderr.strip().splitlines()[0]}")
    lines = done.stderr.splitlines()
    for number, (one, other) in enumerate(zip(lines[::2], lines[1::2], strict=True)):
        if one != other:
            place = quoted[number % len(quoted)]
            raise Doubt(f"quotes matter in {place}: {one} became {other}")
    return (
        f"only quotes differ, in {len(quoted)} arguments; CMake gives both spellings the same "
        f"value, unless it is empty or has a semicolon (asked for {len(VALUES)} kinds of paths)"
    )


def cmake() -> str | None:
    """The cmake of this Python's environment, else of the PATH."""
    return shutil.which("cmake", path=sysconfig.get_path("scripts")) or shutil.which("cmake")


def _script(quoted: Sequence[Quoted]) -> list[str]:
    """For each kind of value, each argument without and with quotes, in pairs of lines."""
    lines = [
        "function(probe)",
        '  set(said "${ARGC}")',
        "  foreach(number RANGE 0 3)",
        '    string(APPEND said "|${ARGV${number}}")',
        "  endforeach()",
        '  message("${said}")',
        "endfunction()",
    ]
    for value in VALUES:
        for environment, name in {m for q in quoted for m in _REFERENCE.findall(q.text)}:
            target = f"ENV{{{name}}}" if environment else name
            lines.append(f"set({target} [==[{value}]==])")
        for one in quoted:
            lines += [f"probe({one.text})", f'probe("{one.text}")']
    return lines
