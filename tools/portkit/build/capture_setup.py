"""Run by the target's Python in the source folder: says what upstream's setup.py would run.

`setup.py build_ext` hands its work to CMake through `subprocess.check_call`.  Here that call
records its arguments and does nothing, so that the commands of a build are upstream's own for any
release, and the tools can run them one by one, each with its log.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from setuptools.command.build_ext import build_ext

MARK = "portkit-command: "


class Finished(Exception):
    """Everything that concerns CMake has been asked for."""


def record(command: Sequence[Any], **options: Any) -> int:
    """Print a command in place of running it."""
    words = [os.fspath(word) for word in command]
    folder = str(Path.cwd() / (options.get("cwd") or ""))
    print(MARK + json.dumps({"command": words, "folder": folder}), flush=True)
    return 0


def main() -> None:
    """Run setup.py up to the point where CMake would have done its part."""
    upstream_run = build_ext.run

    def run(self: build_ext) -> None:
        upstream_run(self)
        raise Finished

    sys.argv = ["setup.py", "build_ext"]
    sys.path[0] = str(Path.cwd())  # where setup.py itself would be
    with patch.object(build_ext, "run", run), patch.object(subprocess, "check_call", record):
        try:
            runpy.run_path(str(Path("setup.py").absolute()), run_name="__main__")
        except Finished:
            return
    print("setup.py compiles nothing for this target", flush=True)


main()
