"""Requirement files: what is installed on Linux, on every Python that upstream supports."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from portkit.audit.doubt import Doubt
from portkit.text.requirements import logical_lines

_COMMENT = re.compile(r"(^|\s)#.*")
_REQUIRES_PYTHON = re.compile(rb'^requires-python\s*=\s*"([^"]+)"', re.MULTILINE)
_MINORS = range(8, 30)
_MACHINES = ("x86_64", "aarch64")


def supported_pythons(pyproject: bytes) -> tuple[str, ...]:
    """The versions of Python (`3.12`) that upstream's pyproject.toml allows."""
    found = _REQUIRES_PYTHON.search(pyproject)
    allowed = SpecifierSet(found[1].decode() if found is not None else ">=3.10,<3.15")
    return tuple(f"3.{minor}" for minor in _MINORS if allowed.contains(f"3.{minor}.1"))


def compare(upstream: bytes, patched: bytes, pythons: tuple[str, ...]) -> str:
    """What was compared, in words; raises `Doubt` where Linux would install something else."""
    before, after = list(_requirements(upstream)), list(_requirements(patched))
    for python in pythons:
        for machine in _MACHINES:
            system = _environment("linux", python, machine)
            wanted, found = _wanted(before, system), _wanted(after, system)
            if wanted != found:
                odd = min((wanted - found) or (found - wanted))
                lost = "lacks" if wanted - found else "adds"
                raise Doubt(f"Linux {machine} with Python {python} {lost} `{odd}`")
    windows = [_environment("win32", python, "AMD64") for python in pythons]
    if all(_wanted(before, system) == _wanted(after, system) for system in windows):
        raise Doubt("it changes nothing on Windows either")
    return f"the same requirements on Linux, Python {pythons[0]} to {pythons[-1]}"


def _requirements(data: bytes) -> Iterator[Requirement | str]:
    """The requirements of a file; a line that is an option stands for itself."""
    for line in logical_lines(data):
        text = _COMMENT.sub("", line).strip()
        if not text:
            continue
        try:
            yield Requirement(text)
        except InvalidRequirement:
            if not text.startswith("-"):
                raise Doubt(f"`{text}` is no requirement") from None
            yield text


def _wanted(requirements: list[Requirement | str], system: dict[str, str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in requirements:
        if isinstance(one, str):
            found[one] += 1
        elif one.marker is None or one.marker.evaluate(system):
            bare = Requirement(str(one))
            bare.marker = None
            found[str(bare)] += 1
    return found


def _environment(platform: str, python: str, machine: str) -> dict[str, str]:
    return {
        "sys_platform": platform,
        "platform_system": "Windows" if platform == "win32" else "Linux",
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
