"""Write the patched source tree of the pin: `apply.py DIR`.  See `apply.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import apply
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(apply.main))
