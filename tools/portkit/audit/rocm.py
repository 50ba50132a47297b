"""What a ROCm build compiles of a file that differs from upstream's.

A ROCm build defines USE_ROCM.  What is compiled only then must be upstream's, token for token.  The
other tokens that it compiles are shared with CUDA builds, where the compiled code is compared.
"""

from __future__ import annotations

from portkit.audit.conditionals import CUDA, ROCM, fold, folded_lines
from portkit.audit.ctokens import logical_lines
from portkit.audit.doubt import Doubt


def compare(upstream: bytes, patched: bytes) -> str:
    """What is the same for ROCm, in words; raises `Doubt` where code for ROCm alone differs."""
    if fold(upstream, ROCM) == fold(patched, ROCM):
        return "identical with USE_ROCM"
    before, after = _only_rocm(upstream), _only_rocm(patched)
    if before != after:
        raise Doubt("code that only ROCm compiles differs from upstream's")
    count = sum(map(len, before))
    special = (
        f"the {count} tokens for ROCm alone are upstream's" if count else "nothing for ROCm alone"
    )
    return f"{special}; what differs is compiled for CUDA too"


def _only_rocm(data: bytes) -> list[list[str]]:
    """The lines that are compiled with USE_ROCM and not without it."""
    lines = list(logical_lines(data))
    theirs = {id(line) for line in lines}
    cuda = {id(line) for line in folded_lines(lines, CUDA)}
    return [line for line in folded_lines(lines, ROCM) if id(line) in theirs - cuda]
