"""Find what of upstream will not build or run on Windows: `scan.py --tag TAG`.  See `--help`."""

from __future__ import annotations

import sys

from portkit.commands import scan
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(scan.main))
