"""The patched source of the pin serves, as it is and with its Windows branches.

The compiled module is that of the wheel for CPUs of the same version.  That environment takes
several gigabytes (this torch comes as a CUDA build), so it must be asked for: LAUNCHER_PIN=1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from serving.engines import KEY, MODEL, ROOT, Engine, ServerProcess

TESTS = ROOT / "tests"
GREEDY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 16,
    "temperature": 0,
}
RUNTIME_PATCHES = 6


@pytest.fixture(scope="module")
def overlay(pinned_engine: Engine, patched_tree: Path) -> Path:
    """The patched tree with the wheel's compiled modules in place."""
    asked = "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"
    found = subprocess.run(
        [pinned_engine.python, "-c", asked], capture_output=True, text=True, check=True
    )
    package = Path(found.stdout.split()[-1])
    for built in [*package.rglob("*.so"), package / "_version.py"]:
        shutil.copy(built, patched_tree / "vllm" / built.relative_to(package))
    return patched_tree


def chat(server: ServerProcess) -> str:
    answer = server.ask("/v1/chat/completions", GREEDY, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status == 200, answer.body
    message: str = answer.json["choices"][0]["message"]["content"]
    return message


def test_patched_tree_serves_as_upstream_and_as_windows(
    pinned_engine: Engine, overlay: Path, tmp_path: Path
) -> None:
    path = os.pathsep.join(map(str, (overlay, ROOT, TESTS)))
    with (
        pinned_engine.server(tmp_path / "wheel", "chat") as wheel,
        pinned_engine.server(tmp_path / "patched", "chat", extra={"PYTHONPATH": path}) as patched,
        pinned_engine.server(
            tmp_path / "windows", "chat", extra={"PYTHONPATH": path}, module="serving.windows"
        ) as windows,
    ):
        answers = {chat(server.wait_ready()) for server in (wheel, patched, windows)}
        assert len(answers) == 1
    told = windows.output.splitlines()[-1]
    assert told.startswith("executed as on Windows: ")
    assert len(told.partition(": ")[2].split()) == RUNTIME_PATCHES
