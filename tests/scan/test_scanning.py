"""One scan from its tree to its result: what counts, what is set aside and why, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scantree import CMAKE, FILES, RULES, scanned

from portkit.errors import BadFile
from portkit.model import Patch
from portkit.patches.apply import change_between, diff
from portkit.scan import cover, rules, scanning, silence, ternary
from portkit.scan.built import Build
from portkit.scan.code import Code
from portkit.scan.cover import Covered
from portkit.scan.model import Finding, Judged, Language, Reason, Stage, Tier
from portkit.scan.scanning import Options, Scan
from portkit.scan.silence import Silence
from portkit.scan.tree import SourceTree


def places(scan: Scan) -> list[tuple[str, int]]:
    return sorted((finding.path, finding.line) for finding in scan.findings)


def test_only_what_windows_compiles_counts() -> None:
    found = scanned(FILES)
    assert places(found) == [
        ("csrc/a.cu", 3),
        ("csrc/b.cu", 1),
        ("csrc/deep/a.cuh", 6),
        ("csrc/fp4.cu", 1),
    ]
    aside = {(one.finding.path, one.finding.line): one for one in found.judged if one.reason}
    assert {place: one.reason for place, one in aside.items()} == {
        ("csrc/deep/a.cuh", 2): Reason.GUARDED,
        ("csrc/mla.cu", 1): Reason.NOT_BUILT,
        ("csrc/hip.cu", 1): Reason.NOT_BUILT,
        ("csrc/unused.cuh", 1): Reason.NOT_BUILT,
    }
    assert aside["csrc/deep/a.cuh", 2].note == "under `#ifdef USE_ROCM`"


def test_surest_and_earliest_first() -> None:
    found = scanned({**FILES, "csrc/b.cu": b"auto n = 1UL << a;\nint x = __builtin_clz(1);\n"})
    ranks = [(finding.tier.rank, finding.stage.rank) for finding in found.findings]
    assert ranks == sorted(ranks) and len(set(ranks)) > 1


def patch(path: str, new: bytes) -> Patch:
    return Patch(f"kernels/{path}.patch", b"", change_between(path, FILES.get(path), new))


def test_what_a_patch_cures_is_covered() -> None:
    tree = SourceTree.of_files(FILES, "tree")
    cured = cover.at_pin([patch("csrc/a.cu", b'#include "deep/a.cuh"\nint a;\nint f();\n')], tree)
    found = scanned(FILES, cover=cured)
    assert ("csrc/a.cu", 3) not in places(found)
    (covered,) = [one for one in found.judged if one.reason is Reason.PATCHED]
    assert (covered.finding.path, covered.finding.line) == ("csrc/a.cu", 3)
    assert covered.note == "kernels/csrc/a.cu.patch"


def test_what_a_patch_leaves_is_at_upstreams_line() -> None:
    tree = SourceTree.of_files(FILES, "tree")
    longer = b'#include "deep/a.cuh"\n// two\n// more lines\nint a;\nuint f();\n'
    found = scanned(FILES, cover=cover.at_pin([patch("csrc/a.cu", longer)], tree))
    assert ("csrc/a.cu", 3) in places(found)


def test_a_guarding_patch_cures() -> None:
    tree = SourceTree.of_files(FILES, "tree")
    guarded = b"#ifdef _MSC_VER\nint b = 0;\n#else\nint b = __builtin_clz(1);\n#endif\n"
    found = scanned(FILES, cover=cover.at_pin([patch("csrc/b.cu", guarded)], tree))
    assert ("csrc/b.cu", 1) not in places(found)


def test_what_a_patch_brings_in_is_found() -> None:
    tree = SourceTree.of_files(FILES, "tree")
    found = scanned(FILES, cover=cover.at_pin([patch("csrc/b.cu", b"ssize_t n;\n")], tree))
    (ours,) = [finding for finding in found.findings if finding.rule == "cpp-ssize-t"]
    assert ours.detail == "in a line of kernels/csrc/b.cu.patch"


def test_new_since_another_release() -> None:
    old = scanned(FILES)
    moved = dict(FILES)
    moved["csrc/libtorch/a.cu"] = b"// moved, and lower\n\n" + moved.pop("csrc/a.cu")
    moved["csrc/libtorch/deep/a.cuh"] = moved.pop("csrc/deep/a.cuh")
    moved["csrc/b.cu"] += b"int more = __builtin_ctz(2);\n"
    moved["CMakeLists.txt"] = CMAKE.replace(b"csrc/a.cu", b"csrc/libtorch/a.cu")
    fresh = scanning.since(scanned(moved), old)
    assert places(fresh) == [("csrc/b.cu", 2)]
    assert fresh.since == "tree"
    assert scanning.since(old, old).findings == ()


def test_a_silence_and_a_stale_one() -> None:
    quiet = Silence("cpp-uint", "csrc/deep/*", "a reason", 1)
    other = Silence("cpp-uint", "csrc/a.cu", "a reason", 5, excerpt="nowhere")
    found = scanned(FILES, silences=(quiet, other))
    (silenced,) = [one for one in found.judged if one.reason is Reason.SILENCED]
    assert silenced.finding.path == "csrc/deep/a.cuh" and silenced.note == "a reason"
    assert silence.stale((quiet, other), [one.finding for one in found.judged]) == (other,)


def test_what_is_explained_does_not_count_and_what_comes_later_does() -> None:
    left = Silence("cpp-uint", "csrc/a.cu", "why", 1, "uint f()", Reason.EXPLAINED)
    later = {**FILES, "csrc/a.cu": FILES["csrc/a.cu"] + b"uint g();\n"}
    found = scanned(later, silences=(left,))
    assert [(one.finding.line, one.note) for one in found.explained] == [(3, "why")]
    assert ("csrc/a.cu", 4) in places(found) and ("csrc/a.cu", 3) not in places(found)
    copied = {**later, "csrc/b.cu": later["csrc/a.cu"]}
    fresh = scanning.since(scanned(copied, silences=(left,)), found)
    assert places(fresh) == [("csrc/b.cu", 3), ("csrc/b.cu", 4)]
    moved = {**copied, "csrc/a.cu": b""}
    assert places(scanning.since(scanned(moved, silences=(left,)), found)) == []


@pytest.mark.parametrize(
    ("rule", "path", "options", "stale"),
    [
        ("cpp-uint", "csrc/x.cu", Options(slow=False, pin=True), True),
        ("cpp-uint", "csrc/x.cu", Options(slow=False), False),  # another release
        ("cpp-uint", "csrc/x.cu", Options(frozenset(["vllm"]), slow=False, pin=True), False),
        ("python-missing-name", "vllm/x.py", Options(slow=False, pin=True), False),
        ("requirement-no-wheel", "requirements/cuda.txt", Options(slow=False, pin=True), False),
    ],
)
def test_a_silence_is_stale_where_it_can_be_judged(
    rule: str, path: str, options: Options, stale: bool
) -> None:
    tree = SourceTree.of_files(FILES)
    found = scanning.scan(tree, RULES, silences=[Silence(rule, path, "x", 1)], options=options)
    assert bool(found.stale) is stale


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[silenced]]\nrule = "cpp-uint"\npath = "a"\n', ":1: reason is missing or empty"),
        ('[[silenced]]\nrule = "x"\npath = "a"\nreason = "b"\n', ":1: there is no rule x"),
        ('[[silenced]]\nrules = "x"\n', ":1: unknown field rules"),
        ("[[silenced", "not TOML"),
        ('[[silence]]\nrule = "x"\n', "unknown table silence"),
        (
            '\n[[explained]]\nrule = "cpp-uint"\npath = "a"\nreason = "b"\n',
            ":2: excerpt is missing",
        ),
    ],
)
def test_a_wrong_silence_says_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / silence.FILE
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(BadFile) as error:
        silence.load(tmp_path, RULES)
    assert message in error.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- id: a\n  title: b\n", ":1: language: Field required"),
        ("a: 1\n", ":1: a rule file is a list of rules"),
        ("- [\n", "not YAML"),
        ("- 1\n", ":1: a rule is a mapping"),
    ],
)
def test_a_wrong_rule_says_where(text: str, message: str) -> None:
    with pytest.raises(BadFile) as error:
        list(rules.parse(text.encode(), "rules.yml"))
    assert message in error.value.message


def test_results_are_kept_by_content(tmp_path: Path) -> None:
    """The second scan of the same tree reads no file of it; another one does."""
    asked: list[str] = []

    def tree(identity: str) -> SourceTree:
        def read(paths: Sequence[str]) -> list[bytes]:
            asked.extend(paths)
            return [FILES[path] for path in paths]

        return SourceTree("tree", FILES, read, identity)

    options = Options(slow=False, offline=True, cache=tmp_path)
    first = scanning.scan(tree("1"), RULES, options=options)
    asked.clear()
    again = scanning.scan(tree("1"), RULES, options=options)
    assert again.judged == first.judged
    kept = [*tmp_path.glob("*.json")]
    kept[0].write_bytes(b"[{")  # as a crash leaves it
    assert scanning.scan(tree("1"), RULES, options=options).judged == first.judged


@given(st.text(alphabet=st.sampled_from("ab\"'\\/*#\n \t(){}R0é")), st.sampled_from(Language))
def test_views_keep_every_place(text: str, language: Language) -> None:
    code = Code(text.encode(), language)
    for view in (code.code, code.strings):
        assert len(view) == len(text)
        assert [i for i, char in enumerate(view) if char == "\n"] == [
            i for i, char in enumerate(text) if char == "\n"
        ]


_LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n"]), max_size=12)


@settings(deadline=None, max_examples=30)  # each runs git
@given(_LINES, _LINES)
def test_lines_of_a_patched_file_are_found_again(old: list[bytes], new: list[bytes]) -> None:
    before, after = b"".join(old), b"".join(new)
    file = Covered(after, ("p",), tuple(diff(before, after)))
    for number, line in enumerate(new, 1):
        place = file.upstream_line(number)
        assert place is None or old[place - 1] == line


@pytest.mark.parametrize(
    ("directive", "truth"),
    [
        ("ifdef USE_ROCM", False),
        ("else of ifdef USE_ROCM", True),
        ("ifndef _MSC_VER", False),
        ("if defined(__linux__) && defined(X)", False),
        ("if !defined(__GNUC__) || X > 3", True),
        ("if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900", None),
        ("elif (defined(__x86_64__) || defined(__i386__))", False),
        ("if 0", False),
        ("if defined(X", None),
    ],
)
def test_conditions_of_the_preprocessor(directive: str, truth: bool | None) -> None:
    assert ternary.directive(directive) is truth


@pytest.mark.parametrize(
    ("words", "truth"),
    [
        ("VLLM_GPU_LANG STREQUAL HIP", False),
        ("NOT WIN32", False),
        ("MSVC AND UNKNOWN", None),
        ("UNIX AND NOT APPLE", False),
        ("ARCHS OR WIN32", True),
        ("NO_ARCHS", False),
    ],
)
def test_conditions_of_cmake(words: str, truth: bool | None) -> None:
    assert ternary.cmake(words.split(), {"NO_ARCHS": False}) is truth


def test_a_list_of_architectures_may_be_set_for_two_toolkits() -> None:
    files = {
        "CMakeLists.txt": b"""\
if(CUDA_VERSION VERSION_GREATER_EQUAL 13.0)
  cuda_archs_loose_intersection(A_ARCHS "10.0f" "${CUDA_ARCHS}")
else()
  cuda_archs_loose_intersection(A_ARCHS "12.0a" "${CUDA_ARCHS}")
endif()
if(A_ARCHS)
  set(ONE "csrc/one.cu")
endif()
cuda_archs_loose_intersection(A_ARCHS "9.0a" "${CUDA_ARCHS}")
if(A_ARCHS)
  set(TWO "csrc/two.cu")
endif()
""",
        "csrc/one.cu": b"",
        "csrc/two.cu": b"",
    }
    build = Build(SourceTree.of_files(files))
    assert build.left_out("csrc/one.cu") == ""
    assert build.left_out("csrc/two.cu") != ""


def test_cmake_that_windows_does_not_run_is_set_aside() -> None:
    link = b'file(CREATE_LINK "a" "b" SYMBOLIC)\n'
    cmake = b"""\
include(cmake/more.cmake)
if(Torch_VERSION VERSION_GREATER_EQUAL "2.13" AND Torch_VERSION VERSION_LESS "2.14")
  %s
endif()
cuda_archs_loose_intersection(NINE_ARCHS "9.0a" "${CUDA_ARCHS}")
if(NINE_ARCHS)
  %s
endif()
first()
"""
    more = b"function(first)\n  second()\nendfunction()\n"
    more += b"function(second)\n  %sendfunction()\nmacro(never)\n  %sendmacro()\n" % (link, link)
    script = b"os.symlink(a, b)\n"
    files = {
        "CMakeLists.txt": cmake % (link, link)
        + b'add_custom_command(COMMAND "tools/build_a.py")\n',
        "cmake/more.cmake": more,
        "requirements/cuda.txt": b"torch==2.14.0\n",
        "tools/build_a.py": script,
        "tools/build_b.py": script,
        "rust/src/tests.rs": b"use std::os::unix::net::UnixListener;\n",
    }
    found = scanned(files)
    kept = {
        (f.path, f.line) for f in found.findings if f.rule in ("cmake-symlink", "python-symlink")
    }
    assert kept == {("cmake/more.cmake", 5), ("tools/build_a.py", 1)}
    assert {one.finding.path for one in found.judged if one.reason is Reason.NOT_BUILT} == {
        "CMakeLists.txt",
        "cmake/more.cmake",
        "tools/build_b.py",
        "rust/src/tests.rs",
    }
    older = scanned({**files, "requirements/cuda.txt": b"torch==2.13.0\n"})
    assert ("CMakeLists.txt", 3) in {(f.path, f.line) for f in older.findings}


def test_the_reasons_of_judging_are_values() -> None:
    finding = Finding("cpp-uint", "a", 1, 1, "x", Tier.CERTAIN, Stage.COMPILE)
    assert Judged(finding).reason is None
