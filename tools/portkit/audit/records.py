"""`patch_series/evidence.json`: what compilers were found to make of upstream's and our sources.

A record holds for contents, not for names: it has the hash of a unit with all that it includes, in
both trees, and names the compilers.  So it serves where there is no nvcc, and it is void as soon as
one of the files changes.  Only `tools/audit.py --record` writes the file.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portkit.change import durable
from portkit.errors import BadFile
from portkit.patches.patchfile import SERIES_FOLDER

FILE = f"{SERIES_FOLDER}/evidence.json"
_HINT = "restore it from version control, or delete it and run tools/audit.py --record"


UnitKey = tuple[str, str, str, str]  # unit, digests of both closures and of the flags


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Found(_Model):
    """What was equal for one architecture; see `machine.Same`."""

    functions: int
    kernels: int
    unused: int
    host: bool = False
    host_doubt: str = Field(default="", exclude=True)  # a doubt is no evidence: it is not written

    @property
    def knows_host(self) -> bool:
        """Whether host objects were compared, whatever came of it."""
        return self.host or bool(self.host_doubt)


class UnitRecord(_Model):
    """A unit that compiles to the same code, by architecture (`9.0`).

    `upstream` and `patched` are digests of closures, `flags` of the compiler's flags.
    """

    unit: str
    upstream: str
    patched: str
    flags: str
    compilers: tuple[str, ...]
    archs: dict[str, Found]

    @property
    def key(self) -> UnitKey:
        return (self.unit, self.upstream, self.patched, self.flags)


class DispatchRecord(_Model):
    """A unit whose host code launches the same kernels; `upstream` and `patched` hash it."""

    path: str
    upstream: str
    patched: str
    launches: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.path, self.upstream, self.patched)


class GeneratorRecord(_Model):
    """A generator that generates the same; `upstream` and `patched` hash all that it reads."""

    path: str
    upstream: str
    patched: str
    arch_lists: tuple[str, ...]
    kernels: int
    combinations: int

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.path, self.upstream, self.patched)


class Records(_Model):
    """All records of a repository."""

    schema_version: int = 1
    units: tuple[UnitRecord, ...] = ()
    dispatches: tuple[DispatchRecord, ...] = ()
    generators: tuple[GeneratorRecord, ...] = ()

    def unit(self, key: UnitKey, arch: str) -> Found | None:
        """What is recorded for these contents and this architecture, host code before none."""
        fitting = [r.archs[arch] for r in self.units if r.key == key and arch in r.archs]
        return max(fitting, key=lambda found: found.knows_host, default=None)

    def host(self, key: UnitKey) -> bool:
        """Whether the host code of these contents is recorded as equal, for any architecture."""
        return any(found.host for r in self.units if r.key == key for found in r.archs.values())

    def generator(self, key: tuple[str, str, str]) -> GeneratorRecord | None:
        return next((record for record in self.generators if record.key == key), None)

    def dispatch(self, key: tuple[str, str, str]) -> DispatchRecord | None:
        return next((record for record in self.dispatches if record.key == key), None)


def read(root: Path) -> Records:
    """The records of the repository at `root`, none where there is no file; raises `BadFile`."""
    try:
        return Records.model_validate_json((root / FILE).read_bytes())
    except FileNotFoundError:
        return Records()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"is not what the audit writes: {place}: {first['msg']}"
        raise BadFile(FILE, None, message, hint=_HINT) from None


def write(root: Path, records: Records) -> None:
    """Write the records of the repository at `root`, whole or not at all."""
    ordered = Records(
        units=tuple(sorted(records.units, key=lambda r: (r.key, r.compilers))),
        dispatches=tuple(sorted(records.dispatches, key=lambda r: r.key)),
        generators=tuple(sorted(records.generators, key=lambda r: r.key)),
    )
    durable.put(root / FILE, ordered.model_dump_json(indent=1).encode() + b"\n")


def merged(units: list[UnitRecord]) -> tuple[UnitRecord, ...]:
    """Records of the same contents and compilers as one, the later results over the earlier."""
    found: dict[tuple[object, ...], UnitRecord] = {}
    for record in units:
        key = (record.key, record.compilers)
        before = found[key].archs if key in found else {}
        archs = {**before, **record.archs}
        ordered = dict(sorted(archs.items(), key=lambda item: float(item[0].rstrip("af"))))
        found[key] = record.model_copy(update={"archs": ordered})
    return tuple(found.values())
