"""Write the patched source tree of the pin: `apply.py DIR`.  See `apply.py --help`."""

from __future__ import annotations

import sys

from portkit import console
from portkit.commands import apply

if __name__ == "__main__":
    sys.exit(console.run(apply.main))
