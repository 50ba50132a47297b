"""The landing check, question by question: scope, branch, parent, tokens, neighbours, place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small import pair

from portkit.carrying import landing, places
from portkit.carrying.decision import Finding
from portkit.carrying.landing import Neighbours
from portkit.model import Edit
from portkit.text.sides import Text, split_lines
from portkit.upstream.git import Store


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("landing") / "objects.git") as store:
        yield store


def text(path: str, data: str) -> Text:
    return Text(path, data.encode())


def line_of(data: str, wanted: str, nth: int = 0) -> int:
    return [n for n, line in enumerate(data.splitlines()) if wanted in line][nth]


def replacing(data: str, wanted: str, new: str, nth: int = 0) -> Edit:
    """The edit that puts `new` for `wanted` in the nth line that has it."""
    number = line_of(data, wanted, nth)
    line = data.splitlines(keepends=True)[number].replace(wanted, new)
    return Edit(number, number + 1, (line.encode(),))


def check(  # noqa: PLR0917
    store: Store,
    path: str,
    base: str,
    theirs: str,
    block: Edit,
    edit: Edit,
    neighbours: Neighbours = Neighbours.EXPLAINED,
) -> Finding:
    sides = pair(store, path, base, theirs)
    return landing.check(
        sides.base, sides.theirs, sides.alignment, [block], [edit], neighbours=neighbours
    )


def swap(  # noqa: PLR0917
    store: Store, path: str, base: str, theirs: str, old: str, new: str, nth: int = 0
) -> Finding:
    """The check of replacing `old` by `new`: the first in base, the nth in theirs."""
    return check(
        store, path, base, theirs, replacing(base, old, new), replacing(theirs, old, new, nth)
    )


def kernel(name: str, parameters: str = "float* out, int count") -> str:
    return (
        f"void {name}({parameters}) {{\n  check_contiguous(out);\n"
        "  uint blocks = divide(count, 256);\n  launch_kernel(out, blocks);\n}\n\n"
    )


CU = "csrc/a.cu"
ONE = kernel("scale_fp8")


def test_the_same_function_holds(objects: Store) -> None:
    found = swap(objects, CU, ONE, "int above;\n\n" + ONE, "uint", "unsigned")
    assert found.holds
    assert "scale_fp8" in found.text and "same neighbours" in found.text


def test_a_lookalike_function_does_not(objects: Store) -> None:
    theirs = kernel("scale_int8") + ONE
    wrong = swap(objects, CU, ONE, theirs, "uint", "unsigned")
    assert not wrong.holds
    assert "scale_int8" in wrong.text
    assert swap(objects, CU, ONE, theirs, "uint", "unsigned", 1).holds


def test_overloads_are_told_apart(objects: Store) -> None:
    half = kernel("scale_fp8", "half* out, int count")
    assert not swap(objects, CU, ONE, half + ONE, "uint", "unsigned").holds
    assert swap(objects, CU, ONE, half + ONE, "uint", "unsigned", 1).holds


def test_the_same_overload_of_several(objects: Store) -> None:
    half = kernel("scale_fp8", "half* out, int count")
    assert swap(objects, CU, ONE + half, "int x;\n\n" + ONE + half, "uint", "unsigned").holds
    swapped = swap(objects, CU, ONE + half, half + ONE, "uint", "unsigned")
    assert not swapped.holds


def test_a_renamed_function_holds_when_its_body_says_so(objects: Store) -> None:
    found = swap(objects, CU, ONE, kernel("scale_float8"), "uint", "unsigned")
    assert found.holds
    assert "renamed" in found.text and "scale_fp8" in found.text


def test_a_function_beside_the_old_one_is_not_its_new_name(objects: Store) -> None:
    both = ONE + kernel("scale_int8")
    theirs = kernel("scale_int8")
    found = swap(objects, CU, both, theirs, "uint", "unsigned")
    assert not found.holds
    assert "existed beside" in found.text


def test_a_function_of_another_body_is_not_its_new_name(objects: Store) -> None:
    theirs = (
        "void reduce_sum(float* out, int count) {\n  prepare_shared(out);\n  sync_all(out);\n"
        "  uint blocks = divide(count, 256);\n  finish_all(out);\n  publish(out);\n}\n\n"
    )
    assert not swap(objects, CU, ONE, theirs, "uint", "unsigned").holds


PY = "vllm/a.py"
CLASSES = """\
class First:
    def run(self):
        prepare_first(self)
        os.fork()
        finish_first(self)


class Second:
    def run(self):
        prepare_second(self)
        wait_for(self)
        finish_second(self)
"""


def test_the_same_method_of_another_class_is_another(objects: Store) -> None:
    theirs = CLASSES.replace("        os.fork()\n", "").replace("wait_for(self)", "os.fork()")
    found = swap(objects, PY, CLASSES, theirs, "os.fork()", "spawn()")
    assert not found.holds


NAMESAKES = """\
class One:
    def run(self):
        self.first = 1

    if FAST:
        def stop(self):
            self.last = 1
    else:
        def stop(self):
            self.last = 2

class Two:
    def run(
        self,
    ) -> None:
        self.second = 2
"""


def test_functions_and_classes_around_a_line_of_python(objects: Store) -> None:
    """They are read off the margins, whatever stands between them."""
    found = swap(objects, "a.py", NAMESAKES, "import os\n" + NAMESAKES, "self.second = 2", "pass")
    assert found == Finding(True, "in Two › run; same neighbours")
    lines = NAMESAKES.replace("-> None", "-> bool").replace("self,\n", "self, *more\n")
    found = swap(objects, "a.py", NAMESAKES, lines, "self.second = 2", "pass")
    assert found.holds and found.text.startswith("in Two › run;")


def test_of_two_functions_of_one_name_the_margins_prove_none(objects: Store) -> None:
    theirs = NAMESAKES.replace("self.last = 2", "self.last = 1")
    found = swap(objects, "a.py", NAMESAKES, theirs, "self.last = 1", "pass", nth=1)
    assert not found.holds


NAMESPACE = """\
#ifdef USE_ROCM
void sync() {
}
#else
  #define MASK 1
#endif
const char* brace = "{";
int before = 0;
int after = 0;
"""


def test_file_level_is_where_all_blocks_are_closed(objects: Store) -> None:
    def added(base: str, theirs: str) -> Finding:
        block, edit = (
            Edit(at, at, (b"using uint = unsigned;\n",))
            for at in (line_of(base, "int after"), line_of(theirs, "int after"))
        )
        return check(objects, "a.cu", base, theirs, block, edit)

    assert added(NAMESPACE, "#include <a>\n" + NAMESPACE).text.startswith("at file level;")
    inside = NAMESPACE.replace("int before", "namespace a {\nint before") + "}\n"
    found = added(NAMESPACE, inside)
    assert found == Finding(False, "scope differs: file level before, a now")


def test_another_preprocessor_branch_is_another_place(objects: Store) -> None:
    base = "#ifdef USE_ROCM\nint warp_size = 64;\n#else\nint warp_size = 32;\n#endif\n"
    theirs = "#ifndef USE_ROCM\nint warp_size = 64;\n#else\nint warp_size = 32;\n#endif\n"
    found = swap(objects, CU, base, theirs, "int warp_size = 64", "long warp_size = 64")
    assert not found.holds
    assert "conditional differs" in found.text


def test_a_widened_condition_is_the_same(objects: Store) -> None:
    base = 'if(VLLM_GPU_LANG STREQUAL "CUDA")\n  add_flags(ONE)\n  link_all(TWO)\nendif()\n'
    theirs = base.replace('"CUDA")', '"CUDA" OR VLLM_GPU_LANG STREQUAL "HIP")')
    assert swap(objects, "CMakeLists.txt", base, theirs, "add_flags(ONE)", "add_flags(1)").holds
    other = base.replace('VLLM_GPU_LANG STREQUAL "CUDA"', "NOT DEFINED ENV{CI}")
    assert not swap(objects, "CMakeLists.txt", base, other, "add_flags(ONE)", "add_flags(1)").holds


def test_a_string_is_not_code(objects: Store) -> None:
    base = "def f():\n    prepare_all()\n    x = os.fork()\n    finish_all()\n"
    theirs = 'def f():\n    """\n    prepare_all()\n    x = os.fork()\n    finish_all()\n    """\n'
    assert not swap(objects, PY, base, theirs, "os.fork()", "spawn()").holds


def test_a_comment_is_not_code(objects: Store) -> None:
    base = "int prepare;\nuint blocks;\nint finish;\n"
    theirs = "/* removed:\nint prepare;\nuint blocks;\nint finish;\n*/\n"
    assert not swap(objects, CU, base, theirs, "uint", "unsigned").holds


def test_another_case_is_another_place(objects: Store) -> None:
    base = (
        "def f(kind):\n    if kind == 'fp8':\n        setup_fp8()\n        width = one_byte()\n"
        "    elif kind == 'int8':\n        setup_int8()\n        other = two_bytes()\n"
    )
    theirs = base.replace("        width = one_byte()\n", "").replace(
        "        other = two_bytes()\n", "        other = two_bytes()\n        width = one_byte()\n"
    )
    assert not swap(objects, PY, base, theirs, "one_byte()", "1").holds


def test_every_token_is_accounted_for(objects: Store) -> None:
    block = replacing(ONE, "uint", "unsigned")
    more = Edit(block.start, block.end, (b"  unsigned blocks = divide(count, 512);\n",))
    found = check(objects, CU, ONE, ONE, block, more)
    assert not found.holds
    assert "is not accounted for" in found.text


def test_neighbours_that_changed_places_are_noticed(objects: Store) -> None:
    base = "int first_one;\nuint blocks;\nint second_one;\nint third_one;\n"
    theirs = "int first_one;\nint second_one;\nuint blocks;\nint third_one;\n"
    found = swap(objects, CU, base, theirs, "uint", "unsigned")
    assert not found.holds or "changed the line" in found.text
    assert swap(objects, CU, base, "int zero;\n" + base, "uint", "unsigned").holds


def test_moved_code_wants_a_neighbour_it_had(objects: Store) -> None:
    base = "int first_one;\nuint blocks;\nint second_one;\n"
    theirs = "int other_one;\nuint blocks;\nint another_one;\n"
    block, edit = replacing(base, "uint", "unsigned"), replacing(theirs, "uint", "unsigned")
    assert not check(objects, CU, base, theirs, block, edit, Neighbours.STRICT).holds
    one = theirs.replace("other_one;\nuint", "first_one;\nuint")
    edit = replacing(one, "uint", "unsigned")
    assert check(objects, CU, base, one, block, edit, Neighbours.STRICT).holds


# the only place


def place(base: str, theirs: str, old: str, nth_old: int = 0, nth_new: int = 0) -> Finding:
    one, other = replacing(base, old, "new", nth_old), replacing(theirs, old, "new", nth_new)
    return places.only_place(text("a.txt", base), text("a.txt", theirs), one, other)


def test_one_place_between_two_anchors() -> None:
    base = "anchor one\nplain line\nanchor two\n"
    found = place(base, "more\n" + base, "plain line")
    assert found.holds and found.text.startswith("the only place")


def test_as_many_places_as_there_were() -> None:
    base = "anchor one\nplain line\nplain line\nanchor two\n"
    assert place(base, "more\n" + base, "plain line", 1, 1).text == "one of 2 places"
    assert not place(base, "more\n" + base, "plain line", 1, 0).holds


def test_one_place_more_is_one_too_many() -> None:
    base = "anchor one\nplain line\nanchor two\n"
    theirs = "anchor one\nplain line\nplain line\nanchor two\n"
    found = place(base, theirs, "plain line")
    assert not found.holds
    assert found.text == "2 places look alike, there were 1"


def test_an_anchor_that_changed_sides() -> None:
    base = "anchor one\nplain line\nanchor two\nplain line\n"
    theirs = "plain line\nanchor one\nanchor two\nplain line\n"
    assert not place(base, theirs, "plain line").holds


def test_moved_blocks_want_as_many_places_in_the_file() -> None:
    base, theirs = "plain line\n", "plain line\nother\nplain line\n"
    block = Edit(0, 1, (b"new\n",))
    assert not places.as_many_places(text("a", base), text("a", theirs), block, block)
    assert places.as_many_places(text("a", base), text("a", base + "other\n"), block, block)


def test_an_insertion_is_placed_by_both_its_neighbours() -> None:
    base = "anchor one\nabove\nbelow\nanchor two\n"
    theirs = "anchor one\nabove\nbelow\nabove\nbelow\nanchor two\n"
    new = split_lines(b"new\n")
    found = places.only_place(
        text("a.txt", base), text("a.txt", theirs), Edit(2, 2, new), Edit(2, 2, new)
    )
    assert not found.holds
