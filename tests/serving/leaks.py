"""Runs the launcher as `python -m launcher` does, then tells what it left behind, as JSON.

With WITHOUT_UVLOOP set it runs on asyncio's own loop, as on Windows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading

from launcher.__main__ import main
from launcher.server import Launch

left: dict[str, object] = {}
real_run = Launch.run


async def run(launch: Launch) -> int:
    """The whole run, with a look at the tasks before the loop's own clean-up."""
    try:
        return await real_run(launch)
    finally:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        left["loop"] = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        left["tasks"] = [repr(task) for task in tasks]


if __name__ == "__main__":
    if os.environ.get("WITHOUT_UVLOOP"):
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    setattr(Launch, "run", run)  # noqa: B010 - mypy minds the assignment
    code = main(sys.argv[1:])
    gc.collect()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    left["threads"] = [thread.name for thread in others]
    print(json.dumps(left), flush=True)
    sys.exit(code)
