"""`ci/results/*.json`: what compile cells found, each a file as `kernel_tests --json` prints it.

A record holds for contents, not for names: the digest of a unit is of all that was compiled and
how, and names no machine.  Only `kernel_tests --compile-only --record` writes these files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from portkit.change import durable
from portkit.errors import BadFile

FOLDER = "ci/results"
System = Literal["linux", "windows"]
_NAME = re.compile(r"compile-(?P<system>linux|windows)-(?P<toolkit>\d+\.\d+)(-[\d.af]+)?\.json")
_HINT = "write it with kernel_tests --compile-only --record"


class CompiledUnit(BaseModel):
    """One unit for one architecture; `error` is the compiler's first word, or empty."""

    model_config = ConfigDict(frozen=True)

    kernel: str
    unit: str
    arch: str
    digest: str
    compiler: str
    error: str = ""


class CompileResult(BaseModel):
    """One file: `sources` is the hash of each kernel's patches; `system` and `toolkit` name it."""

    model_config = ConfigDict(frozen=True)

    system: System
    toolkit: str
    tag: str
    archs: tuple[str, ...]
    sources: dict[str, str]
    units: tuple[CompiledUnit, ...]


def read_all(root: Path) -> list[CompileResult]:
    """The compile results of the repository at `root`; raises `BadFile`."""
    return [_read(file) for file in sorted((root / FOLDER).glob("*.json"))]


def known(found: Iterable[CompileResult], system: System, toolkit: str) -> list[CompiledUnit]:
    """The units compiled on `system` with a toolkit of the same major version (`13.0`).

    What compiles with one minor version, or one host compiler, need not be compiled with another.
    """
    major = toolkit.partition(".")[0]
    return [
        unit
        for one in found
        if one.system == system and one.toolkit.partition(".")[0] == major
        for unit in one.units
    ]


def record(root: Path, made: CompileResult, fresh: Collection[str]) -> list[Path]:
    """Write what was compiled, a file for each architecture of `made`; gives the files.

    What is in a file already stays where `made` has nothing newer and it still holds: units whose
    digest is in `fresh`, and those of kernels that were not asked for, at the same tag.
    """
    written = []
    for arch in made.archs:
        file = root / FOLDER / f"compile-{made.system}-{made.toolkit}-{arch}.json"
        before = _read(file) if file.is_file() else made.model_copy(update={"units": ()})
        kept = [
            one
            for one in before.units
            if one.digest in fresh or (one.kernel not in made.sources and before.tag == made.tag)
        ]
        newer = [one for one in made.units if one.arch == arch]
        units = {(one.kernel, one.unit): one for one in (*kept, *newer)}
        if not units:
            continue
        sources = {**before.sources, **made.sources}
        kernels = {kernel for kernel, _ in units}
        content = {
            "tag": made.tag,
            "archs": [arch],
            "sources": {name: sources[name] for name in sorted(kernels)},
            "units": [units[key].model_dump(exclude_defaults=True) for key in sorted(units)],
        }
        durable.put(file, json.dumps(content, indent=1).encode() + b"\n")
        written.append(file)
    return written


def _read(file: Path) -> CompileResult:
    where = f"{FOLDER}/{file.name}"
    named = _NAME.fullmatch(file.name)
    if named is None:
        raise BadFile(where, None, "is not named compile-SYSTEM-TOOLKIT-ARCH.json")
    try:
        content = json.loads(file.read_bytes())
        return CompileResult.model_validate({**content, **named.groupdict()})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(where, None, f"{place}: {first['msg']}", hint=_HINT) from None
    except (ValueError, TypeError) as error:
        raise BadFile(where, None, f"is not a JSON object: {error}", hint=_HINT) from None
