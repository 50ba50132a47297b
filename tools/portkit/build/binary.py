"""What a compiled module is: its format, machine, the libraries it asks for, its entry point."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import pefile

_ELF_X86_64 = 62
_ELF_AARCH64 = 183
_PE_AMD64 = 0x8664
_PE_ARM64 = 0xAA64


@dataclass(frozen=True)
class Binary:
    """A module's file: `kind` is `pe` or `elf`; libraries and entry points only of the former."""

    kind: str
    machine: str
    libraries: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()

    @property
    def debug_runtime(self) -> str | None:
        """A library of a Debug build that it asks for, which only Visual Studio has."""
        return next((one for one in self.libraries if _DEBUG.fullmatch(one)), None)

    @property
    def cuda_major(self) -> int | None:
        """The major version of the CUDA runtime that it asks for."""
        found = (re.fullmatch(r"cudart64_(\d+)\.dll", one) for one in self.libraries)
        return next((int(one[1][:2]) for one in found if one is not None), None)

    @property
    def python(self) -> str | None:
        """The Python library it asks for: `python3.dll` is every version's (abi3)."""
        return next(
            (one for one in self.libraries if re.fullmatch(r"python3\d*(_d)?\.dll", one)), None
        )


_DEBUG = re.compile(r"(vcruntime\d+(_\d)?d|msvcp\d+d|ucrtbased|concrt\d+d|python3\d*_d)\.dll")


def described(data: bytes) -> Binary | None:
    """What the bytes of a module say; None when they are no module of a known format."""
    if data[:4] == b"\x7fELF" and len(data) >= 20:
        number = struct.unpack_from("<H", data, 18)[0]
        names = {_ELF_X86_64: "x86_64", _ELF_AARCH64: "aarch64"}
        return Binary("elf", names.get(number, f"ELF machine {number}"))
    if data[:2] != b"MZ":
        return None
    try:
        image = pefile.PE(data=data, fast_load=True)
        image.parse_data_directories(
            directories=[
                pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"],
                pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_EXPORT"],
            ]
        )
    except pefile.PEFormatError:
        return None
    machines = {_PE_AMD64: "AMD64", _PE_ARM64: "ARM64"}
    number = image.FILE_HEADER.Machine
    imports = getattr(image, "DIRECTORY_ENTRY_IMPORT", ())
    exported = getattr(image, "DIRECTORY_ENTRY_EXPORT", None)
    return Binary(
        "pe",
        machines.get(number, f"PE machine {number:#x}"),
        tuple(one.dll.decode("ascii", "replace").lower() for one in imports),
        tuple(
            one.name.decode("ascii", "replace")
            for one in (exported.symbols if exported is not None else ())
            if one.name
        ),
    )
