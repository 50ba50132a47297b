"""What CMake says of a configured build: its file API, asked before and read after a configure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portkit.errors import IntegrityError

_API = Path(".cmake", "api", "v1")
_CLIENT = "client-portkit"
_KINDS = ("codemodel-v2", "toolchains-v1")
_HINT = "configure it again: tools/build.py --from configure"


@dataclass(frozen=True)
class Unit:
    """A translation unit: the file, the module it is part of, its object file and its command.

    `includes` are the folders of its command in the order the compiler searches them; `archs` what
    its device code is made for (`sm_80`, `compute_80`), empty for C++.
    """

    source: Path
    target: str
    object: str
    command: tuple[str, ...]
    includes: tuple[Path, ...]
    archs: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """A compiled module that is installed: CMake's name and its place in the wheel."""

    target: str
    place: str


@dataclass(frozen=True)
class Payload:
    """A folder whose Python files are installed with a component, and where to."""

    component: str
    folder: Path
    place: str


@dataclass(frozen=True)
class Reply:
    """A configured build."""

    folder: Path
    source: Path
    units: tuple[Unit, ...]
    modules: tuple[Module, ...]
    payloads: tuple[Payload, ...]
    compilers: dict[str, str]


def ask(folder: Path) -> None:
    """Leave the question for the next configure in `folder`; export compile commands beside it."""
    query = folder / _API / "query" / _CLIENT
    query.mkdir(parents=True, exist_ok=True)
    for kind in _KINDS:
        (query / kind).touch()


def read(folder: Path) -> Reply:
    """The reply of the last configure in `folder`; raises `IntegrityError` when there is none."""
    reply = folder / _API / "reply"
    index = max(reply.glob("index-*.json"), default=None)
    commands = folder / "compile_commands.json"
    if index is None or not commands.is_file():
        raise IntegrityError(f"{folder} holds no build that CMake described", hint=_HINT)
    try:
        answers = _load(index)["reply"][_CLIENT]
        model = _load(reply / answers["codemodel-v2"]["jsonFile"])
        toolchains = _load(reply / answers["toolchains-v1"]["jsonFile"])["toolchains"]
        configuration = model["configurations"][0]
        targets = [_load(reply / one["jsonFile"]) for one in configuration["targets"]]
        installers = [
            one
            for directory in configuration["directories"]
            for one in _load(reply / directory["jsonFile"]).get("installers", ())
        ]
        return Reply(
            folder,
            Path(model["paths"]["source"]),
            tuple(_units(folder, commands, targets)),
            tuple(_modules(installers, targets)),
            tuple(_payloads(installers, Path(model["paths"]["source"]))),
            {one["language"]: str(one["compiler"].get("path", "")) for one in toolchains},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"CMake's description of {folder} is damaged: {error}", hint=_HINT
        ) from None


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _units(folder: Path, commands: Path, targets: list[Any]) -> Iterator[Unit]:
    """Every unit of the compile commands, with the target that CMake's model has it in."""
    named = {
        f"CMakeFiles/{target['name']}.dir/": target["name"]
        for target in targets
        if target["type"] == "MODULE_LIBRARY"
    }
    for entry in _load(commands):
        output = entry["output"].replace("\\", "/")
        target = next((name for part, name in named.items() if part in output), "")
        words = tuple(split_command(entry["command"]))
        yield Unit(
            Path(entry["file"]),
            target,
            output,
            words,
            tuple(_includes(words, folder)),
            _archs(words),
        )


def split_command(text: str) -> list[str]:
    """The words of a command as CMake writes it for either system."""
    if "\\" in text and (".exe" in text.lower() or ":\\" in text):
        # Windows: backslashes are part of paths, except before a quote.
        lexer = shlex.shlex(text, posix=True, punctuation_chars="")
        lexer.whitespace_split = True
        lexer.escape = ""
        lexer.commenters = ""
        return list(lexer)
    return shlex.split(text)


def _includes(words: tuple[str, ...], folder: Path) -> Iterator[Path]:
    taken = ""
    for word in words:
        if taken:
            yield folder / word
            taken = ""
        elif word in ("-I", "/I", "-isystem", "-external:I", "/external:I"):
            taken = word
        elif word[:2] in ("-I", "/I"):
            yield folder / word[2:]
        elif word.startswith(("-external:I", "/external:I")):
            yield folder / word[len("-external:I") :]
        elif word.startswith("-isystem="):
            yield folder / word[len("-isystem=") :]


def _archs(words: tuple[str, ...]) -> tuple[str, ...]:
    found = [word for word in words if word.startswith("arch=compute_") and ",code=" in word]
    flags = [word.partition("=")[2] for word in words if word.startswith("--generate-code=")]
    codes = [word.partition(",code=")[2].strip("[]") for word in (*found, *flags)]
    return tuple(dict.fromkeys(code for one in codes for code in one.split(",") if code))


def _modules(installers: list[Any], targets: list[Any]) -> Iterator[Module]:
    modules = {target["id"] for target in targets if target["type"] == "MODULE_LIBRARY"}
    names = {target["id"]: target["name"] for target in targets}
    for one in installers:
        if one["type"] == "target" and one.get("targetId") in modules:
            for path in one["paths"]:
                file = path if isinstance(path, str) else path["from"]
                place = f"{_destination(one)}/{file.rpartition('/')[2]}"
                yield Module(names[one["targetId"]], place)


def _payloads(installers: list[Any], source: Path) -> Iterator[Payload]:
    for one in installers:
        if one["type"] == "directory":
            for path in one["paths"]:
                folder = path if isinstance(path, str) else path["from"]
                yield Payload(one["component"], source / folder, _destination(one))


def _destination(installer: Any) -> str:
    return str(installer.get("destination", "")).rstrip("/")
