"""CMake, with WIN32 and MSVC taken for false, and what quotes around an argument change."""

from __future__ import annotations

import pytest

from portkit.audit import cmakefold, cmakerun
from portkit.audit.cmakefold import Quoted
from portkit.audit.doubt import Doubt
from portkit.errors import Unavailable

UPSTREAM = b"""
project(x)  # comment
if(LANG STREQUAL "CUDA")
  set(FLAGS "${FLAGS} -I${DIR}/include")
endif()
execute_process(COMMAND ${PY} -E env PYTHONPATH=$ENV{PYTHONPATH} ${SCRIPT})
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"project(x)", b"project(x)\nif(WIN32)\n  set(A B)\nendif()"),
        (b"project(x)", b"PROJECT( x )\nif(MSVC AND DEFINED ENV{HOME})\n  set(A B)\nendif()"),
        (b"project(x)", b'if(NOT WIN32)\nproject("x")\nendif()'),
        (b"project(x)", b"if(WIN32)\n  project(y)\nelse()\n  project(x)\nendif()"),
        (
            b'if(LANG STREQUAL "CUDA")',
            b'if(LANG STREQUAL "CUDA" AND MSVC)\n  set(F 1)\nelseif(LANG STREQUAL "CUDA")',
        ),
        (b'if(LANG STREQUAL "CUDA")', b'if((MSVC OR WIN32) OR LANG STREQUAL "CUDA")'),
        (b"${DIR}/include", b"${DIR}${SEP}include"),
    ],
)
def test_a_guarded_change_is_none_elsewhere(old: bytes, new: bytes) -> None:
    patched = UPSTREAM.replace(old, new)
    if b"SEP" in new:
        patched = b'set(SEP "/")\nif(WIN32)\n  set(SEP "\\\\")\nendif()\n' + patched
    assert cmakefold.compare(UPSTREAM, patched) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"project(x)", b"project(x)\nif(NOT WIN32)\n  set(A B)\nendif()"),
        (b"project(x)", b"if(UNIX)\n  project(x)\nendif()"),
        (b"project(x)", b"if(WIN32)\n  project(x)\nendif()"),
        (b"include", b"inc"),
        (b"${FLAGS} -I", b"-I"),
        (b'if(LANG STREQUAL "CUDA")', b'if(LANG STREQUAL "CUDA" AND NOT UNIX)'),
        (b'if(LANG STREQUAL "CUDA")', b'if(NOT LANG STREQUAL "CUDA")'),
        (b"${PY} -E", b"-E ${PY}"),
        (b"endif()", b""),
        (b"${DIR}/include", b"${DIR}${SEP}include"),
        (b"project(x)", b"project(x)\nadd_compile_definitions(USE_CUDA)"),
    ],
)
def test_a_change_for_everyone_is_found(old: bytes, new: bytes) -> None:
    with pytest.raises(Doubt):
        cmakefold.compare(UPSTREAM, UPSTREAM.replace(old, new))


def test_quotes_are_told_from_other_changes() -> None:
    patched = UPSTREAM.replace(b"PYTHONPATH=$ENV{PYTHONPATH}", b'"PYTHONPATH=$ENV{PYTHONPATH}"')
    (quoted,) = cmakefold.compare(UPSTREAM, patched)
    assert (quoted.line, quoted.text) == (6, "PYTHONPATH=$ENV{PYTHONPATH}")
    assert cmakefold.compare(UPSTREAM, UPSTREAM.replace(b"(x)", b'("x")')) == ()


@pytest.mark.skipif(cmakerun.cmake() is None, reason="cmake is not installed")
def test_cmake_says_when_quotes_matter() -> None:
    assert "1 arguments" in cmakerun.same_arguments([Quoted(1, "PYTHONPATH=$ENV{PYTHONPATH}")])
    with pytest.raises(Doubt, match=r"quotes matter in line 7: a;\$\{X\}"):
        cmakerun.same_arguments([Quoted(7, "a;${X}")])


def test_without_cmake_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmakerun, "cmake", lambda: None)
    with pytest.raises(Unavailable, match="no cmake"):
        cmakerun.same_arguments([Quoted(1, "x")])
