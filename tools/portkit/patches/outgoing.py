"""A patch fit to be sent upstream: a mail as `git format-patch` writes one.

It holds the change and its reasons; the fields that only this repository has a use for (tests,
architectures, what was forwarded) stay here.  `git am` (`-3` too) and `stg import --mail`
take it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from email.header import Header as MailHeader
from email.utils import format_datetime, formataddr, parseaddr
from hashlib import sha1

from portkit.errors import BadInput
from portkit.model import FileChange, Patch, split_lines
from portkit.patches import header
from portkit.patches.apply import apply_change
from portkit.patches.header import Header
from portkit.patches.patchfile import canonical_change, format_change
from portkit.upstream.pristine import Pristine

NOT_UPSTREAM = "not-needed"  # of `Forwarded`: a patch that upstream has no use for
_NO_COMMIT = "0" * 40
_NO_BLOB = "0" * 40


@dataclass(frozen=True)
class Sender:
    """Who sends: name and address, as in `Name <mail@example.org>`."""

    name: str
    address: str

    @classmethod
    def parse(cls, text: str) -> Sender:
        """Raises `BadInput` for text that names no address."""
        name, address = parseaddr(text)
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", address):
            raise BadInput(
                f"{text!r} has no mail address",
                hint='say who sends with --author "Name <mail@example.org>"',
            )
        return cls(name or address, address)

    def __str__(self) -> str:
        return formataddr((self.name, self.address), "utf-8")


def forwardable(patches: Sequence[Patch]) -> list[Patch]:
    """The patches that upstream has a use for."""
    return [p for p in patches if header.parse(p.header).forwarded != NOT_UPSTREAM]


def mail(
    patch: Patch,
    pristine: Pristine,
    *,
    sender: Sender,
    sign_off: bool = False,
    number: int = 1,
    total: int = 1,
) -> bytes:
    """The mail of `patch`, number `number` of `total`.

    Raises `DoesNotApply` when the patch does not fit the pinned source, `BadInput` when its header
    has no summary or is not UTF-8.
    """
    head = header.parse(patch.header)
    if not head.summary or header.STUB in head.summary:
        raise BadInput(f"{patch.name} has no summary", hint="write its Description")
    message = _message(head)
    if sign_off:
        message += f"\n\nSigned-off-by: {sender.name} <{sender.address}>"
    change = canonical_change(patch.change)
    diff = _indexed(change, pristine)
    body = f"{message}\n---\n{_stat(change)}\n".encode() + diff + b"-- \nportkit\n"
    counted = f"[PATCH {number:0{len(str(total))}}/{total}]" if total > 1 else "[PATCH]"
    encoding, body = _encoded(body)
    lines = [
        f"From {_NO_COMMIT} Mon Sep 17 00:00:00 2001",
        f"From: {sender}",
        f"Date: {format_datetime(_noon(head.last_update))}",
        f"Subject: {_folded(f'{counted} {head.summary}')}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=UTF-8",
        f"Content-Transfer-Encoding: {encoding}",
    ]
    return "".join(f"{line}\n" for line in lines).encode() + b"\n" + body + b"\n"


def file_name(patch: Patch, number: int) -> str:
    """The name of a mail's file, as `git format-patch` names one."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", header.parse(patch.header).summary).strip("-.")
    return f"{number:04}-{words[:52].rstrip('-.')}.patch"


def _message(head: Header) -> str:
    """The description; a line that `git am` would take for the end of it is indented."""
    lines = head.body.split("\n")
    ends = re.compile(r"---($| )|diff -|Index: |From .*:\d\d")
    return "\n".join(f" {line}" if ends.match(line) else line for line in lines)


def _folded(subject: str) -> str:
    charset = "us-ascii" if subject.isascii() else "utf-8"
    return MailHeader(subject, charset, maxlinelen=76, header_name="Subject").encode()


def _noon(day: str) -> datetime:
    try:
        known = date.fromisoformat(day)
    except ValueError:
        known = datetime.now(timezone.utc).date()
    return datetime(known.year, known.month, known.day, 12, tzinfo=timezone.utc)


def _stat(change: FileChange) -> str:
    kinds = [line[:1] for hunk in change.hunks for line in hunk.lines]
    return f" {change.path} | +{kinds.count(b'+')} -{kinds.count(b'-')}\n"


def _indexed(change: FileChange, pristine: Pristine) -> bytes:
    """The diff with git's `index` line, by which `git am -3` finds the old file."""
    old = change.old_path
    before = pristine.read(old) if old is not None else None
    after = apply_change(change, before)
    diff = format_change(change)
    if not change.hunks:
        return diff
    ids = f"index {_blob(before)}..{_blob(after)}"
    if before is not None and after is not None and change.old_mode is None and old is not None:
        ids += f" {pristine.entries(old)[old].mode}"
    lines = split_lines(diff)
    at = next(n for n, line in enumerate(lines) if line.startswith(b"--- "))
    return b"".join([*lines[:at], f"{ids}\n".encode(), *lines[at:]])


def _blob(data: bytes | None) -> str:
    """git's id of a blob."""
    if data is None:
        return _NO_BLOB
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _encoded(body: bytes) -> tuple[str, bytes]:
    """The transfer encoding that brings `body` through mail byte for byte, and the body in it."""
    try:
        body.decode()
        safe = b"\r" not in body and all(len(line) < 998 for line in body.split(b"\n"))
    except UnicodeDecodeError:
        safe = False
    return ("8bit", body) if safe else ("base64", base64.encodebytes(body))
