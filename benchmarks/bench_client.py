"""Upstream's `vllm bench serve` in a process that stays: importing vLLM takes longer than a run.

The client of `benchmarks/launcher.py`, run by an engine's Python.  A line of JSON, the arguments
of one run, comes on standard input; a line goes to standard output when the run is over.  What
`vllm bench serve` and vLLM's log print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys

if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # before vLLM is imported: its log keeps the standard output that it finds

    from vllm.benchmarks.serve import add_cli_args, main
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for line in sys.stdin:
        parser = FlexibleArgumentParser()
        add_cli_args(parser)
        main(parser.parse_args(json.loads(line)))
        gc.collect()
        print("done", file=answers, flush=True)
