"""Third-party sources: which the pin names, and how they come, with a real git and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from desk import a_patch

from portkit.build import thirdparty
from portkit.build.pinned import Pinned
from portkit.build.thirdparty import Dependency
from portkit.errors import BadInput, Unavailable
from portkit.model import Patch, Pin
from portkit.upstream.git import Store, git
from portkit.upstream.source import Source

PIN = Pin("https://upstream.invalid/vllm", "v1.0.0", "0" * 40, None, "0" * 40, "0" * 40)
HEADER = b"#pragma once\r\nint tiny();\r\n"
OURS = HEADER.replace(b"int", b"long")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dependency:
    """A project with a submodule on this disk, reached by the address the pin names."""
    home = tmp_path / "home"
    for name in ("inner", "tiny"):
        folder = tmp_path / "hosts" / name
        folder.mkdir(parents=True)
        git("init", "--quiet", "--initial-branch=main", cwd=folder)
        git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=folder)
        (folder / f"{name}.h").write_bytes(HEADER)
    inner, tiny = tmp_path / "hosts/inner", tmp_path / "hosts/tiny"
    git("add", ".", cwd=inner)
    git("commit", "--quiet", "-m", "inner", cwd=inner)
    (tiny / "python/part").mkdir(parents=True)
    (tiny / "python/part/a.py").write_text("A = 1\n")
    git("add", ".", cwd=tiny)
    files = ("-c", "protocol.file.allow=always")
    git(*files, "submodule", "add", "--quiet", str(inner), "inner", cwd=tiny)
    git("commit", "--quiet", "-m", "tiny", cwd=tiny)
    git("tag", "v1.2", cwd=tiny)
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "{(tmp_path / "hosts").as_posix()}/"]\n\tinsteadOf = https://hosts.invalid/\n'
        '[protocol "file"]\n\tallow = always\n[core]\n\tautocrlf = true\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return Dependency("tiny", "https://hosts.invalid/tiny", "v1.2", "TINY_SRC_DIR")


def patch() -> Patch:
    plain = a_patch("tiny.h", HEADER, OURS)
    return Patch("deps/tiny/tiny.h.patch", plain.header, plain.change)


def test_it_is_fetched_with_its_submodule_byte_for_byte_and_once(
    remote: Dependency, tmp_path: Path
) -> None:
    provided = thirdparty.provide(remote, tmp_path / "deps")
    assert (provided.folder / "tiny.h").read_bytes() == HEADER  # whatever autocrlf says
    assert (provided.folder / "inner/inner.h").read_bytes() == HEADER
    assert provided.setting == ("TINY_SRC_DIR", (tmp_path / "deps/tiny").as_posix())
    (tmp_path / "hosts").rename(tmp_path / "gone")
    again = thirdparty.provide(remote, tmp_path / "deps")
    assert again.content == provided.content


def test_patches_of_the_series_are_applied_and_their_change_fetches_anew(
    remote: Dependency, tmp_path: Path
) -> None:
    plain = thirdparty.provide(remote, tmp_path / "deps")
    patched = thirdparty.provide(remote, tmp_path / "deps", patches=(patch(),))
    assert (patched.folder / "tiny.h").read_bytes() == OURS
    assert patched.content != plain.content
    assert patched.patches == ("deps/tiny/tiny.h.patch",)
    assert thirdparty.patches_of([patch()], "tiny") == (patch(),)
    assert thirdparty.patches_of([patch()], "tin") == ()
    again = thirdparty.provide(remote, tmp_path / "deps")
    assert (again.folder / "tiny.h").read_bytes() == HEADER


def test_a_part_of_a_repository_is_checked_out_alone(remote: Dependency, tmp_path: Path) -> None:
    part = Dependency("tiny", remote.repository, "v1.2", "TINY_SRC_DIR", "python/part")
    provided = thirdparty.provide(part, tmp_path / "deps")
    assert (provided.folder / "python/part/a.py").is_file()
    assert not (provided.folder / "inner/inner.h").exists()
    assert provided.setting[1].endswith("deps/tiny/python/part")


def test_a_folder_of_a_person_is_taken_and_never_written_to(tmp_path: Path) -> None:
    tiny = Dependency("tiny", "https://hosts.invalid/tiny", "v1.2", "TINY_SRC_DIR")
    given = tmp_path / "given/tiny"
    given.mkdir(parents=True)
    (given / "tiny.h").write_bytes(HEADER)
    taken = thirdparty.provide(tiny, tmp_path / "deps", offline=tmp_path / "given")
    assert (taken.folder, taken.origin) == (given, "--deps")
    ours = thirdparty.provide(
        tiny, tmp_path / "deps", patches=(patch(),), offline=tmp_path / "given"
    )
    assert (given / "tiny.h").read_bytes() == HEADER
    assert (ours.folder / "tiny.h").read_bytes() == OURS
    named = thirdparty.provide(tiny, tmp_path / "deps", environ={"TINY_SRC_DIR": str(given)})
    assert (named.folder, named.origin) == (given, "TINY_SRC_DIR")


def test_a_clone_at_another_revision_is_refused(remote: Dependency, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    thirdparty.provide(remote, tmp_path / "deps", offline=hosts)  # it is at v1.2
    (hosts / "tiny/new.h").write_text("")
    git("add", "new.h", cwd=hosts / "tiny")
    git("commit", "--quiet", "-m", "later", cwd=hosts / "tiny")
    with pytest.raises(BadInput, match=r"and the pin names tiny\s+v1\.2") as caught:
        thirdparty.provide(remote, tmp_path / "deps", offline=hosts)
    assert "checkout v1.2" in caught.value.hint


def test_what_cannot_be_had_says_how_to_give_it(remote: Dependency, tmp_path: Path) -> None:
    other = Dependency("tiny", "https://hosts.invalid/none", "v1.2", "TINY_SRC_DIR")
    with pytest.raises(Unavailable, match=r"tiny v1\.2 could not be fetched") as caught:
        thirdparty.provide(other, tmp_path / "deps")
    assert "--deps DIR" in caught.value.hint and "TINY_SRC_DIR" in caught.value.hint
    with pytest.raises(BadInput, match="has no folder tiny"):
        thirdparty.provide(remote, tmp_path / "deps", offline=tmp_path / "home")
    part = Dependency("tiny", "x", "v1.2", "TINY_SRC_DIR", "python/part")
    with pytest.raises(BadInput, match="does not end in python/part"):
        thirdparty.provide(part, tmp_path / "deps", environ={"TINY_SRC_DIR": str(tmp_path)})


def test_a_declaration_that_cannot_be_read_is_named_with_its_line() -> None:
    text = b"include(FetchContent)\nFetchContent_Declare(odd GIT_TAG ${NOWHERE})\n"
    with pytest.raises(BadInput, match=r"CMakeLists\.txt:2: .* of odd cannot be read"):
        thirdparty.dependencies(["CMakeLists.txt"], lambda _: text)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("v0.14.1", {"cutlass": "v4.2.1", "triton_kernels": "v3.5.0"}),
        ("v0.21.0", {"cutlass": "v4.4.2", "deepgemm": "891d57b4db1071624b5c8fa0d1e51cb317fa709f"}),
    ],
)
def test_what_upstream_fetches(
    tag: str, expected: dict[str, str], store: Store, obtain_tag: Callable[[str], Source]
) -> None:
    found = {d.name: d for d in Pinned.of(store, PIN, obtain_tag(tag).tree).dependencies}
    assert {"cutlass", "flashmla", "qutlass", "triton_kernels", "vllm-flash-attn"} <= set(found)
    for name, revision in expected.items():
        assert found[name].revision == revision
    assert all(one.variable.endswith("_SRC_DIR") for one in found.values())
    assert found["triton_kernels"].inside == "python/triton_kernels/triton_kernels"


def test_content_is_told_by_names_and_bytes(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.h").write_bytes(data)
    assert thirdparty.content(tmp_path / "a") == thirdparty.content(tmp_path / "b")
    assert thirdparty.content(tmp_path / "a") != thirdparty.content(tmp_path / "c")
    (tmp_path / "b/x.h").rename(tmp_path / "b/y.h")
    assert thirdparty.content(tmp_path / "a") != thirdparty.content(tmp_path / "b")
