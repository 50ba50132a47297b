"""Writing another header to a patch: one step of the journal, with the reference in `docs/`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace as replaced
from pathlib import Path

from portkit.change.journal import Fingerprint, fingerprint
from portkit.errors import BadInput, PortError
from portkit.face import console
from portkit.model import Patch, split_lines
from portkit.patches import header, patchdoc, series
from portkit.patches import pin as pinfile
from portkit.patches.patchfile import SERIES_FOLDER, canonical, format_patch


def faults(patch: Patch) -> list[tuple[int, str]]:
    """What is wrong with the header of a patch, as (line, message)."""
    return header.validate(header.parse(patch.header))


def replace(
    root: Path, patch: Patch, text: bytes, expect: Fingerprint | None = None
) -> tuple[Patch, bool]:
    """`patch` with the header `text`, written; and whether it was another one.

    `expect` is the fingerprint from before the person saw the old header.  Raises `BadInput` for a
    text that is not a header (it holds a diff), or when the series changed since.
    """
    with console.repository(root) as journal:
        expect = fingerprint(root) if expect is None else expect
        whole = series.load(root)
        if whole.find(patch.name) != patch:
            raise BadInput(f"{patch.name} was changed meanwhile", hint="run the command again")
        new = canonical(replaced(patch, header=_tidied(text)))
        if new.header == patch.header:
            return patch, False
        patches = [new if one.name == new.name else one for one in whole.patches]
        pin = pinfile.read(root / pinfile.PIN_FILE)
        files = {
            f"{SERIES_FOLDER}/{new.name}": format_patch(new),
            patchdoc.DOC_FILE: patchdoc.render(whole.with_patches(patches), pin),
        }
        journal.switch(files, message=f"header of {new.name}", expect=expect)
    return new, True


def edit(root: Path, patch: Patch) -> tuple[Patch, bool]:
    """As `replace`, with what a person makes of the header in an editor.

    When the text cannot be taken it stays in a file that the error names.
    """
    expect = fingerprint(root)
    number, name = tempfile.mkstemp(prefix=Path(patch.path).name + "-", suffix=".header")
    file = Path(name)
    with os.fdopen(number, "wb") as stream:
        stream.write(patch.header)
    try:
        open_editor(file)
        made = replace(root, patch, file.read_bytes(), expect)
    except PortError as error:
        error.hint = f"{error.hint}; your text is kept in {file}".removeprefix("; ")
        raise
    file.unlink()
    return made


def _tidied(text: bytes) -> bytes:
    """`text` with LF, and without blank lines around it; editors add what they like."""
    lines = [line.rstrip(b"\r\n") + b"\n" for line in split_lines(text)]
    return b"".join(lines).strip(b"\n") + b"\n"


def open_editor(file: Path) -> None:
    """Let a person edit `file`, until the editor ends; raises `BadInput` when it cannot."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        command = "notepad" if os.name == "nt" else "vi"
    words = [word.strip('"') for word in shlex.split(command, posix=os.name != "nt")]
    sys.stdout.flush()
    hint = "set VISUAL or EDITOR to your editor's command"
    try:
        done = subprocess.run([*words, str(file)], check=False)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot start the editor {command!r}: {reason}", hint=hint) from None
    if done.returncode:
        raise BadInput(f"the editor {command!r} ended with {done.returncode}", hint=hint)
