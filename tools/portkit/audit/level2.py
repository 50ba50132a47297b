"""Level 2: another text, the same code made of it.

A compiled file is judged by all units that include it, for every architecture it is built for, from
the recorded evidence or by compiling both trees here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from portkit.audit import align, cmakefold, cmakerun, dispatch, generators, machine, rocm
from portkit.audit.doubt import Doubt
from portkit.audit.records import (
    DispatchRecord,
    Found,
    GeneratorRecord,
    Records,
    UnitKey,
    UnitRecord,
)
from portkit.audit.units import FOLDERS, Unit, Units
from portkit.cuda.includes import Closure, Read
from portkit.cuda.nvcc import (
    COMMON_FLAGS,
    Compiled,
    DoesNotCompile,
    Environment,
    compile_unit,
)
from portkit.errors import Unavailable
from portkit.model import Event, Events, silent
from portkit.upstream.cache import Cache

# What upstream builds for with CUDA 13 (CUDA_SUPPORTED_ARCHS in CMakeLists.txt).
ARCHS = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0")
FLAGS = hashlib.sha256("\n".join((*COMMON_FLAGS, *FOLDERS)).encode()).hexdigest()[:16]


class Undecided(Exception):
    """Nothing was found different, but something could not be compared; the text says why."""


@dataclass(frozen=True)
class Pair:
    """Both versions of a unit, for one architecture."""

    unit: str
    arch: str
    upstream: Closure
    patched: Closure

    @property
    def key(self) -> UnitKey:
        return (self.unit, self.upstream.digest, self.patched.digest, FLAGS)


@dataclass
class SameCode:
    """The comparisons of one audit: what is recorded, what is compiled here, what came of it.

    `environment` is None where nothing can be compiled; `missing` then says why.  `fresh` asks for
    a comparison of what is recorded already.  Host objects do not depend on the architecture, so
    they are compared for one of them.
    """

    upstream: Read
    patched: Read
    records: Records
    environment: Environment | None
    missing: str = ""
    jobs: int = 1
    fresh: bool = False
    cache: Cache | None = None
    events: Events = silent
    made_units: list[UnitRecord] = field(default_factory=list)
    made_generators: list[GeneratorRecord] = field(default_factory=list)
    made_dispatches: list[DispatchRecord] = field(default_factory=list)
    asked_units: set[UnitKey] = field(default_factory=set)
    used_generators: list[GeneratorRecord] = field(default_factory=list)
    used_dispatches: list[DispatchRecord] = field(default_factory=list)
    _results: dict[Pair, Found | Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before, self._after = Units(self.upstream), Units(self.patched)

    # compiled files

    def units_of(self, path: str) -> tuple[Unit, ...]:
        """The units of either tree that include a file."""
        both = {*self._before.including([path]), *self._after.including([path])}
        return tuple(sorted(both, key=lambda unit: unit.path))

    def pairs(self, path: str, archs: Sequence[str]) -> tuple[Pair, ...]:
        """What has to be compared for a file, for those of `archs` that CUDA builds have."""
        return tuple(
            Pair(unit.path, arch, *self._closures(unit.path))
            for unit in self.units_of(path)
            if unit.cuda
            for arch in archs
        )

    def prepare(self, pairs: Sequence[Pair]) -> None:
        """Look up or compile all of `pairs`, several at a time."""
        missing = [pair for pair in dict.fromkeys(pairs) if not self._recorded(pair)]
        if self.environment is None:
            return
        firsts = {pair.unit: pair for pair in reversed(pairs)}
        with_host = {pair for unit, pair in firsts.items() if not self._knows_host(unit)}
        wanted = list(dict.fromkeys([*missing, *with_host]))
        with ThreadPoolExecutor(self.jobs) as pool:
            waiting = {
                pool.submit(self._compiled, pair, pair in with_host): pair for pair in wanted
            }
            for number, one in enumerate(as_completed(waiting)):
                pair, result = waiting[one], one.result()
                self._results[pair] = result
                if isinstance(result, Found):
                    self.made_units.append(self._record(pair, result))
                self.events(Event("compiling both trees", number + 1, len(wanted), "units"))

    def compare(self, path: str, archs: Sequence[str]) -> str:
        """What is the same for a compiled file, in words; raises `Doubt` or `Undecided`."""
        pairs = self.pairs(path, archs)
        if not pairs:
            raise Undecided("no unit of a CUDA build includes it")
        self.prepare(pairs)
        found = [self._result(pair) for pair in pairs]
        units = sorted({pair.unit for pair in pairs})
        host = sorted({self._host(unit) for unit in units})
        kernels = sum(one.kernels for one in found)
        return (
            f"{_count(len(units), 'unit')} for {_count(len(archs), 'architecture')}: PTX and SASS "
            f"of {_count(kernels, 'kernel')}; {', '.join(host)}"
        )

    def _host(self, unit: str) -> str:
        """What is the same of a unit's host code, in words; raises `Doubt` or `Undecided`."""
        known = [f for p, f in self._results.items() if p.unit == unit and isinstance(f, Found)]
        if self._recorded_host(unit) or any(one.host for one in known):
            return "the host code"
        if unit in dispatch.KNOWN:
            return f"{self._launches(unit):,} launches by the host code"
        doubt = next((one.host_doubt for one in known if one.host_doubt), "")
        if doubt:
            raise Doubt(f"{unit}: {doubt}")
        raise Undecided(self.missing or f"the host code of {unit} was not compared")

    def _knows_host(self, unit: str) -> bool:
        """Whether the host object of a unit need not be compiled, or has been tried."""
        results = [result for pair, result in self._results.items() if pair.unit == unit]
        return (
            unit in dispatch.KNOWN
            or self._recorded_host(unit)
            or any(isinstance(result, Exception) or result.knows_host for result in results)
        )

    def _recorded_host(self, unit: str) -> bool:
        """Whether the host code of a unit is recorded, for whatever architecture."""
        upstream, patched = self._closures(unit)
        key = (unit, upstream.digest, patched.digest, FLAGS)
        return not self.fresh and self.records.host(key)

    def _launches(self, unit: str) -> int:
        key = (unit, dispatch.digest(self.upstream), dispatch.digest(self.patched))
        record = None if self.fresh else self.records.dispatch(key)
        if record is None:
            try:
                count = dispatch.compare(unit, self.upstream, self.patched)
            except Unavailable as error:
                raise Undecided(error.message) from None
            record = DispatchRecord(path=unit, upstream=key[1], patched=key[2], launches=count)
            self.made_dispatches.append(record)
        self.used_dispatches.append(record)
        return record.launches

    def _result(self, pair: Pair) -> Found:
        result = self._results.get(pair)
        if isinstance(result, Found):
            return result
        if isinstance(result, Doubt | DoesNotCompile):
            raise Doubt(f"{pair.unit} for {pair.arch}: {result}")
        raise Undecided(self.missing or f"{pair.unit} was not compared for {pair.arch}: {result}")

    def _recorded(self, pair: Pair) -> bool:
        if pair in self._results:
            return True
        self.asked_units.add(pair.key)
        known = None if self.fresh else self.records.unit(pair.key, pair.arch)
        if known is not None:
            self._results[pair] = known
        return known is not None

    def _compiled(self, pair: Pair, host: bool) -> Found | Exception:
        """What is equal, or why that cannot be said: a `Doubt` if ours is at fault."""
        upstream, patched = align.closures(pair.upstream, pair.patched)
        try:
            before = self._built(upstream, pair.arch, host)
        except (DoesNotCompile, Unavailable) as error:
            return Unavailable(f"upstream's {error}")
        try:
            after = self._built(patched, pair.arch, host)
            return Found(**asdict(machine.compare(before, after)))
        except (Doubt, DoesNotCompile, Unavailable) as error:
            return error

    def _built(self, closure: Closure, arch: str, host: bool) -> Compiled:
        assert self.environment is not None
        made, _ = compile_unit(
            closure, arch, self.environment, folders=FOLDERS, host=host, cache=self.cache
        )
        return made

    def _record(self, pair: Pair, found: Found) -> UnitRecord:
        assert self.environment is not None
        unit, upstream, patched, flags = pair.key
        return UnitRecord(
            unit=unit,
            upstream=upstream,
            patched=patched,
            flags=flags,
            compilers=self.environment.identity,
            archs={pair.arch: found},
        )

    def _closures(self, unit: str) -> tuple[Closure, Closure]:
        return self._before.closure(unit), self._after.closure(unit)

    def rocm(self, path: str) -> str:
        """What a ROCm build compiles of a file, in words; raises `Doubt` where that differs."""
        if not any(unit.rocm for unit in self.units_of(path)):
            return "not compiled for ROCm"
        return rocm.compare(self.upstream(path) or b"", self.patched(path) or b"")

    # generators and CMake

    def compare_generator(self, path: str) -> str:
        """What is the same of a generator's output, in words; raises `Doubt` or `Undecided`."""
        key = (path, _inputs(path, self.upstream), _inputs(path, self.patched))
        record = None if self.fresh else self.records.generator(key)
        if record is None:
            try:
                same = generators.compare(path, self.upstream, self.patched, self.events)
            except Unavailable as error:
                raise Undecided(error.message) from None
            record = GeneratorRecord(
                path=path,
                upstream=key[1],
                patched=key[2],
                arch_lists=generators.ARCH_LISTS,
                kernels=same.kernels,
                combinations=same.combinations,
            )
            self.made_generators.append(record)
        self.used_generators.append(record)
        return (
            f"{len(record.arch_lists)} lists of archs: the same {record.kernels} kernel files; the "
            f"selector agrees on {record.combinations:,} combinations"
        )

    def compare_cmake(self, path: str) -> str:
        """What is the same of a CMake file, in words; raises `Doubt` or `Undecided`."""
        quoted = cmakefold.compare(self.upstream(path) or b"", self.patched(path) or b"")
        try:
            return cmakerun.same_arguments(quoted)
        except Unavailable as error:
            raise Undecided(error.message) from None


def _inputs(path: str, read: Read) -> str:
    """A hash of a generator and of the sources that use what it generates."""
    files = [path, *_hosts(path)]
    contents = {name: hashlib.sha256(read(name) or b"").hexdigest() for name in files}
    lists = [contents, list(generators.ARCH_LISTS)]
    return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def _hosts(path: str) -> Iterator[str]:
    return (str(PurePosixPath(path).with_name(name)) for name in generators.HOSTS)


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
