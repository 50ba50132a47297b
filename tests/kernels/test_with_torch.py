"""The tests that need torch, with an engine's: the locked environment has none."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from serving.engines import NEWEST, NoEngine, engine_python

ROOT = Path(__file__).resolve().parents[2]
NEED_TORCH = (
    "tests/kernels/test_references.py",
    "tests/kernels/test_bench.py",
    "tests/kernels/test_run.py",
    "tests/port/test_runtime.py",
)


@pytest.mark.engine
@pytest.mark.parametrize("file", NEED_TORCH)
def test_with_the_torch_of_an_engine(file: str) -> None:
    try:
        python = engine_python(NEWEST)
    except NoEngine as error:
        pytest.fail(str(error), pytrace=False)
    asked: list[str | Path] = [
        python,
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
    ]
    theirs = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    ours = sysconfig.get_path("purelib")  # first: torch alone is to come from theirs
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", file],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([ours, theirs])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "could not import" not in done.stdout
