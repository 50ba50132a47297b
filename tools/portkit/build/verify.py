"""Whether a wheel is what it should be: each question is one check with an answer in words."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from wheel.wheelfile import WheelError, WheelFile

from portkit.build import binary, wheels
from portkit.build.manifest import Manifest, is_compiled, stem
from portkit.build.wheels import Wheel
from portkit.build.words import Check, fail, ok, some, warn
from portkit.model import Event, Events, silent
from portkit.upstream.git import blob_id

_AGAIN = "build the wheel again: tools/build.py --from post-build"
# Projects without anything for Windows; where pip finds a file all the same, it does not work.
_LINUX_ONLY = (
    "flashinfer-python",
    "flashinfer-cubin",
    "triton",
    "uvloop",
    "nvidia-nccl",
    "vllm-flash-attn",
)
_STRAY = (".cu", ".cuh", ".cpp", ".o", ".obj", ".pyc", ".lib", ".exp", ".pdb")

_WINDOWS = {
    "implementation_name": "cpython",
    "implementation_version": "3.10.11",
    "os_name": "nt",
    "platform_machine": "AMD64",
    "platform_python_implementation": "CPython",
    "platform_release": "10",
    "platform_system": "Windows",
    "platform_version": "10.0.19045",
    "python_full_version": "3.10.11",
    "python_version": "3.10",
    "sys_platform": "win32",
    "extra": "",
}


def verify(
    wheel: Wheel,
    manifest: Manifest,
    pinned: Mapping[str, str],
    *,
    archs: Sequence[str] = (),
    events: Events = silent,
) -> list[Check]:
    """All checks of a wheel.

    `pinned` names the files of the patched tree below `vllm/`, with git's ids of their contents;
    `archs` those the wheel was built for, where that is known; else its version says.
    """
    named = wheels.local(wheel.version)
    archs = archs or (named.archs if named is not None else ())
    checks = [_name(wheel, manifest, archs), _tags(wheel)]
    checks += _contents(wheel, events)
    checks += _metadata(wheel)
    checks += _files(wheel, manifest, pinned)
    checks += _modules(wheel, manifest, archs)
    return checks


def _name(wheel: Wheel, manifest: Manifest, archs: Sequence[str]) -> Check:
    release = manifest.tag.removeprefix("v")
    local = wheels.local(wheel.version)
    if wheel.path.name.partition("-")[0] != "vllm" or wheel.version.public != release:
        return fail(
            "version",
            f"{wheel.path.name} is not of vllm {release}",
            "verify it against the pin it was built from",
        )
    if wheel.windows and not (local is not None and local.windows):
        return fail(
            "version",
            f"{wheel.version} does not say its CUDA and that it is for Windows",
            f"a wheel for Windows is called {release}+cu126.sm86.{wheels.LOCAL_WINDOWS}; {_AGAIN}",
        )
    if local is not None and local.archs and set(local.archs) != set(archs):
        return fail(
            "version",
            f"{wheel.version} does not say that it is for {', '.join(archs)}",
            _AGAIN,
        )
    return ok("version", str(wheel.version))


def _tags(wheel: Wheel) -> Check:
    written = (
        _field(wheel.read(f"{wheel.info}/WHEEL"), "Tag")
        if f"{wheel.info}/WHEEL" in wheel.names
        else []
    )
    named = {str(tag) for tag in wheel.tags}
    if not set(written) or not set(written) <= named:
        return fail(
            "tags",
            f"the name says {some(sorted(named))}, WHEEL says {some(written) or 'nothing'}",
            _AGAIN,
        )
    if any(tag.platform == "any" for tag in wheel.tags):
        return fail("tags", "the wheel is for any system, so nothing compiled is in it", _AGAIN)
    return ok("tags", some(sorted(named)))


def _contents(wheel: Wheel, events: Events) -> Iterator[Check]:
    """RECORD lists each member with the hash of its bytes, and nothing else."""
    try:
        with WheelFile(wheel.path) as read:
            members = [one for one in read.infolist() if not one.is_dir()]
            for number, member in enumerate(members):
                if number % 50 == 0:
                    events(Event("reading the wheel", number, len(members), "files"))
                with read.open(member) as file:
                    while file.read(1 << 20):
                        pass
    except (WheelError, zipfile.BadZipFile) as error:
        yield fail(
            "RECORD", str(error), "the file is damaged or was edited; fetch or build it again"
        )
        return
    listed = {
        line.rsplit(",", 2)[0].strip('"')
        for line in wheel.read(f"{wheel.info}/RECORD").decode("utf-8").splitlines()
        if line
    }
    absent = sorted(listed - set(wheel.names))
    unlisted = sorted(set(wheel.names) - listed)
    if absent or unlisted:
        said = f"lists but lacks: {some(absent) or 'none'}; not listed: {some(unlisted) or 'none'}"
        yield fail("RECORD", said, _AGAIN)
    else:
        yield ok("RECORD", f"{len(listed)} files, each with its hash")


def _metadata(wheel: Wheel) -> Iterator[Check]:
    place = f"{wheel.info}/METADATA"
    if place not in wheel.names:
        yield fail("metadata", f"{place} is missing", _AGAIN)
        return
    data = wheel.read(place)
    version = "".join(_field(data, "Version")[:1])
    if version != str(wheel.version):
        yield fail("metadata", f"METADATA is of {version}, the name of {wheel.version}", _AGAIN)
    required = list(wheels.requirements(data))
    if not any(canonicalize_name(one.name) == "torch" for one in required):
        yield fail("requirements", f"{len(required)}, and torch is not among them", _AGAIN)
    elif wheel.windows:
        yield _windows_requirements(required)
    else:
        yield ok("requirements", f"{len(required)}, {_torch(required)}")


def _windows_requirements(required: Sequence[Requirement]) -> Check:
    wanted = wheels.evaluate(required, _WINDOWS)
    names = {canonicalize_name(one.name) for one in wanted}
    linux = sorted(name for name in names if name.startswith(_LINUX_ONLY))
    if linux:
        return fail(
            "requirements",
            f"asks on Windows for {some(linux)}, of which there is no Windows build",
            'give the line of upstream\'s requirements a marker (sys_platform != "win32")',
        )
    linux_machine = {**_WINDOWS, "platform_machine": "x86_64"}
    dropped = {
        canonicalize_name(one.name) for one in wheels.evaluate(required, linux_machine)
    } - names
    if dropped:
        return fail(
            "requirements",
            f"{some(sorted(dropped))} asked for on x86_64 but not on AMD64, the same machine",
            _AGAIN,
        )
    torch = next((one for one in wanted if canonicalize_name(one.name) == "torch"), None)
    if torch is None or "+cu" not in str(torch.specifier):
        return warn(
            "requirements",
            f"{_torch(required)} lets pip take the torch without CUDA",
            "build with a torch of a CUDA index (2.9.1+cu126), which the metadata then names",
        )
    return ok("requirements", f"{len(wanted)} on Windows, {_torch(required)}")


def _torch(required: Sequence[Requirement]) -> str:
    return next(
        (str(one) for one in required if canonicalize_name(one.name) == "torch"), "no torch"
    )


def _files(wheel: Wheel, manifest: Manifest, pinned: Mapping[str, str]) -> Iterator[Check]:
    names = set(wheel.names)
    missing = sorted(set(pinned) - names)
    other = sorted(
        path for path, oid in pinned.items() if path in names and blob_id(wheel.read(path)) != oid
    )
    if missing:
        yield fail(
            "sources", f"of {len(pinned)} files {len(missing)} are missing: {some(missing)}", _AGAIN
        )
    if other:
        yield fail(
            "sources",
            f"{len(other)} files are not those of the pin with its patches: {some(other)}",
            "the wheel is of another release or of edited sources; " + _AGAIN,
        )
    if not missing and not other:
        yield ok("sources", f"{len(pinned)} files of the pin with its patches")
    for name, wanted in (
        ("third-party Python", manifest.payload),
        ("generated", manifest.generated),
    ):
        absent = sorted(set(wanted) - names)
        if absent:
            yield fail(
                name, f"of {len(wanted)} files {len(absent)} are missing: {some(absent)}", _AGAIN
            )
        else:
            yield ok(name, f"{len(wanted)} files")
    stray = sorted(place for place in names if place.endswith(_STRAY))
    if stray:
        yield warn("leftovers", f"files that no installation needs: {some(stray)}", _AGAIN)


def _modules(wheel: Wheel, manifest: Manifest, archs: Sequence[str]) -> Iterator[Check]:
    there = {stem(place): place for place in wheel.names if is_compiled(place)}
    missing = [name for name in manifest.required(archs) if name not in there]
    if missing:
        yield fail(
            "compiled modules",
            f"missing: {some(missing)}",
            "compile them (tools/build.py --from compile); a wheel without them cannot run",
        )
    faults = [fault for place in there.values() for fault in _faults(wheel, place)]
    for fault in faults:
        yield fail(
            "compiled modules", fault, "build with tools/build.py, in a fresh folder (--clean)"
        )
    if not missing and not faults:
        yield ok("compiled modules", some(sorted(there), 8))


def _faults(wheel: Wheel, place: str) -> Iterator[str]:
    """What is wrong with a compiled module, for the system that the wheel is for."""
    found = binary.described(wheel.read(place))
    if found is None:
        yield f"{place} is not a compiled module"
        return
    kind, machine = _expected(wheel)
    if (found.kind, found.machine) != (kind, machine):
        yield f"{place} is {found.kind} for {found.machine}, the wheel is {kind} for {machine}"
        return
    if found.kind == "pe":
        entry = f"PyInit_{stem(place).rpartition('/')[2]}"
        if entry not in found.exports:
            yield f"{place} has no {entry}, so Python cannot import it"
        if found.debug_runtime is not None:
            yield f"{place} is a Debug build: it asks for {found.debug_runtime}"
        if any(tag.abi == "abi3" for tag in wheel.tags) and found.python not in (
            None,
            "python3.dll",
        ):
            yield f"{place} is for {found.python} alone, the wheel for every Python (abi3)"
        cuda = _cuda_major(wheel.version)
        if None not in (cuda, found.cuda_major) and cuda != found.cuda_major:
            yield f"{place} asks for CUDA {found.cuda_major}, the wheel says CUDA {cuda}"


def _expected(wheel: Wheel) -> tuple[str, str]:
    platform = next(iter(wheel.tags)).platform
    if platform.startswith("win"):
        return "pe", "ARM64" if platform.endswith("arm64") else "AMD64"
    return "elf", "aarch64" if platform.endswith("aarch64") else "x86_64"


def _cuda_major(version: Version) -> int | None:
    local = wheels.local(version)
    return int(local.cuda.partition(".")[0]) if local is not None else None


def _field(data: bytes, name: str) -> list[str]:
    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace")
    pairs = (line.partition(":") for line in head.split("\n"))
    return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]
