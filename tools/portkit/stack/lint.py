"""What is wrong with a series: every fault with its file and line, none hiding another.

`check` reads what is in the repository; `check_source` also asks upstream's source whether the
patches apply and what they make of it.  Neither stops at the first fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from portkit.errors import BadFile
from portkit.kernels import manifest as kernelmanifest
from portkit.patches import patchdoc
from portkit.patches import pin as pinfile
from portkit.patches.apply import DoesNotApply, apply_change
from portkit.patches.patchfile import SERIES_FOLDER, parse_patch
from portkit.patches.series import (
    SERIES_FILE,
    Entry,
    Series,
    claims,
    name_in,
    order_lines,
    patch_files,
    proper_name,
)
from portkit.stack import lintrules as rules
from portkit.stack.lintrules import Fault, Listed
from portkit.upstream.pristine import Pristine

_ELSEWHERE = ("resolutions/", "rules/")
_KNOWN = ("series", "evidence.json")  # the latter is what the audit recorded


@dataclass(frozen=True)
class Found:
    """The patches that could be read, in order, and the faults."""

    listed: tuple[Listed, ...]
    faults: tuple[Fault, ...]


def check(root: Path, *, today: date) -> Found:
    """The faults of the repository at `root`, as far as they show without upstream's source."""
    faults: list[Fault] = []
    listed = _read(root, faults)
    tests = rules.Tests(root)
    for one in listed:
        faults += rules.of_form(one)
        faults += rules.of_header(one, tests, today)
        faults += rules.of_lines(one)
        faults += rules.of_file(one)
    faults += _strays(root)
    faults += _of_kernels(root, listed)
    faults += _of_pin(root, listed, whole=not faults)
    return Found(tuple(listed), tuple(sorted(faults)))


def check_source(listed: Sequence[Listed], pristine: Pristine) -> tuple[Fault, ...]:
    """The faults that show on upstream's source: what does not apply, what does not compile."""
    faults: list[Fault] = []
    files: dict[str, bytes | None] = {}
    for one in listed:
        if one.patch.group == "deps":
            continue
        old, new = one.patch.change.old_path, one.patch.change.new_path
        for path in {old, new} - {None}:
            assert path is not None
            if path not in files:
                files[path] = pristine.read(path)
        before = files[old] if old is not None else files[one.patch.path]
        try:
            after = apply_change(one.patch.change, before)
        except DoesNotApply as error:
            faults.append(one.fault(one.at_hunk(error.hunk), "applies", error.message))
            continue
        if old is not None:
            files[old] = None
        if new is not None:
            files[new] = after
            faults += rules.of_python(one, before, after or b"")
    return tuple(sorted(faults))


# reading the series, whatever is wrong with it


def _read(root: Path, faults: list[Fault]) -> list[Listed]:
    order = root / SERIES_FILE
    if not order.is_file():
        faults.append(Fault(SERIES_FILE, 1, "series", "is missing"))
        return []
    listed: list[Listed] = []
    users: dict[str, str] = {}
    named: set[str] = set()
    for number, text in enumerate(order_lines(order.read_bytes()), 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        try:
            name, _ = name_in(number, text)
        except BadFile as error:
            faults.append(_fault(error, "series"))
            continue
        if name in named:
            faults.append(Fault(SERIES_FILE, number, "series", f"{name} is listed twice"))
            continue
        named.add(name)
        file = root / SERIES_FOLDER / name
        if not file.is_file():
            faults.append(Fault(SERIES_FILE, number, "missing", f"{name} is missing"))
            continue
        data = file.read_bytes()
        try:
            one = Listed(parse_patch(name, data), data, number)
        except BadFile as error:
            faults.append(_fault(error, "patch"))
            continue
        for used in claims(one.patch):
            other = users.setdefault(used, name)
            if other != name:
                message = f"{name} and {other} change the same file"
                faults.append(Fault(SERIES_FILE, number, "twice", message))
        if expected := proper_name(one.patch):
            faults.append(Fault(SERIES_FILE, number, "name", f"{name} is to be called {expected}"))
        listed.append(one)
    for name in patch_files(root):
        if name not in named:
            message = f"is not listed in {SERIES_FILE}"
            faults.append(Fault(f"{SERIES_FOLDER}/{name}", 1, "unused", message))
    return listed


def _fault(error: BadFile, rule: str) -> Fault:
    place = f"{error.where}:{error.line}" if error.line is not None else error.where
    return Fault(error.where, error.line or 1, rule, error.message.removeprefix(f"{place}: "))


# around the patches


def _strays(root: Path) -> Iterator[Fault]:
    """Files in the series' folder that are none of the series'."""
    folder = root / SERIES_FOLDER
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = file.relative_to(folder).as_posix()
        known = name in _KNOWN or name.endswith(".patch") or name.startswith(_ELSEWHERE)
        if file.is_file() and not known:
            message = "is neither a patch nor anything else of the series"
            yield Fault(f"{SERIES_FOLDER}/{name}", 1, "stray", message)


def _of_kernels(root: Path, listed: Sequence[Listed]) -> Iterator[Fault]:
    """Patches of compiled files without a kernel test, and tests of patches that are gone."""
    if not (root / kernelmanifest.MANIFEST_FILE).exists():
        return
    try:
        manifest = kernelmanifest.load(root)
    except BadFile as error:
        yield _fault(error, "kernels")
        return
    paths = {one.patch.name: one.patch.path for one in listed}
    for one in listed:
        if one.patch.name in kernelmanifest.unclaimed(manifest, paths):
            message = (
                f"changes a compiled file and is in no entry of {kernelmanifest.MANIFEST_FILE}"
            )
            yield one.fault(1, "kernels", message)
    for kernel, patch in kernelmanifest.unknown(manifest, paths):
        yield Fault(kernelmanifest.MANIFEST_FILE, 1, "kernels", f"{kernel}: there is no {patch}")


def _of_pin(root: Path, listed: Sequence[Listed], *, whole: bool) -> Iterator[Fault]:
    """The pin, and where all else is right the patch reference."""
    try:
        pin = pinfile.read(root / pinfile.PIN_FILE)
    except BadFile as error:
        yield _fault(error, "pin")
        return
    series = Series(tuple(Entry(one.patch) for one in listed))
    if whole and not patchdoc.is_current(root, series, pin):
        message = "is not what the headers say: run tools/series.py docs"
        yield Fault(patchdoc.DOC_FILE, 1, "docs", message)
