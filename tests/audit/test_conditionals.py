"""Preprocessor conditionals, folded: against a real preprocessor, and against `unifdef`."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portkit.audit.conditionals import CUDA, NOT_WINDOWS, ROCM, fold
from portkit.audit.ctokens import logical_lines
from portkit.audit.doubt import Doubt

GXX = shutil.which("g++")
UNIFDEF = shutil.which("unifdef")
UNKNOWN = ("A", "B")


def words(text: str) -> list[str]:
    return [word for line in logical_lines(text.encode()) for word in line]


def folded(text: str) -> str:
    return " ".join(fold(text.encode())).replace(" \n ", "\n").strip()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("#ifdef _MSC_VER\na\n#else\nb\n#endif\n", "b"),
        ("#ifndef _WIN32\na\n#else\nb\n#endif\n", "a"),
        ("#if defined(_MSC_VER) && !defined(X)\na\n#endif\nb", "b"),
        ("#if _MSC_VER >= 1900\na\n#endif\n", ""),
        ("#if defined X || defined(_WIN32)\na\n#endif\n", "# if defined ( X )\na # endif"),
        ("#ifdef X\na\n#elif defined(_WIN32)\nb\n#else\nc\n#endif\n",
         "# if defined ( X )\na # else\nc # endif"),
        ("#ifdef _WIN32\na\n#elif defined(X)\nb\n#endif\n", "# if defined ( X )\nb # endif"),
        ("#ifdef _WIN32\n#ifdef X\na\n#endif\n#endif\nb", "b"),
        ("#if 0\n_MSC_VER\n#endif\n", ""),
        ("a // #ifdef\n/* #endif\n*/ b", "a b"),
        ("#define F(x) \\\n  x\n#ifdef _WIN32\n#define G\n#endif", "# define F #( x ) x"),
        ("#if X && (_MSC_VER || Y)\na\n#endif", "# if X && Y\na # endif"),
    ],
)  # fmt: skip
def test_what_is_left_for_linux(source: str, expected: str) -> None:
    assert folded(source) == expected


def test_rocm_and_cuda_are_two_answers() -> None:
    source = b"#ifndef USE_ROCM\na\n#else\nb\n#endif\n"
    assert fold(source, CUDA) == ("a",)
    assert fold(source, ROCM) == ("b",)
    assert "USE_ROCM" in fold(source, NOT_WINDOWS)


@pytest.mark.parametrize(
    "source",
    ["#ifdef A\n", "#endif\n", "#else\n", "#define _MSC_VER 1\n", "#undef _WIN32\n"],
)
def test_what_cannot_be_known_is_a_doubt(source: str) -> None:
    with pytest.raises(Doubt):
        fold(source.encode())


def test_spellings_and_white_space_do_not_count_but_meaning_does() -> None:
    assert words("a or b<::>c") == words("a||b[] c")
    assert words("__asm__ __volatile__(x)") == words("asm volatile ( x )")
    assert words("#define F(x) x") != words("#define F (x) x")
    assert words("a + +b") != words("a ++ b")
    assert words('"a or b" R"(or // )" \'"\'') == ['"a or b"', 'R"(or // )"', "'\"'"]
    assert words("1'000.5e+3f 0x1p-2") == ["1'000.5e+3f", "0x1p-2"]


@st.composite
def sources(draw: st.DrawFn, depth: int = 0) -> str:
    """Nested conditionals on known and unknown macros, around words that are all different."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["word", "if"] if depth < 3 else ["word"]))
        if kind == "word":
            lines.append(f"w{draw(st.integers(0, 99))}")
            continue
        lines.append(f"#if {draw(conditions())}")
        lines.append(draw(sources(depth=depth + 1)))
        for _ in range(draw(st.integers(0, 2))):
            lines += [f"#elif {draw(conditions())}", draw(sources(depth=depth + 1))]
        if draw(st.booleans()):
            lines += ["#else", draw(sources(depth=depth + 1))]
        lines.append("#endif")
    return "\n".join(lines)


def conditions() -> st.SearchStrategy[str]:
    names = st.sampled_from([*UNKNOWN, "_MSC_VER", "_WIN32"])
    atoms = st.one_of(
        names.map(lambda name: f"defined({name})"),
        names.map(lambda name: f"!defined {name}"),
        st.sampled_from(["_MSC_VER > 1900", "A == 2", "B", "0", "1", "(A + 1) > 2"]),
    )
    pair = st.tuples(atoms, st.sampled_from(["&&", "||", "and", "or"]), atoms)
    joined = pair.map(" ".join)
    return st.one_of(atoms, joined, joined.map(lambda text: f"!({text})"))


@pytest.mark.skipif(GXX is None, reason="no g++")
@settings(max_examples=12, deadline=None)
@given(source=sources())
def test_the_preprocessor_takes_the_same_branches(source: str) -> None:
    """For every state of the macros that are not known, the folded text means the same."""
    left = " ".join(fold(f"{source}\n".encode())).replace("#", "\n#")
    for defined in itertools.product((None, "2"), repeat=len(UNKNOWN)):
        flags = [f"-D{n}={v}" for n, v in zip(UNKNOWN, defined, strict=True) if v]
        assert preprocessed(left, flags) == preprocessed(source, flags)


def preprocessed(source: str, flags: list[str]) -> list[str]:
    command = [str(GXX), "-E", "-P", "-w", "-xc++", *flags, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(UNIFDEF is None, reason="unifdef is not installed")
@settings(max_examples=40, deadline=None)
@given(source=sources())
def test_unifdef_leaves_the_same(source: str) -> None:
    """Folding what `unifdef` has resolved already changes nothing more."""
    flags = [f"-U{name}" for name in ("_MSC_VER", "_WIN32")]
    command = [str(UNIFDEF), "-k", *flags]
    done = subprocess.run(command, input=f"{source}\n", capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert fold(done.stdout.encode()) == fold(f"{source}\n".encode())
