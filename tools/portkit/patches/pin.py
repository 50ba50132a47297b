"""`upstream_pin.txt`: which upstream the series is written for, as `key: value` lines."""

from __future__ import annotations

import re
from pathlib import Path

from portkit.errors import BadFile
from portkit.model import Archive, Pin

PIN_FILE = "upstream_pin.txt"

_COMMENT = """\
# The upstream release that patch_series/ is written for.  Only the tools write this file:
# tools/refresh.py --to TAG moves the pin and the series together.
# tree is the git tree of the pristine source, patched-tree that with every patch applied.
"""
_ARCHIVE_KEYS = ("archive", "archive-size", "archive-sha256")
_HEX = "lower-case hex digits"
_RULES: dict[str, tuple[str, str]] = {
    "repository": (r"\S+", "an address without spaces"),
    "tag": (r"v\d+(\.\d+)+((a|b|rc|\.post|\.dev)\d+)?", "a release tag such as v0.14.1"),
    "commit": (r"[0-9a-f]{7,40}", f"7 to 40 {_HEX}"),
    "archive": (r"[\w.+-]+\.tar\.gz", "the name of a .tar.gz file"),
    "archive-size": (r"[1-9]\d*", "a number of bytes"),
    "archive-sha256": (r"[0-9a-f]{64}", f"64 {_HEX}"),
    "tree": (r"[0-9a-f]{40}", f"40 {_HEX}"),
    "patched-tree": (r"[0-9a-f]{40}", f"40 {_HEX}"),
}


def read(path: Path) -> Pin:
    """The pin in the file at `path`; raises `BadFile` with the line of what is wrong."""
    if not path.is_file():
        raise BadFile(path.name, None, "is missing", hint="run from a clone of the repository")
    return parse(path.read_bytes(), path.name)


def parse(data: bytes, where: str = PIN_FILE) -> Pin:
    """The pin in `data`; `where` names it in errors."""
    values: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, colon, value = (part.strip() for part in text.partition(":"))
        if not colon:
            raise BadFile(where, number, f"expected `key: value`, found {text!r}")
        if key not in _RULES:
            raise BadFile(where, number, f"unknown key {key!r}", hint="keys: " + ", ".join(_RULES))
        if key in values:
            raise BadFile(where, number, f"{key} is given twice")
        pattern, expected = _RULES[key]
        if not re.fullmatch(pattern, value, re.ASCII):
            raise BadFile(where, number, f"{key} is {value!r}, expected {expected}")
        values[key] = value
    _check_complete(where, values)
    return Pin(
        repository=values["repository"],
        tag=values["tag"],
        commit=values["commit"],
        archive=_archive(values),
        tree=values["tree"],
        patched_tree=values["patched-tree"],
    )


def render(pin: Pin) -> bytes:
    """The file of a pin; `parse` gives the pin back."""
    values = {"repository": pin.repository, "tag": pin.tag, "commit": pin.commit}
    if pin.archive is not None:
        archive = (pin.archive.name, str(pin.archive.size), pin.archive.sha256)
        values |= dict(zip(_ARCHIVE_KEYS, archive, strict=True))
    values |= {"tree": pin.tree, "patched-tree": pin.patched_tree}
    return (_COMMENT + "".join(f"{key}: {value}\n" for key, value in values.items())).encode()


def _check_complete(where: str, values: dict[str, str]) -> None:
    # The archive may be left out: not every tag has one on the package index.
    archive = any(key in values for key in _ARCHIVE_KEYS)
    for key in _RULES:
        if key not in values and (archive or key not in _ARCHIVE_KEYS):
            raise BadFile(where, None, f"{key} is missing", hint=f"git checkout -- {where}")


def _archive(values: dict[str, str]) -> Archive | None:
    if "archive" not in values:
        return None
    name, size, sha256 = (values[key] for key in _ARCHIVE_KEYS)
    return Archive(name, int(size), sha256)
