"""Carry the series to another upstream release: `refresh.py --to TAG`.  See `refresh.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import refresh
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(refresh.main))
