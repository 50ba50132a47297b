"""Which lines of CMake Windows runs, and generators that are run to be measured."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from portkit.scan import generators
from portkit.scan.buildfiles import CmakeGuards
from portkit.scan.detectors import Context
from portkit.scan.rules import load
from portkit.scan.tree import SourceTree

RULES = load(Path(__file__).resolve().parents[2])


def guard(text: str) -> str:
    text = textwrap.dedent(text)
    return CmakeGuards(text.encode()).at(text[: text.index("HERE")].count("\n") + 1)


@pytest.mark.parametrize(
    "text",
    [
        "if(NOT WIN32)\n  HERE()\nendif()\n",
        "if(WIN32)\n  other()\nelse()\n  HERE()\nendif()\n",
        'if (VLLM_GPU_LANG STREQUAL "HIP")\n  HERE()\nendif()\n',
        "if(GPU_LANG STREQUAL CUDA)\n  x()\nelseif(${GPU_LANG} STREQUAL HIP)\n  HERE()\nendif()\n",
        "if(UNIX AND NOT APPLE)\n  if(X)\n    HERE()\n  endif()\nendif()\n",
    ],
)
def test_a_branch_for_other_systems_is_guarded_and_named(text: str) -> None:
    assert guard(text).startswith("under `")


@pytest.mark.parametrize(
    "text",
    [
        "HERE()\n",
        "if(MSVC)\n  HERE()\nendif()\n",
        "if(NOT WIN32)\n  other()\nendif()\nHERE()\n",
        'if(VLLM_GPU_LANG STREQUAL "CUDA")\n  HERE()\nendif()\n',
        "if(CUDA_VERSION VERSION_GREATER_EQUAL 12.8)\n  HERE()\nendif()\n",
    ],
)
def test_a_branch_that_windows_may_take_is_not_guarded(text: str) -> None:
    assert guard(text) == ""


def details(script: str, **files: str) -> list[str]:
    given = {
        "CMakeLists.txt": b"set(GEN csrc/gen/generate_kernels.py)\n",
        "csrc/gen/generate_kernels.py": script.encode(),
        **{f"csrc/gen/{name}": text.encode() for name, text in files.items()},
    }
    tree = SourceTree.of_files(given)
    return [one.detail for one in generators.detect(Context(tree, RULES))]


CHAIN = "'if (a) b();' + ' else if (c) d();' * 200"


def test_a_generator_gets_the_architectures_of_windows_gpus_and_its_neighbours() -> None:
    script = f"""
import sys, helper
assert "8.9" in sys.argv[1] and "9.0" not in sys.argv[1].split(",")
open(helper.NAME, "w").write({CHAIN})
"""
    assert details(script, **{"helper.py": "NAME = 'selector.h'"}) == [
        "csrc/gen/selector.h: 201 branches"
    ]


def test_a_header_that_lies_there_already_is_not_the_generators() -> None:
    long_chain = "if (a) b();" + " else if (c) d();" * 200
    assert details("pass", **{"given.h": long_chain}) == []


@pytest.mark.parametrize("script", ["import no_such_module", "raise SystemExit(3)", "def ("])
def test_a_generator_that_fails_is_passed_over(script: str) -> None:
    assert details(f"open('x.h', 'w').write({CHAIN})\n{script}\n") == []


def test_a_generator_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "_TIMEOUT", 0.5)
    assert details("import time\ntime.sleep(60)\n") == []
