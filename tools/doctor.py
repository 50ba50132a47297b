"""What this machine has, and known failures of a log: `doctor.py`.  See `doctor.py --help`."""

from __future__ import annotations

import sys

from portkit.commands import doctor
from portkit.face import console

if __name__ == "__main__":
    sys.exit(console.run(doctor.main))
