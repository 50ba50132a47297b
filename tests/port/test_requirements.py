"""Requirements that have no Windows build carry an environment marker."""

from __future__ import annotations

import pathlib

import pytest
from packaging.requirements import Requirement

CUDA = "requirements/cuda.txt"
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def requirements(tree: pathlib.Path) -> list[Requirement]:
    """The requirement lines of the CUDA list, read the way ``setup.py`` reads them."""
    lines = (tree / CUDA).read_text(encoding="utf-8").splitlines()
    texts = [line.split(" #")[0] for line in lines if line and line[0] not in "#-"]
    return [Requirement(text) for text in texts]


def wanted(tree: pathlib.Path, platform: str, python: str) -> set[str]:
    """What is installed on a platform, without the markers."""
    systems = {"linux": "Linux", "win32": "Windows", "darwin": "Darwin"}
    environment = {
        "sys_platform": platform,
        "platform_system": systems[platform],
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": "AMD64" if platform == "win32" else "x86_64",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    kept = set()
    for requirement in requirements(tree):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            kept.add(str(requirement))
    return kept


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_other_systems_keep_every_requirement(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, platform: str, python: str
) -> None:
    assert wanted(patched_tree, platform, python) == wanted(pristine_tree, platform, python)


@pytest.mark.parametrize("python", PYTHONS)
def test_windows_drops_flashinfer_alone(
    pristine_tree: pathlib.Path, patched_tree: pathlib.Path, python: str
) -> None:
    dropped = wanted(pristine_tree, "win32", python) - wanted(patched_tree, "win32", python)
    assert {Requirement(text).name for text in dropped} == {"flashinfer-python"}
    assert not wanted(patched_tree, "win32", python) - wanted(pristine_tree, "win32", python)
