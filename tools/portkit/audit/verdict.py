"""What the audit says of a patch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How strong the proof is that a patch changes nothing outside of Windows; 1 is strongest."""

    IDENTICAL = 1  # the same program, once the Windows guards are resolved
    SAME_CODE = 2  # another text, the same code made of it
    TESTED = 3  # other code, the same results on a GPU
    UNPROVED = 4
    OPEN = 5  # not decided: a level that could prove it was left out or could not be run here

    @property
    def word(self) -> str:
        return _WORDS[self]


_WORDS = {
    Level.IDENTICAL: "identical",
    Level.SAME_CODE: "same code",
    Level.TESTED: "tested equal",
    Level.UNPROVED: "unproved",
    Level.OPEN: "not decided",
}


@dataclass(frozen=True)
class Verdict:
    """One patch: the strongest level that holds and why.

    `evidence` says what was compared, `doubt` why no stronger level holds, `rocm` what is known of
    ROCm builds ("" where the file has no part in them), `waiver` the reviewed reason to accept an
    unproved patch.
    """

    patch: str
    path: str
    level: Level
    evidence: str
    doubt: str = ""
    rocm: str = ""
    waiver: str = ""

    @property
    def fails(self) -> bool:
        return self.level is Level.UNPROVED and not self.waiver
