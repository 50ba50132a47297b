"""Runs the launcher as `python -m launcher` does, then tells what it left behind, as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from typing import Any

from launcher.__main__ import main

left: list[str] = []
real_run = asyncio.run


def run(coroutine: Any) -> Any:
    """asyncio.run, with a look at the tasks before the loop's own clean-up."""

    async def watched() -> Any:
        try:
            return await coroutine
        finally:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            left.extend(repr(task) for task in tasks)

    return real_run(watched())


if __name__ == "__main__":
    setattr(asyncio, "run", run)  # noqa: B010 - mypy minds the assignment
    code = main(sys.argv[1:])
    gc.collect()
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    print(json.dumps({"tasks": left, "threads": threads}), flush=True)
    sys.exit(code)
