"""Outlines of real upstream files, and of what is hard about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.carrying.soundness import cmake_fault, python_fault
from portkit.model import Edit
from portkit.text.sides import Text, align, split_lines
from portkit.text.syntax import Language, Outline, language_of
from portkit.upstream.git import Store
from portkit.upstream.source import Source


def outline(root: Path, path: str) -> tuple[Outline, list[bytes]]:
    data = (root / path).read_bytes()
    return Outline(data, language_of(path)), list(split_lines(data))


def line_of(lines: list[bytes], text: bytes, nth: int = 0) -> int:
    found = [n for n, line in enumerate(lines) if text in line]
    return found[nth]


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("csrc/a.cu", Language.CUDA),
        ("csrc/a.hpp", Language.CUDA),
        ("vllm/a.py", Language.PYTHON),
        ("CMakeLists.txt", Language.CMAKE),
        ("csrc/CMakeLists.txt", Language.CMAKE),
        ("cmake/utils.cmake", Language.CMAKE),
        ("requirements/cuda.txt", Language.REQUIREMENTS),
        ("requirements.txt", Language.REQUIREMENTS),
        ("docs/a.txt", Language.TEXT),
        ("pyproject.toml", Language.TEXT),
    ],
)
def test_the_name_tells_the_language(path: str, language: Language) -> None:
    assert language_of(path) is language


def test_a_kernel_of_vllm(pristine_tree: Path) -> None:
    found, lines = outline(pristine_tree, "csrc/mamba/mamba_ssm/selective_scan_fwd.cu")
    names = {(scope.kind, scope.name) for scope in found.scopes}
    assert ("function", "selective_scan_fwd_kernel") in names
    assert ("function", "selective_scan_fwd_launch") in names
    assert ("struct", "Selective_Scan_fwd_kernel_traits") in names
    place = line_of(lines, b"BOOL_SWITCH(params.seqlen %")
    chain = found.chain(place, place + 1)
    assert chain[-1].name == "selective_scan_fwd_launch"
    assert "Params" in chain[-1].signature or "SSMParamsBase" in chain[-1].signature
    rocm = line_of(lines, b"#ifndef USE_ROCM")
    assert any(found.branches[n] == ("ifndef USE_ROCM",) for n in range(rocm, rocm + 4))
    assert any("else of ifndef USE_ROCM" in chain for chain in found.branches)


def test_the_cmake_helpers_of_vllm(pristine_tree: Path) -> None:
    found, lines = outline(pristine_tree, "cmake/utils.cmake")
    assert found.errors == 0
    names = {scope.name for scope in found.scopes}
    assert {"run_python", "define_extension_target", "override_gpu_arches"} & names
    assert "run_python" in names
    place = line_of(lines, b"execute_process")
    assert found.chain(place, place + 1)[-1].kind in ("function", "macro")


def test_a_module_of_vllm(pristine_tree: Path) -> None:
    found, lines = outline(pristine_tree, "vllm/distributed/parallel_state.py")
    assert found.errors == 0
    place = line_of(lines, b"    def barrier(self):")
    assert [s.name for s in found.chain(place + 1, place + 2)] == ["GroupCoordinator", "barrier"]
    first = next(s for s in found.scopes if s.name == "GroupCoordinator")
    docstring = next(n for n in range(first.start, first.end) if b'"""' in lines[n])
    assert found.branches[docstring + 1][-1:] == ("text",)


def test_every_patched_file_of_vllm_is_read(pristine_tree: Path, patched_tree: Path) -> None:
    """No patch adds a syntax error to what the parser can read."""
    for path in ("CMakeLists.txt", "setup.py", "csrc/core/math.hpp", "csrc/cumem_allocator.cpp"):
        before, _ = outline(pristine_tree, path)
        after, _ = outline(patched_tree, path)
        assert after.errors <= before.errors, path


OVERLOADS = b"""\
template <typename T>
__global__ void scale(T* out) {
  out[0] = 1;
}

__global__ void scale(float* out, int n) {
  out[n] = 2;
}

namespace vllm {
struct Holder {
  int get() const { return 1; }
};
}
"""


def test_overloads_are_told_apart_by_their_parameters() -> None:
    scopes = Outline(OVERLOADS, Language.CUDA).scopes
    one, other = (scope for scope in scopes if scope.name == "scale")
    assert one.signature != other.signature
    assert (one.start, one.end) == (0, 4), "the template line belongs to it"
    assert (other.start, other.end) == (5, 8)


@given(st.data())
def test_an_edited_file_is_read_as_if_it_were_new(data: st.DataObject) -> None:
    """Whatever the edits break: what is sound is read from the old tree, with the same result."""
    lines = split_lines(OVERLOADS)
    numbers = st.integers(0, len(lines))
    borders = sorted(data.draw(st.lists(numbers, min_size=2, max_size=6, unique=True)))
    new = st.lists(st.sampled_from([*lines, b"int n = 0;\n", b"struct A {\n", b"};\n"]), max_size=3)
    edits = [
        Edit(start, end, tuple(data.draw(new)))
        for start, end in zip(borders[::2], borders[1::2], strict=False)
    ]
    base = Text("a.cu", OVERLOADS)
    assert base.outline.errors == 0
    made = base.with_edits(edits)
    anew = Text("a.cu", made.data)
    assert bool(made.outline.errors) == bool(anew.outline.errors)
    if not anew.outline.errors:
        assert made.outline.scopes == anew.outline.scopes


@pytest.mark.upstream
@pytest.mark.parametrize("tags", [("v0.14.1", "v0.16.0"), ("v0.22.1", "v0.23.0")])
def test_a_later_version_is_read_as_if_it_were_new(
    tags: tuple[str, str], store: Store, obtain_tag: Callable[[str], Source]
) -> None:
    """Every kernel source that upstream changed, from the tree of the version before."""
    old, new = (obtain_tag(tag).tree for tag in tags)
    changed = [
        (one.path, one.old.oid, one.new.oid)
        for one in store.differences(old, new)
        if one.old and one.new and language_of(one.path) is Language.CUDA
    ]
    known = align(store, [(was, now) for _, was, now in changed])
    assert len(changed) > 20
    for path, was, now in changed:
        base, theirs = (Text(path, store.read(oid)) for oid in (was, now))
        assert base.outline.scopes is not None, "parsed, so that the tree is there"
        theirs.continues(base, known[was, now])
        anew = Text(path, theirs.data).outline
        assert theirs.outline.scopes == anew.scopes, path
        assert theirs.outline.errors == anew.errors, path


def test_a_gap_at_the_border_of_a_function_is_outside() -> None:
    found = Outline(b"x = 1\ndef f():\n    a()\n    b()\ny = 2\n", Language.PYTHON)
    assert [s.name for s in found.chain(2, 2)] == ["f"]
    assert found.chain(1, 1) == ()
    assert found.chain(4, 4) == ()


def test_preprocessor_branches() -> None:
    text = b"a\n#if A\nb\n#elif B\nc\n  # else\nd\n#endif\ne\n"
    assert Outline(text, Language.CUDA).branches[:9] == (
        (), (), ("if A",), (), ("elif B",), (), ("else of elif B",), (), (),
    )  # fmt: skip


def test_cmake_branches_whatever_their_case() -> None:
    text = b"IF (A AND\n  B)\n  set(x 1)\nElse()\n  set(x 2)\nendif()\n"
    branches = Outline(text, Language.CMAKE).branches
    assert branches[2][0].startswith("if (A AND")
    assert branches[4][0].startswith("else of if")
    assert branches[5] == ()


def test_strings_and_comments_are_text() -> None:
    python = Outline(b'x = """\nuint a;\n"""\nuint = 1\n', Language.PYTHON)
    assert python.branches[1] == ("text",)
    assert python.branches[3] == ()
    cuda = Outline(b"/* one\n   uint a;\n*/\nuint a;\n", Language.CUDA)
    assert cuda.branches[1] == ("text",)
    assert cuda.branches[3] == ()


@pytest.mark.parametrize(
    ("language", "sound", "broken"),
    [
        (Language.PYTHON, b"f(1)\n", b"f(1\n"),
        (Language.PYTHON, b"x = '\\d'\n", b"x = 1\x00\n"),
        (Language.CUDA, b"int f() { return 1; }\n", b"int f() { return 1;\n"),
        (Language.CMAKE, b"if(A)\nset(x 1)\nendif()\n", b"if(A)\nset(x 1)\n"),
    ],
)
def test_what_does_not_parse_is_counted(language: Language, sound: bytes, broken: bytes) -> None:
    assert Outline(sound, language).errors == 0
    assert Outline(broken, language).errors > 0


def test_other_languages_have_no_scopes_and_no_errors() -> None:
    found = Outline(b"[project\n", Language.TEXT)
    assert (found.scopes, found.errors) == ((), 0)


def test_a_fault_of_an_edit_has_a_line() -> None:
    fault = python_fault("vllm/a.py", b"a = 1\nb = (\n")
    assert fault is not None and fault[0] == 2
    assert python_fault("csrc/a.cu", b"(") is None
    theirs = Text("CMakeLists.txt", b"set(a 1)\nset(b 2)\n")
    assert cmake_fault(theirs, b"set(a 1)\nset(b 3)\n") is None
    broken = cmake_fault(theirs, b"set(a 1)\nif(X\nset(b 3)\n")
    assert broken is not None and broken[0] >= 2
    assert cmake_fault(Text("a.txt", b""), b"(") is None
