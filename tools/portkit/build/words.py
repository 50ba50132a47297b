"""What a check says: one line of a doctor's or a verification's report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a check ended; `INFO` states a fact that is neither good nor bad."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, in words, and what to do about it."""

    name: str
    status: Status
    said: str
    remedy: str = ""


def ok(name: str, said: str) -> Check:
    return Check(name, Status.OK, said)


def info(name: str, said: str) -> Check:
    return Check(name, Status.INFO, said)


def warn(name: str, said: str, remedy: str) -> Check:
    return Check(name, Status.WARN, said, remedy)


def fail(name: str, said: str, remedy: str) -> Check:
    return Check(name, Status.FAIL, said, remedy)


def failed(checks: Iterable[Check]) -> list[Check]:
    return [one for one in checks if one.status is Status.FAIL]


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few of many names, with how many more there are."""
    listed = list(names)
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")
