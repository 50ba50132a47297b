"""What the faces of the benchmarks share: Markdown tables, and what a number was measured on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; columns of numbers are aligned right."""
    cells = [[str(cell) for cell in row] for row in rows]
    number = [bool(cells) and all(r[n][:1].isdigit() for r in cells) for n in range(len(head))]
    rule = ["---:" if right else "---" for right in number]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *cells))


def machine() -> dict[str, str]:
    """System, processor and command line."""
    return {
        "command": " ".join(["python", *_relative(sys.argv)]),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
    }


def _relative(arguments: Sequence[str]) -> list[str]:
    script = Path(arguments[0])
    return [f"benchmarks/{script.name}", *arguments[1:]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def described(facts: dict[str, str]) -> str:
    """The facts of `machine` as a Markdown list."""
    return "".join(f"- {key}: {value}\n" for key, value in facts.items())
