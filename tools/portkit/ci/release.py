"""What goes with the wheels of a release: their hashes, and notes that say which one to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from portkit.build.wheels import Local, local
from portkit.errors import BadInput
from portkit.model import Pin
from portkit.upstream.archive import describe

SUMS = "SHA256SUMS"


def wheels(folder: Path) -> list[Path]:
    """The wheels in `folder`, by name; raises `BadInput` where there is none, or a misnamed one.

    Their names tell them apart: toolkit and architectures stand in the version.
    """
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise BadInput(f"there is no wheel in {folder}")
    for wheel in found:
        _local(wheel)
    return found


def sums(files: Iterable[Path]) -> str:
    """Lines as `sha256sum -c` reads them."""
    return "".join(f"{describe(file).sha256}  {file.name}\n" for file in files)


def _local(wheel: Path) -> Local:
    try:
        _, version, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise BadInput(f"{wheel}: {error}") from error
    found = local(version)
    if found is None:
        raise BadInput(
            f"{wheel.name} does not say its CUDA: {version}", hint="build it with tools/build.py"
        )
    return found


def notes(pin: Pin, patches: int, files: Sequence[Path]) -> str:
    """The text of the release, in Markdown."""
    return "\n".join(_notes(pin, patches, files)) + "\n"


def _notes(pin: Pin, patches: int, files: Sequence[Path]) -> Iterator[str]:
    yield f"vLLM {pin.tag} (commit `{pin.commit}`) with {patches} patches, for Windows."
    yield ""
    yield "| wheel | CUDA | compute capability | size |"
    yield "|---|---|---|---|"
    for file in files:
        built = _local(file)
        archs = ", ".join(built.archs) or "all"
        size = f"{file.stat().st_size / 1e6:.0f} MB"
        yield f"| `{file.name}` | {built.cuda} | {archs} | {size} |"
    yield ""
    yield f"Take the one for your CUDA build of torch and your GPU. `{SUMS}` has the hashes, and"
    yield "`gh attestation verify WHEEL` shows that the wheel was built here from this tag."
