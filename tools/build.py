"""From the pinned source to a wheel: `build.py`.  See `build.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import build
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(build.main))
