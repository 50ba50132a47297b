"""A DLL as small as it gets: the tables that say what it imports and exports, and no code."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_BASE = 0x1000  # where the one section is mapped
_HEADERS = 0x200


def dll(
    exports: Sequence[str], libraries: Sequence[str], *, machine: int = 0x8664, name: str = "m.pyd"
) -> bytes:
    """A 64-bit DLL that exports `exports` and imports one function of each of `libraries`."""
    section = bytearray()

    def put(data: bytes) -> int:
        """Add data to the section; its address."""
        section.extend(bytes(-len(section) % 8))
        section.extend(data)
        return _BASE + len(section) - len(data)

    descriptors = b""
    for library in libraries:
        hint = put(b"\0\0function\0")
        table = put(struct.pack("<QQ", hint, 0))
        text = put(library.encode() + b"\0")
        descriptors += struct.pack("<IIIII", table, 0, 0, text, table)
    imports = put(descriptors + bytes(20))
    names = [put(one.encode() + b"\0") for one in sorted(exports)]
    count = len(names)
    addresses = put(struct.pack(f"<{count}I", *[_BASE] * count))
    pointers = put(struct.pack(f"<{count}I", *names))
    ordinals = put(struct.pack(f"<{count}H", *range(count)))
    own = put(name.encode() + b"\0")
    exported = put(
        struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, own, 1, count, count, addresses, pointers, ordinals)
    )
    size = len(section) + (-len(section) % 0x200)

    directories = [(exported, 40), (imports, len(descriptors) + 20), *[(0, 0)] * 14]
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        0x20B, 14, 0, 0, size, 0, 0, _BASE, 0x180000000, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0,
        _BASE + 0x1000, _HEADERS, 0, 2, 0x160, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16,
    )  # fmt: skip
    optional += b"".join(struct.pack("<II", *one) for one in directories)
    header = struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, len(optional), 0x2022)
    sections = struct.pack(
        "<8sIIIIIIHHI", b".rdata", len(section), _BASE, size, _HEADERS, 0, 0, 0, 0, 0x40000040
    )
    front = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + header + optional + sections
    return front + bytes(_HEADERS - len(front)) + bytes(section) + bytes(size - len(section))
