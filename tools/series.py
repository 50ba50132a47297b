"""Work on the patch series: import, export, docs.  See `series.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import series
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(series.main))
