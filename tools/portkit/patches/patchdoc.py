"""`docs/patches.md`: what each patch does, generated from the headers of the series."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from portkit.model import Patch, Pin
from portkit.patches import header
from portkit.patches.patchfile import SERIES_FOLDER
from portkit.patches.series import Series

DOC_FILE = "docs/patches.md"

_TITLES = {"build": "Build", "kernels": "Kernels", "runtime": "Runtime", "deps": "Dependencies"}
_SPECIAL = re.compile(r"[\\*_<>#\[\]|~&]")


def render(series: Series, pin: Pin) -> bytes:
    """The whole document."""
    return "\n".join(_document(series, pin)).encode("utf-8", "replace") + b"\n"


def is_current(root: Path, series: Series, pin: Pin) -> bool:
    """Whether the document in the repository at `root` is what `render` gives."""
    file = root / DOC_FILE
    return file.is_file() and file.read_bytes().replace(b"\r\n", b"\n") == render(series, pin)


def _document(series: Series, pin: Pin) -> Iterator[str]:
    patches = series.patches
    added, removed = _size(patches)
    yield "<!-- Generated from the patch headers by `tools/series.py docs`; do not edit. -->"
    yield "# The patches"
    yield ""
    yield f"{len(patches)} patches on vLLM {pin.tag}: {added} lines added, {removed} removed."
    for group in dict.fromkeys(patch.group for patch in patches):
        listed = [patch for patch in patches if patch.group == group]
        yield ""
        yield f"## {_TITLES.get(group, group)}"
        yield ""
        yield "| upstream file | change | diagnostics | archs | lines |"
        yield "|---|---|---|---|---|"
        yield from (_row(patch) for patch in listed)
        for patch in listed:
            yield from _section(patch)


def _row(patch: Patch) -> str:
    head = header.parse(patch.header)
    cells = (
        f"[{_code(patch.path)}](#{_anchor(patch)})",
        _text(head.summary),
        _codes(head.diagnostics),
        ", ".join(head.archs),
        _lines(patch),
    )
    return "| " + " | ".join(cells) + " |"


def _section(patch: Patch) -> Iterator[str]:
    head = header.parse(patch.header)
    yield ""
    yield f'<a id="{_anchor(patch)}"></a>'
    yield f"### {_code(patch.path)}"
    yield ""
    yield f"**{_text(head.summary)}**"
    yield ""
    yield from (_text(line) for line in head.body.split("\n"))
    yield ""
    yield f"- Cures: {_codes(head.diagnostics)}"
    yield f"- Covered by: {_codes(head.tests)}"
    yield f"- CUDA architectures: {', '.join(head.archs)}"
    yield f"- Forwarded upstream: {_text(head.forwarded)}"
    link = f"../{SERIES_FOLDER}/{patch.name}"
    yield f"- Patch: [{_code(patch.name)}]({link}) ({_lines(patch)}), {head.last_update}"


def _size(patches: Iterable[Patch]) -> tuple[int, int]:
    lines = [line[:1] for patch in patches for hunk in patch.change.hunks for line in hunk.lines]
    return lines.count(b"+"), lines.count(b"-")


def _lines(patch: Patch) -> str:
    added, removed = _size([patch])
    return f"+{added} −{removed}"


def _anchor(patch: Patch) -> str:
    return re.sub(r"[^a-z0-9]+", "-", patch.name.removesuffix(".patch").lower()).strip("-")


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(items: Iterable[str]) -> str:
    return ", ".join(_code(item) for item in items)


def _text(line: str) -> str:
    """A line of prose with Markdown's signs escaped, but for what stands in backquotes."""
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(part if part[:1] == "`" else _SPECIAL.sub(r"\\\g<0>", part) for part in parts)
