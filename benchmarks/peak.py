"""Run a command and append the peak memory of its largest process to a file, in MiB.

    python -I -S benchmarks/peak.py FILE COMMAND...

A process of its own, and a small one: the peak that a system reports for a child is never below
that of the process it was forked from.  Where the system does not tell, nothing is appended.
"""

import subprocess
import sys

if __name__ == "__main__":
    code = subprocess.call(sys.argv[2:])
    try:
        import resource
    except ImportError:
        sys.exit(code)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    with open(sys.argv[1], "a") as file:  # noqa: PTH123 (pathlib would double its size)
        file.write(f"{peak}\n")
    sys.exit(code)
