"""Set up and run: `python run.py SCRIPT [ARGUMENTS]` or `python run.py -m MODULE [ARGUMENTS]`.

Makes `.venv` beside this file with exactly what `requirements.lock` names, once, then runs the
rest of the command line with that Python.  Needs nothing but Python 3.10 or newer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "installed.sha256"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def set_up() -> None:
    """Bring `.venv` to the state that the lock file and this Python ask for."""
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    print(f"setting up {VENV} (once) ...", file=sys.stderr, flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    venv.create(VENV, with_pip=True)
    install: list[str | Path] = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run([*install, "--quiet", "--require-hashes", "-r", LOCK], check=False)
    if done.returncode:
        sys.exit(
            "error: the packages of requirements.lock could not be installed\n"
            "hint: see pip's message above; the package index must be reachable"
        )
    STAMP.write_text(wanted)


def main(arguments: list[str]) -> int:
    """Set up if need be, and run `arguments` with the environment's Python."""
    if not arguments:
        print(__doc__)
        return 2
    if sys.version_info < (3, 10):  # noqa: UP036 - this file runs before anything is checked
        sys.exit("error: Python 3.10 or newer is needed, this is " + sys.version.split()[0])
    set_up()
    try:
        return subprocess.run([PYTHON, *arguments], check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
