"""What a wheel of the pin must hold beside upstream's own files: `data/manifest-<tag>.json`.

Upstream's files are those of the pinned tree below `vllm/`, so they need no list.  The compiled
modules, the Python files of third-party projects, and the generated ones are listed per pin, from
a configured build (`tools/build.py manifest`), and a wheel is not accepted without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from portkit.build.cmakereply import Reply
from portkit.errors import BadFile, BadInput

_FOLDER = Path(__file__).with_name("data")
_SUFFIXES = (".abi3.so", ".pyd", ".so")


@dataclass(frozen=True)
class Manifest:
    """Places in the wheel.

    `modules` are compiled ones without their suffix (`vllm/_C`); a module with architectures is
    there only in builds for one of them, and one with none in every build.
    """

    tag: str
    modules: dict[str, tuple[str, ...]]
    payload: tuple[str, ...]
    generated: tuple[str, ...] = ()

    def required(self, archs: Iterable[str] = ()) -> tuple[str, ...]:
        """The modules that every build has, and those of builds for `archs`."""
        wanted = set(archs)
        return tuple(
            name for name, only in self.modules.items() if not only or wanted.intersection(only)
        )


def load(tag: str) -> Manifest:
    """The manifest of a pin; raises `BadInput` when there is none, `BadFile` when it is damaged."""
    path = _FOLDER / f"manifest-{tag}.json"
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        modules = {name: tuple(only) for name, only in read["modules"].items()}
        return Manifest(read["tag"], modules, tuple(read["payload"]), tuple(read["generated"]))
    except FileNotFoundError:
        raise BadInput(
            f"there is no manifest of wheels of {tag}",
            hint="configure a build of it, then tools/build.py manifest writes one",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(str(path), None, f"is no manifest: {error}") from None


def render(manifest: Manifest) -> bytes:
    """The manifest as its file has it."""
    read = {
        "tag": manifest.tag,
        "modules": {name: list(only) for name, only in sorted(manifest.modules.items())},
        "generated": sorted(manifest.generated),
        "payload": sorted(manifest.payload),
    }
    return (json.dumps(read, indent=1) + "\n").encode()


def path_of(tag: str) -> Path:
    return _FOLDER / f"manifest-{tag}.json"


def of_build(reply: Reply, tag: str) -> Manifest:
    """What the wheel of a configured build holds, exactly."""
    modules: dict[str, tuple[str, ...]] = {stem(one.place): () for one in reply.modules}
    payload = {
        f"{one.place}/{file.relative_to(one.folder).as_posix()}"
        for one in reply.payloads
        for file in one.folder.rglob("*.py")
    }
    return Manifest(tag, modules, tuple(sorted(payload)))


def merged(found: Manifest, recorded: Manifest | None) -> Manifest:
    """A build's manifest with what was recorded before, of builds for other architectures."""
    if recorded is None:
        return found
    modules = {**found.modules, **{name: a for name, a in recorded.modules.items() if a}}
    return Manifest(found.tag, modules, found.payload, recorded.generated)


def stem(place: str) -> str:
    """The place of a compiled module without what its system puts behind the name."""
    folder, slash, name = place.rpartition("/")
    return f"{folder}{slash}{name.split('.', 1)[0]}"


def is_compiled(place: str) -> bool:
    return place.endswith(_SUFFIXES)
