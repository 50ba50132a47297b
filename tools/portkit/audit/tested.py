"""Level 3: results of kernel tests on a GPU, for exactly the contents that were tested.

`kernel_tests/results/*.json` has a list `results`, each with the upstream `path`, the `sha256` of
the patched file, the `test`, its `outcome` and the `hardware`.  A result of other contents is void.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from portkit.audit.sources import Sources
from portkit.errors import BadFile
from portkit.model import Patch

FOLDER = "kernel_tests/results"


class Result(BaseModel):
    """One kernel test of one patched file."""

    path: str
    sha256: str
    test: str
    outcome: str
    hardware: str


class _File(BaseModel):
    results: tuple[Result, ...] = ()


def results(root: Path, sources: Sources) -> Callable[[Patch], str]:
    """What the recorded results say of a patch, in words; "" where there are none for it.

    Raises `BadFile` for a file of results that is malformed.
    """
    known = [result for file in sorted((root / FOLDER).glob("*.json")) for result in _read(file)]

    def said(patch: Patch) -> str:
        digest = hashlib.sha256(sources.patched(patch.path) or b"").hexdigest()
        fitting = [r for r in known if r.path == patch.path and r.sha256 == digest]
        if not fitting or any(result.outcome != "passed" for result in fitting):
            return ""
        tests = ", ".join(sorted({result.test for result in fitting}))
        return f"{tests} passed on {fitting[0].hardware}"

    return said


def _read(file: Path) -> tuple[Result, ...]:
    try:
        return _File.model_validate_json(file.read_bytes()).results
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadFile(f"{FOLDER}/{file.name}", None, f"{place}: {first['msg']}") from None
