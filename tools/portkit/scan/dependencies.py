"""What requirements require themselves on Windows, down to what the index cannot serve there.

A plain walk, no resolver: each requirement gets the newest version that has a wheel for Windows,
fits it and fits what the requirement files themselves say of that project.  pip may go back to an
older version that needs less; the walk does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from portkit.scan.onindex import Asked, fitting, lacking, newest

WINDOWS = {
    "os_name": "nt",
    "sys_platform": "win32",
    "platform_system": "Windows",
    "platform_machine": "AMD64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}


@dataclass(frozen=True)
class Need:
    """A requirement for some Pythons; `chain` are the projects from a root's own to this one.

    `root` is the place of the root among those that the walk was given.
    """

    requirement: Requirement
    pythons: tuple[str, ...]
    root: int
    chain: tuple[str, ...]

    @property
    def name(self) -> str:
        """The project, as the index calls it."""
        return canonicalize_name(self.requirement.name)


@dataclass(frozen=True)
class Lack:
    """What Windows cannot install for a need: on which Pythons, in words.

    `sources` says that the index has sources alone.
    """

    need: Need
    pythons: tuple[str, ...]
    detail: str
    sources: bool


def walk(roots: Sequence[tuple[Requirement, tuple[str, ...]]], asked: Asked) -> Iterator[Lack]:
    """What is lacking for requirements, each with the Pythons that ask for it, and below them.

    A project that several need is told once for what they need of it, by its shortest chain.
    """
    bounds: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    for requirement, _ in roots:
        bounds[canonicalize_name(requirement.name)] &= requirement.specifier
    level = [
        Need(requirement, pythons, root, (canonicalize_name(requirement.name),))
        for root, (requirement, pythons) in enumerate(roots)
    ]
    seen: set[tuple[str, str]] = set()
    lacked: set[str] = set()
    while level:
        releases = asked.releases(need.name for need in level)
        chosen: dict[tuple[int, str], list[tuple[str, str]]] = defaultdict(list)
        for number, need in enumerate(level):
            files = fitting(need.requirement, releases.get(need.name, ()))
            missing, detail, sources = lacking(need.requirement, files, need.pythons)
            if missing and (len(need.chain) == 1 or need.name not in lacked):
                lacked.add(need.name)
                yield Lack(need, missing, detail, sources)
            for python in need.pythons:
                if wheel := newest(files, python):
                    version = wheel.split("-")[1]
                    chosen[number, version].append((python, wheel))
        # The wheels of one version require the same: uv and Poetry take that for granted too.
        wheels = {key: min(wheel for _, wheel in some) for key, some in chosen.items()}
        required = asked.required(wheels.values())
        below = [
            one
            for (number, version), some in chosen.items()
            for one in _below(
                level[number],
                required.get(wheels[number, version], ()),
                [python for python, _ in some],
                bounds,
            )
        ]
        level = list(_fresh(below, seen))


def _below(
    need: Need, texts: Sequence[str], pythons: Sequence[str], bounds: Mapping[str, SpecifierSet]
) -> Iterator[Need]:
    """What a chosen wheel requires of these Pythons, with the extras that were asked for."""
    extras = ("", *need.requirement.extras)
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        wanted = tuple(
            python
            for python in pythons
            if any(holds(requirement.marker, python, {**WINDOWS, "extra": one}) for one in extras)
        )
        name = canonicalize_name(requirement.name)
        if wanted and requirement.url is None and name not in need.chain:
            requirement.marker = None
            if name in bounds:
                requirement.specifier &= bounds[name]
            yield Need(requirement, wanted, need.root, (*need.chain, name))


def _fresh(needs: Sequence[Need], seen: set[tuple[str, str]]) -> Iterator[Need]:
    """The needs that nothing asked for in the same words before."""
    for need in needs:
        extras = ",".join(sorted(need.requirement.extras))
        words = f"{need.name}[{extras}]{need.requirement.specifier}"
        fresh = tuple(python for python in need.pythons if (words, python) not in seen)
        seen.update((words, python) for python in fresh)
        if fresh:
            yield replace(need, pythons=fresh)


def holds(marker: Marker | None, python: str, system: Mapping[str, str]) -> bool:
    """Whether a marker holds for a Python (`3.12`) on a system."""
    if marker is None:
        return True
    version = {"python_version": python, "python_full_version": f"{python}.9"}
    return marker.evaluate({**system, **version})
