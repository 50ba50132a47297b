"""`ci/results/*.json`: what compile cells found, each a file as `kernel_tests --json` prints it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from portkit.errors import BadFile

FOLDER = "ci/results"
_NAME = re.compile(r"compile-(?P<system>linux|windows)-(?P<toolkit>\d+\.\d+)(-[\d.af]+)?\.json")


class CompiledUnit(BaseModel):
    """One unit for one architecture; `error` is the compiler's first word, or empty."""

    model_config = ConfigDict(frozen=True)

    kernel: str
    unit: str
    arch: str
    error: str = ""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    tag: str
    archs: tuple[str, ...]
    sources: dict[str, str]
    units: tuple[CompiledUnit, ...]


@dataclass(frozen=True)
class CompileResult:
    """The result of a compile cell: `sources` is the hash of each kernel's patched sources."""

    system: str
    toolkit: str
    tag: str
    archs: tuple[str, ...]
    sources: dict[str, str]
    units: tuple[CompiledUnit, ...]


def read_all(root: Path) -> list[CompileResult]:
    """The compile results of the repository at `root`; raises `BadFile`."""
    return [_read(file) for file in sorted((root / FOLDER).glob("*.json"))]


def _read(file: Path) -> CompileResult:
    where = f"{FOLDER}/{file.name}"
    named = _NAME.fullmatch(file.name)
    if named is None:
        raise BadFile(where, None, "is not named compile-SYSTEM-TOOLKIT-ARCH.json")
    try:
        found = _File.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        hint = "write it with kernel_tests --compile-only --json"
        raise BadFile(where, None, f"{place}: {first['msg']}", hint=hint) from None
    return CompileResult(named["system"], named["toolkit"], **dict(found))
