"""The status page.  See `status.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from portkit.commands import status
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(status.main))
