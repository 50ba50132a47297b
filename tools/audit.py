"""Prove, patch by patch, that the series changes nothing on Linux.  See `audit.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import audit
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(audit.main))
