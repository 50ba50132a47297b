"""Upstream's `vllm bench serve` in a process that stays: importing vLLM takes longer than a run.

The client of `benchmarks/launcher.py`, run by an engine's Python.  A line of JSON, the arguments
of one run, comes on standard input; a line goes to standard output when the run is over.  What
`vllm bench serve` prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    for line in sys.stdin:
        parser = FlexibleArgumentParser()
        add_cli_args(parser)
        with contextlib.redirect_stdout(sys.stderr):
            main(parser.parse_args(json.loads(line)))
        gc.collect()
        print("done", flush=True)
