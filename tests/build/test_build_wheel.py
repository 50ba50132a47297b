"""A wheel for Windows, packed from a prepared tree, and what is found wrong with others."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version
from pe import dll
from recorded import DATA

from portkit.build import binary, manifest, verify, wheels
from portkit.build.manifest import Manifest
from portkit.build.wheels import Wheel
from portkit.build.words import Check, Status
from portkit.commands import build
from portkit.errors import BadInput
from portkit.face import console
from portkit.patches import pin as pinfile
from portkit.upstream.git import Store, blob_id

NAME = "vllm-0.14.1+cu126.win-cp38-abi3-win_amd64.whl"
INFO = "vllm-0.14.1+cu126.win.dist-info"
MD = f"{INFO}/METADATA"
METADATA = (DATA / "METADATA").read_bytes()
RUNTIME = ("python3.dll", "cudart64_12.dll", "c10.dll", "vcruntime140.dll")
PINNED = {
    "vllm/__init__.py": b"import os\n",
    "vllm/chat/template.jinja": b"{{ messages }}\n",
}
MANIFEST = Manifest(
    "v0.14.1",
    {"vllm/_C": (), "vllm/_flashmla_C": ("9.0",), "vllm/vllm_flash_attn/_vllm_fa2_C": ()},
    ("vllm/vllm_flash_attn/flash_attn_interface.py",),
    ("vllm/_version.py",),
)


def wheel_file(tag: str) -> bytes:
    return f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n\n".encode()


def module(place: str, libraries: tuple[str, ...] = RUNTIME) -> bytes:
    return dll([f"PyInit_{manifest.stem(place).rpartition('/')[2]}"], libraries)


def metadata() -> bytes:
    """Upstream's metadata of this release, made ours as the wheel stage does."""
    ours = METADATA.replace(b"Version: 0.14.1\n", b"Version: 0.14.1+cu126.win\n", 1)
    ours = ours.replace(
        b"flashinfer-python==0.5.3", b'flashinfer-python==0.5.3; sys_platform != "win32"'
    )
    return wheels.for_windows(ours, "2.9.1+cu126")


def tree() -> dict[str, bytes]:
    """Everything a right wheel holds, but its RECORD."""
    compiled = ("vllm/_C.pyd", "vllm/vllm_flash_attn/_vllm_fa2_C.pyd")
    return {
        **PINNED,
        "vllm/_version.py": b"version = '0.14.1'\n",
        "vllm/vllm_flash_attn/flash_attn_interface.py": b"\n",
        **{place: module(place) for place in compiled},
        f"{INFO}/METADATA": metadata(),
        f"{INFO}/WHEEL": wheel_file("cp38-abi3-win_amd64"),
    }


def ids(files: dict[str, bytes]) -> dict[str, str]:
    return {path: blob_id(data) for path, data in files.items()}


def checked(wheel: Wheel, archs: tuple[str, ...] = ()) -> dict[str, Check]:
    checks = verify.verify(wheel, MANIFEST, ids(PINNED), archs=archs)
    wheel.close()
    return {one.name: one for one in sorted(checks, key=lambda one: one.status is Status.FAIL)}


def faults(wheel: Wheel) -> dict[str, str]:
    return {n: one.said for n, one in checked(wheel).items() if one.status is Status.FAIL}


def test_a_wheel_of_a_prepared_tree_is_right_and_its_record_true(tmp_path: Path) -> None:
    wheel = wheels.pack(tree().items(), tmp_path, NAME)
    assert {one.status for one in checked(wheel).values()} == {Status.OK}
    with zipfile.ZipFile(wheel.path) as archive:
        record = archive.read(f"{INFO}/RECORD").decode()
        names = archive.namelist()
    assert sorted(row[0] for row in csv.reader(io.StringIO(record))) == sorted(names)
    assert names[-1] == f"{INFO}/RECORD"
    assert str(wheel.version) == "0.14.1+cu126.win"
    assert {str(tag) for tag in wheel.tags} == {"cp38-abi3-win_amd64"}


Change = Callable[[dict[str, bytes]], object]
CHANGES: dict[str, tuple[Change, str, str]] = {
    "module": (lambda t: t.pop("vllm/_C.pyd") , "compiled modules", "missing: vllm/_C"),
    "payload": (
        lambda t: t.pop("vllm/vllm_flash_attn/flash_attn_interface.py"),
        "third-party Python", "flash_attn_interface.py",
    ),
    "template": (
        lambda t: t.pop("vllm/chat/template.jinja") , "sources", "template.jinja",
    ),
    "edited": (
        lambda t: t.update({"vllm/__init__.py": b"import sys\n"}), "sources",
        "1 files are not those of the pin",
    ),
    "linux module": (
        lambda t: t.update({"vllm/_C.pyd": b"\x7fELF\2\1\1" + bytes(11) + b"\x3e\0"}),
        "compiled modules", "vllm/_C.pyd is elf for x86_64, the wheel is pe for AMD64",
    ),
    "no module": (
        lambda t: t.update({"vllm/_C.pyd": b"text"}),
        "compiled modules",
        "is not a compiled module",
    ),
    "debug": (
        lambda t: t.update({"vllm/_C.pyd": module("vllm/_C.pyd", (*RUNTIME, "msvcp140d.dll"))}),
        "compiled modules", "is a Debug build: it asks for msvcp140d.dll",
    ),
    "one Python": (
        lambda t: t.update({"vllm/_C.pyd": module("vllm/_C.pyd", ("python310.dll",))}),
        "compiled modules", "is for python310.dll alone",
    ),
    "other CUDA": (
        lambda t: t.update({"vllm/_C.pyd": module("vllm/_C.pyd", ("cudart64_13.dll",))}),
        "compiled modules", "asks for CUDA 13, the wheel says CUDA 12",
    ),
    "no entry": (
        lambda t: t.update({"vllm/_C.pyd": dll(["PyInit__D"], RUNTIME)}), "compiled modules",
        "has no PyInit__C",
    ),
    "32 bits": (
        lambda t: t.update({"vllm/_C.pyd": dll(["PyInit__C"], RUNTIME, machine=0x14C)}),
        "compiled modules", "PE machine 0x14c",
    ),
    "linux requirement": (
        lambda t: t.update({MD: metadata().replace(b'; sys_platform != "win32"', b"")}),
        "requirements", "asks on Windows for flashinfer-python",
    ),
    "no torch": (
        lambda t: t.update({MD: metadata().replace(b"Requires-Dist: torch==", b"X-Dist: torch==")}),
        "requirements",
        "torch is not among them",
    ),
    "marker": (
        lambda t: t.update({MD: metadata().replace(b"AMD64", b"never")}),
        "requirements", "llguidance, xgrammar asked for on x86_64 but not on AMD64",
    ),
    "version": (
        lambda t: t.update({MD: metadata().replace(b"cu126.win\n", b"cu128.win\n")}),
        "metadata", "METADATA is of 0.14.1+cu128.win",
    ),
    "tag": (
        lambda t: t.update({f"{INFO}/WHEEL": wheel_file("cp310-cp310-win_amd64")}), "tags",
        "WHEEL says cp310-cp310-win_amd64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_each_fault_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    change, check, said = CHANGES[name]
    files = tree()
    change(files)
    found = faults(wheels.pack(files.items(), tmp_path, NAME))
    assert list(found) == [check]
    assert said in found[check]


def test_modules_of_an_architecture_are_asked_of_its_builds_alone(tmp_path: Path) -> None:
    wheel = wheels.pack(tree().items(), tmp_path, NAME)
    assert checked(wheel)["compiled modules"].status is Status.OK
    check = checked(wheels.opened(wheel.path), ("8.6", "9.0"))["compiled modules"]
    assert check.status is Status.FAIL and "vllm/_flashmla_C" in check.said


@pytest.mark.parametrize(
    "name", ["vllm-0.14.1-cp38-abi3-win_amd64.whl", "vllm-0.14.2+cu126.win-cp38-abi3-win_amd64.whl"]
)
def test_a_version_that_does_not_say_what_it_is(tmp_path: Path, name: str) -> None:
    info = "-".join(name.split("-")[:2]) + ".dist-info"
    files = {path.replace(INFO, info): data for path, data in tree().items()}
    assert "version" in faults(wheels.pack(files.items(), tmp_path, name))


def test_a_member_changed_after_packing_is_found(tmp_path: Path) -> None:
    wheel = wheels.pack(tree().items(), tmp_path, NAME)
    edited = tmp_path / "edited" / NAME
    edited.parent.mkdir()
    with zipfile.ZipFile(wheel.path) as read, zipfile.ZipFile(edited, "w") as written:
        for one in read.infolist():
            data = read.read(one)
            written.writestr(
                one.filename, data + b"#" if one.filename.endswith("_version.py") else data
            )
        written.writestr("vllm/extra.py", b"")
    assert "_version.py" in faults(wheels.opened(edited))["RECORD"]


def test_files_that_are_no_wheels_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there"):
        wheels.opened(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"no archive")
    with pytest.raises(BadInput, match="is not a wheel"):
        wheels.opened(tmp_path / NAME)
    with pytest.raises(BadInput, match="not named as a wheel"):
        wheels.opened(tmp_path / "vllm.zip")


# metadata


def test_versions_say_their_cuda_and_that_they_are_for_windows() -> None:
    for cuda, local in (("12.6", "cu126"), ("13.0", "cu130"), ("12.8.1", "cu128")):
        text = wheels.local_version("0.14.1", cuda, (), windows=True)
        assert text == f"0.14.1+{local}.win"
        assert Version(text).public == "0.14.1"
    assert wheels.local_version("0.14.1", "13.0", (), windows=False) == "0.14.1+cu130"


@pytest.mark.parametrize("archs", [(), ("8.9",), ("8.6", "12.0")])
@pytest.mark.parametrize("windows", [True, False])
def test_a_version_says_its_architectures_and_is_read_again(
    archs: tuple[str, ...], windows: bool
) -> None:
    text = wheels.local_version("0.14.1", "13.0", archs, windows=windows)
    assert wheels.local(Version(text)) == wheels.Local("13.0", archs, windows)
    names = "".join(f".sm{arch.replace('.', '')}" for arch in archs)
    assert text == f"0.14.1+cu130{names}" + (".win" if windows else "")


@pytest.mark.parametrize("text", ["0.14.1", "0.14.1+cpu", "0.14.1+cu130.win.sm89", "0.14.1+cu13.x"])
def test_a_version_of_others_says_nothing(text: str) -> None:
    assert wheels.local(Version(text)) is None


def test_a_wheel_for_one_architecture_is_checked_for_that_one(tmp_path: Path) -> None:
    # The same contents under a name that says 9.0: what only 9.0 has must be there.
    version = "0.14.1+cu126.sm90.win"
    content = {
        path.replace("0.14.1+cu126.win", version): data.replace(b"cu126.win", b"cu126.sm90.win")
        for path, data in tree().items()
    }
    wheel = wheels.pack(content.items(), tmp_path, NAME.replace("0.14.1+cu126.win", version))
    check = checked(wheel)["compiled modules"]
    assert check.status is Status.FAIL and "vllm/_flashmla_C" in check.said
    check = checked(wheels.opened(wheel.path), ("8.6",))["version"]
    assert check.status is Status.FAIL and "does not say that it is for 8.6" in check.said


def test_windows_metadata_changes_markers_and_torch_alone() -> None:
    ours = wheels.for_windows(METADATA, "2.9.1+cu126")
    before, after = METADATA.decode().split("\n"), ours.decode().split("\n")
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [Requirement(new.partition(": ")[2]).name for _, new in changed] == [
        "llguidance", "xgrammar", "torch",
    ]  # fmt: skip
    assert changed[-1][1] == "Requires-Dist: torch==2.9.1+cu126"
    assert wheels.for_windows(ours, "2.9.1+cu126") == ours  # once is enough
    for _, new in changed[:2]:
        marker = Requirement(new.partition(": ")[2]).marker
        assert marker is not None
        assert marker.evaluate({"platform_machine": "AMD64"})
        assert marker.evaluate({"platform_machine": "x86_64"})
        assert not marker.evaluate({"platform_machine": "riscv64"})


machines = st.sampled_from(["x86_64", "AMD64", "aarch64", "arm64", "s390x"])


@given(st.lists(machines, min_size=1, max_size=4), machines)
def test_markers_hold_where_they_held_and_on_amd64_as_on_x86_64(
    listed: list[str], machine: str
) -> None:
    text = "demo; " + " or ".join(f'platform_machine == "{one}"' for one in listed)
    changed = wheels.for_windows(f"Requires-Dist: {text}\n\nbody".encode(), None)
    marker = next(iter(wheels.requirements(changed))).marker
    assert marker is not None
    expected = machine in listed or (machine == "AMD64" and "x86_64" in listed)
    assert marker.evaluate({"platform_machine": machine}) == expected


# binaries


@given(st.binary(max_size=400))
def test_any_bytes_are_a_module_or_none(data: bytes) -> None:
    for prefix in (b"", b"MZ", b"\x7fELF"):
        found = binary.described(prefix + data)
        assert found is None or found.kind in ("pe", "elf")


# the pin


@pytest.mark.upstream
def test_the_pins_own_tree_makes_a_wheel_that_verifies(
    tmp_path: Path, patched_tree: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the pinned package, packed for Windows; the command accepts it, and not with a gap."""
    pin = pinfile.read(console.ROOT / pinfile.PIN_FILE)
    recorded = manifest.load(pin.tag)
    files: dict[str, bytes | Path] = {
        path.relative_to(patched_tree).as_posix(): path
        for path in (patched_tree / "vllm").rglob("*")
        if path.is_file()
    }
    made = dict.fromkeys((*recorded.payload, *recorded.generated), b"\n")
    compiled = {f"{name}.pyd": module(f"{name}.pyd") for name in recorded.required()}
    info = {n: d for n, d in tree().items() if n.startswith(INFO)}
    whole = {**files, **made, **compiled, **info}
    wheel = wheels.pack(whole.items(), tmp_path, NAME)
    wheel.close()
    assert build.main(["verify", str(wheel.path)], console.ROOT) == 0
    out = capsys.readouterr().out
    assert "files of the pin with its patches" in out and "fail" not in out
    del whole["vllm/transformers_utils/chat_templates/template_chatml.jinja"]
    wheels.pack(whole.items(), tmp_path, NAME).close()
    assert build.main(["verify", str(wheel.path)], console.ROOT) == 1
    assert "template_chatml.jinja" in capsys.readouterr().out
