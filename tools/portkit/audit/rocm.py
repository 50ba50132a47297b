"""What a ROCm build compiles of a file that differs from upstream's.

A ROCm build defines USE_ROCM.  What stands under a condition on it, in either sense, must be
upstream's, token for token.  The other tokens are shared with CUDA builds, where the compiled code
is compared.
"""

from __future__ import annotations

from portkit.audit.conditionals import NOT_WINDOWS, ROCM, fold, folded_lines
from portkit.audit.doubt import Doubt

_MACROS = frozenset({"USE_ROCM", "__HIP_PLATFORM_AMD__", "__HIPCC__", "__HIP_DEVICE_COMPILE__"})


def compare(upstream: bytes, patched: bytes) -> str:
    """What is the same for ROCm, in words; raises `Doubt` where code for ROCm alone differs."""
    if fold(upstream, ROCM) == fold(patched, ROCM):
        return "identical with USE_ROCM"
    before, after = _special(upstream), _special(patched)
    if before != after:
        raise Doubt("code under a condition on USE_ROCM differs from upstream's")
    count = sum(len(line) - 1 for line in before)
    special = f"{count} tokens under USE_ROCM are upstream's" if count else "no USE_ROCM in it"
    return f"{special}; what differs is compiled for CUDA too"


def _special(data: bytes) -> list[tuple[str, ...]]:
    """The lines under conditions that ask for ROCm, each after these conditions as one word."""
    found: list[tuple[str, ...]] = []
    stack: list[list[str]] = []
    for line in folded_lines(data, NOT_WINDOWS):
        word = line[1] if line[0] == "#" and len(line) > 1 else ""
        if word == "if":
            stack.append(line[2:])
        elif word in ("elif", "else"):
            stack[-1] = [*stack[-1], word, *line[2:]]  # an #else still depends on its #if
        elif word == "endif":
            stack.pop()
        elif any(_MACROS.intersection(condition) for condition in stack):
            found.append((" / ".join(" ".join(condition) for condition in stack), *line))
    return found
