"""Two builds of one translation unit, compared as machine code.

PTX is compared function by function, cubins (what ptxas makes of it for one architecture) section
by section, host objects section by section with their relocations.  Names that contain a hash of
the file are normalised, for a changed file has another hash.  Variables that no code refers to are
left out, and counted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from portkit.audit.doubt import Doubt
from portkit.cuda.nvcc import Compiled

# `_INTERNAL_1bc2c02d_9_common_cu_4c4e1efd`: hashes of the file, of fixed length.
_HASHED = re.compile(r"_[0-9a-f]{8}_(\d+_\w+?_c(?:u|pp))_[0-9a-f]{8}")
_LABEL = re.compile(r"\$L__BB\d+_")
_FUNCTION = re.compile(r"\.(?:entry|func)\b(?:\s*\([^)]*\))?\s*([\w$]+)")
_VARIABLE = re.compile(r"\.(?:global|const|shared)\b[^;={]*?([\w$]+)\s*(?:\[[^\]]*\])*\s*(?:=|;|$)")
_NAME = re.compile(r"[A-Za-z_$][\w$]*")


@dataclass(frozen=True)
class Same:
    """What was found equal: numbers of device functions and kernels, of variables left out.

    `host` says whether the host objects are the same too, `host_doubt` why they are not; without
    them it is False and "".
    """

    functions: int
    kernels: int
    unused: int
    host: bool = False
    host_doubt: str = ""


def compare(upstream: Compiled, patched: Compiled) -> Same:
    """What is equal; raises `Doubt` at the first difference of device code."""
    before, after = _Ptx(upstream.ptx), _Ptx(patched.ptx)
    _same_items("PTX of", before.functions, after.functions)
    _same_items("variable", before.used, after.used)
    if before.target != after.target:
        raise Doubt(f"PTX is for {after.target}, not {before.target}")
    code = _code(upstream.cubin)
    _same_items("machine code of", code, _code(patched.cubin))
    unused = len(before.unused ^ after.unused)
    kernels = sum(".entry" in str(text) for text in before.functions.values())
    host, host_doubt = False, ""
    if upstream.host is not None and patched.host is not None:
        try:
            _same_items("host code in", _host(upstream.host), _host(patched.host))
            host = True
        except Doubt as doubt:
            host_doubt = str(doubt)
    return Same(len(before.functions), kernels, unused, host, host_doubt)


def _same_items(what: str, before: dict[str, object], after: dict[str, object]) -> None:
    for name in sorted({*before, *after}):
        if name not in after:
            raise Doubt(f"{what} {name} is gone")
        if name not in before:
            raise Doubt(f"{what} {name} is new")
        if before[name] != after[name]:
            raise Doubt(f"{what} {name} differs")


def _normal(text: str) -> str:
    return _HASHED.sub(r"_HASH_\1_HASH", text)


class _Ptx:
    """The functions and variables of a PTX file, by normalised name."""

    def __init__(self, data: bytes) -> None:
        text = _normal(data.decode("utf-8", "replace"))
        self.functions: dict[str, object] = {}
        self.target = " ".join(re.findall(r"^\.(?:version|target|address_size) .*", text, re.M))
        variables: dict[str, str] = {}
        for item in _items(text):
            function = _FUNCTION.search(item)
            if function is not None:
                kind = "" if "{" in item else " declared"
                self.functions[function[1] + kind] = _LABEL.sub("$L__BB_", item)
                continue
            variable = _VARIABLE.search(item)
            variables[variable[1] if variable is not None else item] = item
        bodies = " ".join(map(str, self.functions.values()))
        mentioned = set(_NAME.findall(bodies)) | _others(variables)
        self.used: dict[str, object] = {n: v for n, v in variables.items() if n in mentioned}
        self.unused = set(variables) - set(self.used)


def _others(variables: dict[str, str]) -> set[str]:
    """The names that initialisers of variables mention."""
    values = (text.partition("=")[2] for text in variables.values())
    return {name for value in values for name in _NAME.findall(value)}


def _items(text: str) -> Iterator[str]:
    """Everything at the top level: a variable, a declaration or a function with its body."""
    item: list[str] = []
    depth = 0
    for line in text.splitlines():
        words = line.split("//")[0].strip()
        if not words or (not item and re.match(r"\.(version|target|address_size|file)\b", words)):
            continue
        item.append(words)
        if words.startswith(".global") and words.endswith(";"):  # `= {1, 2};` has braces too
            pass
        else:
            depth += words.count("{") - words.count("}")
        if depth == 0 and words.endswith((";", "}")):
            yield "\n".join(item)
            item = []


_OF_KERNELS = re.compile(r"\.(?:text|nv\.constant\d+|nv\.shared|nv\.local)\.")


def _code(cubin: bytes) -> dict[str, object]:
    """Per kernel section of a cubin: size, contents, registers, relocations."""
    elf = ELFFile(io.BytesIO(cubin))
    relocations = _relocations(elf)
    found: dict[str, object] = {}
    for number, section in enumerate(elf.iter_sections()):
        if _OF_KERNELS.match(section.name):
            registers = section["sh_info"] >> 24
            what = (_contents(section), section["sh_size"], registers)
            found[_normal(section.name)] = (*what, _meanings(relocations.get(number, ())))
    return found


def _host(data: bytes) -> dict[str, object]:
    """Per section of code or data of a host object: contents and relocations.

    Strings and constants that the linker may merge are compared where they are used, and variables
    that nothing uses are left out.  The functions that tell the CUDA runtime about kernels and
    variables are not compared: what they register is the device code, which is.
    """
    elf = ELFFile(io.BytesIO(data))
    relocations = _relocations(elf)
    sections = {
        number: section
        for number, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & _ALLOCATED
        and not section["sh_flags"] & _MERGED
        and section["sh_size"]
        and not _NOT_HOST.match(section.name)
        and not _REGISTERS.search(section.name)
    }
    referred = {one.section for number in sections for one in relocations.get(number, ())}
    return {
        _normal(section.name): (_contents(section), _meanings(relocations.get(number, ())))
        for number, section in sections.items()
        if number in referred or not section.name.startswith(_VARIABLES)
    }


_ALLOCATED, _MERGED, _STRINGS = 0x2, 0x10, 0x20  # section flags of ELF
_NOT_HOST = re.compile(r"\.?(?:nv_fatbin|nvFatBinSegment|__nv|comment|note|debug|eh_frame|group)")
_VARIABLES = (".rodata", ".data", ".bss")
_REGISTERS = re.compile(r"cudaRegister|cudaEntityRegister")


def _contents(section: Section) -> object:
    return section["sh_size"] if section["sh_type"] == "SHT_NOBITS" else section.data()


@dataclass(frozen=True)
class _Relocation:
    """What is put in at an offset: `meaning` of the symbol, in which `section` it is defined."""

    offset: int
    kind: int
    meaning: object
    addend: int
    section: object


def _meanings(relocations: Iterable[_Relocation]) -> list[object]:
    """Relocations as they compare."""
    return [(one.offset, one.kind, one.meaning, one.addend) for one in relocations]


def _relocations(elf: ELFFile) -> dict[int, list[_Relocation]]:
    """The relocations of each section that has some, by its number."""
    found: dict[int, list[_Relocation]] = {}
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        symbols = elf.get_section(section["sh_link"])
        assert isinstance(symbols, SymbolTableSection)
        meanings: dict[int, tuple[object, object]] = {}
        into = found.setdefault(section["sh_info"], [])
        for one in section.iter_relocations():
            number = one["r_info_sym"]
            if number not in meanings:
                symbol = symbols.get_symbol(number)
                meanings[number] = (_meaning(elf, symbol), symbol["st_shndx"])
            meaning, home = meanings[number]
            addend = one["r_addend"] if "r_addend" in one.entry else 0
            into.append(_Relocation(one["r_offset"], one["r_info_type"], meaning, addend, home))
    return found


def _meaning(elf: ELFFile, symbol: Symbol) -> object:
    """A symbol's normalised name; of a local label for a constant, the constant."""
    index = symbol["st_shndx"]
    section = elf.get_section(index) if isinstance(index, int) else None
    if section is not None and symbol.name.startswith(".L") and section["sh_flags"] & _MERGED:
        data, start = section.data(), symbol["st_value"]
        strings = section["sh_flags"] & _STRINGS
        end = data.index(b"\0", start) if strings else start + section["sh_entsize"]
        return data[start:end]
    if symbol.name:
        return _normal(symbol.name)
    return section.name if section is not None else str(index)
