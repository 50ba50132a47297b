"""Facts about upstream's build: read from its files, compared, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.port.facts import UNKNOWN, Fact, Facts, facts
from portkit.port.rebase import Snapshot
from portkit.text import archlists, requirements
from portkit.text.archlists import arch_lists
from portkit.text.cmakefile import commands
from portkit.upstream.git import Store, TreeEntry
from portkit.upstream.source import Source

CMAKE = "CMakeLists.txt"
Files = Mapping[str, str]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[[Files, Files], Facts]:
    """Facts of two made-up tags, given as path to text."""
    store = Store.create(tmp_path / "store")

    def snapshot(tag: str, files: Files) -> Snapshot:
        oids = store.write_blobs([text.encode() for text in files.values()])
        entries = {p: TreeEntry("100644", o) for p, o in zip(files, oids, strict=True)}
        return Snapshot.of(store, tag, store.edit_tree(None, entries))

    def compare_files(old: Files, new: Files) -> Facts:
        return facts(store, snapshot("v1", old), snapshot("v2", new))

    return compare_files


def named(found: tuple[Fact, ...], name: str) -> list[tuple[str | None, str | None, str]]:
    return [(fact.old, fact.new, fact.note) for fact in found if fact.name == name]


# versions


PROJECT = '[build-system]\nrequires = ["torch == {0}"]\n[project]\nrequires-python = ">={1}"\n'


def test_versions_from_every_file(compare: Callable[[Files, Files], Facts]) -> None:
    old = {
        "pyproject.toml": PROJECT.format("2.9.1", "3.10"),
        "requirements/cuda.txt": "torch==2.9.1\ntorchaudio==2.9.1\n",
        CMAKE: "cmake_minimum_required(VERSION 3.26)\nset(CMAKE_CXX_STANDARD 17)\n",
    }
    new = {
        "pyproject.toml": PROJECT.format("2.10.0", "3.11"),
        "requirements/cuda.txt": "torch==2.10.0\n",
        CMAKE: "cmake_minimum_required(VERSION 3.26)\nset(CMAKE_CXX_STANDARD 20)\n",
        "rust-toolchain.toml": '[toolchain]\nchannel = "1.95"\n',
    }
    found = {fact.name: (fact.old, fact.new) for fact in compare(old, new).versions}
    assert found["torch, to build with"] == found["torch"] == ("2.9.1", "2.10.0")
    assert found["torchaudio"] == ("2.9.1", None)
    assert found["Python"] == (">=3.10", ">=3.11")
    assert found["C++ standard"] == ("17", "20")
    assert found["CMake"] == ("3.26", "3.26")
    assert found["CUDA C++ standard"] == (None, None)
    assert found["Rust toolchain"] == (None, "1.95")


def test_what_cannot_be_found_is_unknown(compare: Callable[[Files, Files], Facts]) -> None:
    broken = {"pyproject.toml": "[build-system\n", CMAKE: "set(CMAKE_CXX_STANDARD ${SOME})\n"}
    found = {fact.name: (fact.old, fact.new) for fact in compare({}, broken).versions}
    for name in ("torch", "torch, to build with", "Python", "C++ standard"):
        assert found[name] == (UNKNOWN, UNKNOWN)
    assert found["torch, expected by CMake"] == (UNKNOWN, None)
    assert found["Rust toolchain"] == (None, None)


# CUDA architectures


def rows(
    old: str, new: str
) -> list[tuple[str, str, tuple[str, ...] | None, tuple[str, ...] | None]]:
    sides = (arch_lists(commands(text.encode())) for text in (old, new))
    return [(r.group, str(r.span), r.old, r.new) for r in archlists.compare(*sides)]


SUPPORTED = """
if(DEFINED CMAKE_CUDA_COMPILER_VERSION AND
   CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL {split})
  set(CUDA_SUPPORTED_ARCHS "{above}")
else()
  set(CUDA_SUPPORTED_ARCHS "{below}")
endif()
"""


def test_lists_are_compared_toolkit_by_toolkit_where_tags_draw_the_line_elsewhere() -> None:
    old = SUPPORTED.format(split="13.0", above="7.5;8.0", below="7.0;7.5")
    new = SUPPORTED.format(split="13.4", above="7.5;8.0;10.7", below="7.0;7.5")
    assert rows(old, new) == [
        (archlists.SUPPORTED, "CUDA < 13.0", ("7.0", "7.5"), ("7.0", "7.5")),
        (archlists.SUPPORTED, "CUDA ≥ 13.0, < 13.4", ("7.5", "8.0"), ("7.0", "7.5")),
        (archlists.SUPPORTED, "CUDA ≥ 13.4", ("7.5", "8.0"), ("7.5", "8.0", "10.7")),
    ]


def test_a_group_has_the_name_upstream_gives_it_when_it_builds_it() -> None:
    text = """
    cuda_archs_loose_intersection(SCALED_MM_ARCHS "9.0a;" "${CUDA_ARCHS}")
    if(${CMAKE_CUDA_COMPILER_VERSION} VERSION_GREATER_EQUAL 12.0 AND SCALED_MM_ARCHS)
      set_gencode_flags_for_srcs(SRCS "${SRCS}" CUDA_ARCHS "${SCALED_MM_ARCHS}")
      message(STATUS "Building c3x_sm90 for archs: ${SCALED_MM_ARCHS}")
    endif()
    cuda_archs_loose_intersection(SCALED_MM_ARCHS "12.0a" "${CUDA_ARCHS}")
    message(STATUS "Building c3x_sm120 for archs: ${SCALED_MM_ARCHS}")
    cuda_archs_loose_intersection(HADACORE_ARCHS "8.0+PTX" "${CUDA_ARCHS}")
    set_gencode_flags_for_srcs(SRCS "${SRCS}" CUDA_ARCHS "${HADACORE_ARCHS}")
    cuda_archs_loose_intersection(NEVER_USED_ARCHS "8.0" "${CUDA_ARCHS}")
    """
    assert rows(text, text) == [
        ("c3x_sm90", "", ("9.0a",), ("9.0a",)),
        ("c3x_sm120", "", ("12.0a",), ("12.0a",)),
        ("HADACORE_ARCHS", "", ("8.0+PTX",), ("8.0+PTX",)),
    ]


def test_a_list_put_together_by_appending_is_followed() -> None:
    text = """
    set(SUPPORT_ARCHS)
    if(${CMAKE_CUDA_COMPILER_VERSION} VERSION_GREATER 12.8)
      list(APPEND SUPPORT_ARCHS "9.0a")
    endif()
    if(NOT ${CMAKE_CUDA_COMPILER_VERSION} VERSION_LESS 12.9)
      list(APPEND SUPPORT_ARCHS "10.0f")
    endif()
    cuda_archs_loose_intersection(MLA_ARCHS "${SUPPORT_ARCHS}" "${CUDA_ARCHS}")
    target(${MLA_ARCHS})
    """
    assert rows("", text) == [
        ("MLA_ARCHS", "CUDA > 12.8, < 12.9", (), ("9.0a",)),
        ("MLA_ARCHS", "CUDA ≥ 12.9", (), ("9.0a", "10.0f")),
    ]


def test_a_list_that_is_not_spelled_out_is_unknown(
    compare: Callable[[Files, Files], Facts],
) -> None:
    text = """
    cuda_archs_loose_intersection(A_ARCHS "${ELSEWHERE}" "${CUDA_ARCHS}")
    cuda_archs_sm90plus(B_ARCHS "${CUDA_ARCHS}")
    use(${A_ARCHS} ${B_ARCHS})
    """
    found = compare({CMAKE: ""}, {CMAKE: text}).archs
    assert named(found, "A_ARCHS") == [(None, UNKNOWN, "")]
    assert named(found, "B_ARCHS") == [(None, "by cuda_archs_sm90plus", "")]


def test_the_other_branch_of_a_compound_condition_says_nothing() -> None:
    text = """
    if(FANCY AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    else()
      set(CUDA_SUPPORTED_ARCHS "7.0")
    endif()
    """
    assert rows("", text) == [(archlists.SUPPORTED, "", (), ("7.0",))]


# third-party sources


def test_third_party_revisions(compare: Callable[[Files, Files], Facts]) -> None:
    fetch = "FetchContent_Declare({0} GIT_REPOSITORY {1} GIT_TAG {2} GIT_PROGRESS TRUE)\n"
    old = {
        CMAKE: 'set(REVISION "v4.2.1")\n'
        + "FetchContent_Declare(cutlass SOURCE_DIR ${DIR})\n"
        + fetch.format("cutlass", "https://x/cutlass.git", "${REVISION}"),
        "cmake/external_projects/mla.cmake": fetch.format("mla", "https://x/mla", "aaa"),
    }
    new = {
        CMAKE: 'set(REVISION "v4.4.2")\n'
        + fetch.format("cutlass", "https://x/cutlass.git", "${REVISION}")
        + fetch.format("far", "https://x/far", "${FROM_OUTSIDE}"),
        "cmake/external_projects/mla.cmake": fetch.format("mla", "https://y/mla", "aaa"),
        "cmake/external_projects/triton.cmake": "if(DEVICE STREQUAL rocm)\n  set(T r1)\nelse()\n"
        "  set(T v3)\nendif()\n" + fetch.format("triton", "https://x/t", "${T}"),
    }
    found = compare(old, new).dependencies
    where = "cmake/external_projects/mla.cmake"
    assert named(found, "cutlass") == [("v4.2.1", "v4.4.2", CMAKE)]
    assert named(found, "mla") == [("aaa", "aaa", where)]
    assert named(found, "mla, repository") == [("https://x/mla", "https://y/mla", where)]
    assert named(found, "far") == [(None, UNKNOWN, CMAKE)]
    triton = "cmake/external_projects/triton.cmake"
    assert named(found, "triton") == [(None, "v3", triton)]
    assert named(found, "triton (DEVICE STREQUAL rocm)") == [(None, "r1", triton)]


# sources


def test_compiled_sources_that_come_go_and_move(compare: Callable[[Files, Files], Facts]) -> None:
    old_list = 'set(S "csrc/a/same.cu" "csrc/a/moved.cu" "csrc/gone.cpp" "csrc/gen/sm80_*.cu")\n'
    new_list = (
        'set(S "csrc/a/same.cu" "csrc/b/moved.cu" "${CMAKE_CURRENT_SOURCE_DIR}/csrc/new.cu")\n'
        'if(VLLM_GPU_LANG STREQUAL "HIP")\n  list(APPEND S "csrc/rocm.cu")\nendif()\n'
        'set(OTHERS "${mla_SOURCE_DIR}/csrc/theirs.cu" "csrc/not_there.cu")\n'
        'message(STATUS "csrc/a/same.cu")\ndefine_extension_target(_C SOURCES ${S})\n'
    )
    old = {CMAKE: old_list, "csrc/a/same.cu": "", "csrc/a/moved.cu": "", "csrc/gone.cpp": ""}
    new = {CMAKE: new_list, "csrc/a/same.cu": "", "csrc/b/moved.cu": "", "csrc/new.cu": ""}
    found = compare(old, {**new, "csrc/rocm.cu": ""})
    assert {(s.old, s.new, s.device) for s in found.sources} == {
        ("csrc/a/moved.cu", "csrc/b/moved.cu", "cuda"),
        ("csrc/gone.cpp", None, "cuda"),
        ("csrc/gen/sm80_*.cu", None, "cuda"),
        (None, "csrc/new.cu", "cuda"),
        (None, "csrc/rocm.cu", "rocm"),
    }
    assert named(found.extensions, "_C") == [(None, "cuda", "")]


# requirements


def changes(old: Files, new: Files) -> list[tuple[str, str, str, str]]:
    sides = [
        {path: requirements.parse(requirements.logical_lines(text.encode())) for path, text in
         files.items()}
        for files in (old, new)
    ]  # fmt: skip
    found = requirements.compare(*sides)
    return [(c.kind, c.name, c.old_file, c.file) for c in found]


def test_requirement_lines_are_compared_by_package() -> None:
    cuda = "requirements/cuda.txt"
    old = {cuda: "-r common.txt\nTorch == 2.9.1  # pinned\nray>=2.48\nnumba==0.61\n"}
    new = {cuda: "-r common.txt\nnumba == 0.61\ntorch==2.10.0\nflash_infer==1; sys_platform=='x'\n"}
    assert changes(old, new) == [
        ("added", "flash-infer", cuda, cuda),
        ("removed", "ray", cuda, cuda),
        ("changed", "torch", cuda, cuda),
    ]


def test_a_package_that_went_to_another_file_moved() -> None:
    one, other = "requirements/cuda.txt", "requirements/common.txt"
    assert changes({one: "numba==1\n", other: "six\n"}, {one: "", other: "six\nnumba==1\n"}) == [
        ("moved", "numba", one, other)
    ]


def test_a_renamed_file_is_compared_with_what_it_was() -> None:
    old = {
        "requirements/build.txt": "cmake\nninja\ntorch==1\n",
        "requirements/test.txt": "pytest\n",
    }
    new = {
        "requirements/build/cuda.txt": "cmake\nninja\ntorch==2\n",
        "requirements/test/cuda.txt": "pytest\n",
    }
    assert changes(old, new) == [
        ("changed", "torch", "requirements/build.txt", "requirements/build/cuda.txt")
    ]


def test_lines_that_are_no_requirements_stand_for_themselves() -> None:
    old = {"requirements/x.txt": "--extra-index-url https://a\nnot a requirement!\n"}
    new = {"requirements/x.txt": "--extra-index-url https://b\nnot a requirement!\n"}
    assert [(kind, name) for kind, name, _, _ in changes(old, new)] == [
        ("removed", "--extra-index-url https://a"),
        ("added", "--extra-index-url https://b"),
    ]


def test_files_that_a_resolver_wrote_are_left_out(compare: Callable[[Files, Files], Facts]) -> None:
    lock = "requirements/test.txt"
    head = "# This file was autogenerated by uv via the following command:\n"
    found = compare({lock: head + "a==1\n"}, {lock: head + "a==2\n"})
    assert found.requirements == ()
    assert found.skipped == (lock,)


# reading CMake


def test_conditions_of_every_branch() -> None:
    text = (
        b"if(A)\n x(1)\nelseif(B)\n x(2)\nelse()\n foreach(i IN c)\n  x(3)\n endforeach()\nendif()"
    )
    found = {c.arguments: [str(k) for k in c.conditions] for c in commands(text) if c.name == "x"}
    assert found == {
        ("1",): ["A"],
        ("2",): ["not (A)", "B"],
        ("3",): ["not (A)", "not (B)"],
    }


def test_arguments_lose_their_quotes_and_comments() -> None:
    text = (
        b'SET(X "a;b" # c\n  [==[raw ] text]==] ${Y}/z)\nfunction(f)\n set(X inside)\nendfunction()'
    )
    (command,) = (c for c in commands(text) if c.name == "set")
    assert command.arguments == ("X", "a;b", "raw ] text", "${Y}/z")
    assert command.line == 1


@given(st.binary(max_size=200) | st.text('if(else)$"{} set\n[', max_size=80).map(str.encode))
def test_any_bytes_can_be_read(data: bytes) -> None:
    arch_lists(commands(data))


# the real thing


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("v0.17.1", ("2.10.0", "17", "v4.2.1")), ("v0.33.0", ("2.14.0", "20", "v4.7.1"))],
)
def test_facts_of_real_releases(
    store: Store, obtain_tag: Callable[[str], Source], tag: str, expected: tuple[str, str, str]
) -> None:
    torch, cxx, cutlass = expected
    old, new = (Snapshot.of(store, name, obtain_tag(name).tree) for name in ("v0.14.1", tag))
    found = facts(store, old, new)
    versions = {fact.name: (fact.old, fact.new) for fact in found.versions}
    for name in ("torch", "torch, to build with", "torch, expected by CMake"):
        assert versions[name] == ("2.9.1", torch)
    assert versions["C++ standard"] == ("17", cxx)
    assert named(found.dependencies, "cutlass") == [("v4.2.1", cutlass, CMAKE)]
    (flash,) = named(found.dependencies, "vllm-flash-attn")
    assert flash[0] == "188be16520ceefdc625fdf71365585d2ee348fe2"
    assert flash[0] != flash[1]
    supported = named(found.archs, archlists.SUPPORTED)
    assert supported[0][0] == "7.0 7.2 7.5 8.0 8.6 8.7 8.9 9.0"
    everything = (*found.versions, *found.archs, *found.dependencies, *found.extensions)
    assert not [fact for fact in everything if UNKNOWN in (fact.old, fact.new)]
    assert any(s.new == "csrc/topk.cu" and s.old is None for s in found.sources)
    assert any(c.name == "flashinfer-python" for c in found.requirements)
