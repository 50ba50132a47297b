"""No request that fits the served OpenAPI description, or nearly, makes the server fail."""

from __future__ import annotations

import os
import subprocess
import sys

from serving.engines import KEY, ROOT, ServerProcess


def test_no_server_error(launched: ServerProcess) -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{launched.url}/openapi.json"]
    command += ["-H", f"Authorization: Bearer {KEY}", "--checks", "not_a_server_error"]
    command += ["--phases", "fuzzing", "--max-examples", "12", "--generation-deterministic"]
    command += ["--suppress-health-check", "all", "--request-timeout", "60", "--workers", "4"]
    # Answers 501 by design: it is for another kind of model.
    command += ["--exclude-path", "/v1/systemone"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "SCHEMATHESIS_HOOKS": "serving.hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert launched.ask("/health").status == 200
