"""What a build takes of the things installed, on a recorded Windows desktop and in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import GIB, WindowsDesktop, parsed_set, read, toolkit

from portkit.build import msvc, toolchain
from portkit.build.machine import Memory
from portkit.cuda.toolkits import Toolkit
from portkit.errors import BadInput, Unavailable
from portkit.text import archlists
from portkit.text.archlists import arch_lists
from portkit.text.cmakefile import commands

CMAKE = b"""
if(DEFINED CMAKE_CUDA_COMPILER_VERSION AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13.0)
  set(CUDA_SUPPORTED_ARCHS "7.5;8.0;8.6;12.0")
elseif(DEFINED CMAKE_CUDA_COMPILER_VERSION AND
  CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  set(CUDA_SUPPORTED_ARCHS "7.0;8.0;8.6;12.0")
else()
  set(CUDA_SUPPORTED_ARCHS "7.0;8.0;8.6;9.0")
endif()
"""


# Visual Studio


def test_vswhere_lists_whole_installations_newest_first() -> None:
    found = msvc.parse_vswhere(read("vswhere.json"))
    assert [one.version for one in found] == ["18.2.11415.281", "17.13.35931.197"]


def test_vswhere_that_says_something_else_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match="vswhere said what is not its JSON"):
        msvc.parse_vswhere("Error 0x80070057: The parameter is incorrect")


def test_the_newest_toolset_that_nvcc_takes_is_pinned_where_it_is_not_the_first(
    tmp_path: Path,
) -> None:
    machine = WindowsDesktop()
    nvcc = msvc.accepted(toolkit(tmp_path / "v12.6", "12.6.85") / "include")
    assert str(nvcc) == "_MSC_VER 1910 to 1949"
    compiler = msvc.choose(msvc.installations(machine), nvcc)
    assert (compiler.toolset, compiler.version) == ("14.43.34808", "19.43")
    assert not compiler.pinned  # it is the first of the installation that has it
    only_new = WindowsDesktop(toolsets={"2022": ("14.50.35717", "14.38.33130"), "18": ()})
    compiler = msvc.choose(msvc.installations(only_new), nvcc)
    assert (compiler.toolset, compiler.pinned) == ("14.38.33130", True)
    msvc.environment(only_new, compiler)
    assert "-vcvars_ver=14.38" in only_new.said[-1]


def test_no_toolset_for_nvcc_names_those_there_are() -> None:
    machine = WindowsDesktop(toolsets={"18": ("14.50.35717",)})
    with pytest.raises(BadInput, match=r"takes cl with _MSC_VER 1910 to 1949.*14\.50\.35717"):
        msvc.choose(msvc.installations(machine), msvc.Accepted(1910, 1950))
    with pytest.raises(BadInput, match="no Visual Studio"):
        msvc.choose((), None)


def test_environment_is_what_the_script_changed() -> None:
    machine = WindowsDesktop()
    compiler = msvc.choose(msvc.installations(machine), msvc.Accepted(1910, 1950))
    changed = msvc.environment(machine, compiler)
    before, after = parsed_set("set-before.txt"), parsed_set("set-after.txt")
    assert changed["INCLUDE"] == after["INCLUDE"]
    assert changed["Path"] == after["Path"]
    assert not {"USERNAME", "TEMP", "ComSpec"} & set(changed)
    assert {**before, **changed} == after
    assert r'call "C:\Program Files\Microsoft Visual Studio\2022' in machine.said[-1]


names = st.text("abcXYZ_()", min_size=1, max_size=6)
values = st.text(st.characters(exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
                               exclude_categories=["Cs"]), max_size=12)  # fmt: skip


@given(st.dictionaries(names, values))
def test_a_set_dump_reads_as_it_was_written(variables: dict[str, str]) -> None:
    dump = "".join(f"{name}={value}\r\n" for name, value in variables.items())
    assert msvc.parse_set(dump) == variables


@given(st.dictionaries(names, values), st.dictionaries(names, values))
def test_the_difference_makes_one_environment_the_other(
    before: dict[str, str], after: dict[str, str]
) -> None:
    changed = msvc.difference(before, after)
    upper = {name.upper(): value for name, value in before.items()}
    assert all(upper.get(name.upper()) != value for name, value in changed.items())
    assert all(
        changed.get(name) == value or upper.get(name.upper()) == value
        for name, value in after.items()
    )


# CUDA


def toolkits(folder: Path) -> list[Toolkit]:
    versions = {"v13.0": "13.0.88", "v12.6": "12.6.85"}
    return [
        Toolkit(toolkit(folder / n, v, "75 80 86 90 120a 120"), "here") for n, v in versions.items()
    ]


def test_the_toolkit_is_the_one_torch_was_built_with(tmp_path: Path) -> None:
    found = toolkits(tmp_path)
    assert toolchain.choose_toolkit(found, "12.6").toolkit.root.name == "v12.6"
    assert toolchain.choose_toolkit(found, "13.0").toolkit.root.name == "v13.0"
    with pytest.raises(BadInput, match=r"built with CUDA 12\.8.*13\.0\.88.*12\.6\.85"):
        toolchain.choose_toolkit(found, "12.8")


def test_a_toolkit_a_person_names_may_differ_in_its_minor_version_only(tmp_path: Path) -> None:
    new, old = toolkits(tmp_path)
    assert toolchain.choose_toolkit([], "12.8", asked=old).mismatch
    assert not toolchain.choose_toolkit([], "12.6", asked=old).mismatch
    with pytest.raises(BadInput, match=r"is CUDA 13\.0\.88, and torch was built with CUDA 12\.6"):
        toolchain.choose_toolkit([], "12.6", asked=new)


def test_architectures_are_spelled_as_upstreams_lists_spell_them() -> None:
    assert toolchain.parse_archs("12.0a;8.6, 8.6+PTX") == ("8.6", "12.0")
    for text in ("sm_86", "8", "8.6 native"):
        with pytest.raises(BadInput, match="is not a CUDA architecture"):
            toolchain.parse_archs(text)
    with pytest.raises(BadInput, match="empty"):
        toolchain.parse_archs(" ; ")


def test_an_architecture_must_be_known_to_nvcc_and_to_upstream(tmp_path: Path) -> None:
    lists = arch_lists(commands(CMAKE))
    new, old = toolkits(tmp_path)
    supported = archlists.supported(lists, new.version.release)
    assert supported == ("7.5", "8.0", "8.6", "12.0")
    toolchain.check_archs(("8.6", "12.0"), new, supported)
    with pytest.raises(BadInput, match=r"does not compile for 7\.0") as caught:
        toolchain.check_archs(("7.0",), new, supported)
    assert "CUDA 12" in caught.value.hint
    assert archlists.supported(lists, old.version.release)[-1] == "9.0"
    with pytest.raises(
        BadInput, match=r"builds for 7\.0, 8\.0, 8\.6, 9\.0 with CUDA 12\.6, not for 12\.0"
    ):
        toolchain.check_archs(("12.0",), old, archlists.supported(lists, old.version.release))


def test_cards_as_nvidia_smi_prints_them() -> None:
    card = toolchain.parse_gpus(read("nvidia-smi.csv"))[0]
    assert (card.name, card.capability, card.driver) == ("NVIDIA GeForce RTX 3090", "8.6", "560.94")
    assert card.memory == 24 * GIB
    assert toolchain.parse_gpus("NVIDIA-SMI has failed because it couldn't communicate\n") == ()


# jobs


def test_jobs_follow_memory_and_say_so() -> None:
    few = toolchain.compute_jobs(16, Memory(16 * GIB, 12 * GIB), ["8.6"])
    assert few.count == 3
    assert "12.0 GiB of RAM" in few.why
    assert toolchain.compute_jobs(4, Memory(64 * GIB, 60 * GIB), ["8.6"]).count == 4
    commit = toolchain.compute_jobs(16, Memory(64 * GIB, 50 * GIB, 66 * GIB, 8 * GIB), ["8.6"])
    assert commit.count == 2
    assert "commit limit" in commit.why


@given(st.integers(1, 64), st.integers(0, 512), st.sampled_from(["8.6", "9.0", "12.0"]))
def test_jobs_fit_or_are_one(cores: int, free: int, arch: str) -> None:
    jobs = toolchain.compute_jobs(cores, Memory(free * GIB, free * GIB), [arch]).count
    assert 1 <= jobs <= cores
    heavy = toolchain.compute_jobs(cores, Memory(free * GIB, free * GIB), ["8.6", "9.0"]).count
    assert heavy <= toolchain.compute_jobs(cores, Memory(free * GIB, free * GIB), ["8.6"]).count
