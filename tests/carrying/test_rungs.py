"""The rungs that place lines, each on its own and through the whole ladder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small import carry_file, edited, hunk, made, outcomes, pair
from small import rungs as rungs_of

from portkit.carrying import rungs
from portkit.carrying.decision import Conflict, Rung
from portkit.patches.apply import blocks_of
from portkit.upstream.git import Store


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("rungs") / "objects.git") as store:
        yield store


BASE = """\
#include <torch/all.h>

void quantize(float* out, int count) {
  const int lanes = 32;
  uint blocks = divide(count, lanes);
  launch_quantize(out, blocks);
}

void restore(float* out, int count) {
  const int warps = 4;
  launch_restore(out, count, warps);
}
"""
PATH = "csrc/quantize.cu"
OURS = BASE.replace("uint blocks", "unsigned int blocks")
ABOVE = "int helper_above(int n) {\n  return n + 1;\n}\n\n"


def test_blocks_are_runs_of_changed_lines() -> None:
    base = "a1\nb2\nc3\nd4\n"
    found = blocks_of(hunk("vllm/a.txt", base, "a1\nB2\nc3\nnew\nd4\n"))
    assert [(b.start, b.end, b.lines) for b in found] == [(1, 2, (b"B2\n",)), (3, 3, (b"new\n",))]


def test_the_very_place(objects: Store) -> None:
    theirs = BASE + "int more_below = 1;\n"
    carried = carry_file(objects, PATH, BASE, OURS, theirs)
    assert rungs_of(carried) == {Rung.EXACT}
    assert made(carried) == {PATH: OURS + "int more_below = 1;\n"}


def test_another_place(objects: Store) -> None:
    carried = carry_file(objects, PATH, BASE, OURS, ABOVE + BASE)
    assert rungs_of(carried) == {Rung.OFFSET}
    assert made(carried) == {PATH: ABOVE + OURS}


def test_upstream_changed_the_context(objects: Store) -> None:
    theirs = BASE.replace("const int lanes = 32;", "constexpr int lanes = 64;\n  check(out);")
    carried = carry_file(objects, PATH, BASE, OURS, theirs)
    assert rungs_of(carried) <= {Rung.THREE_WAY, Rung.TOKENS}
    assert made(carried) == {PATH: theirs.replace("uint blocks", "unsigned int blocks")}


def test_a_second_place_with_the_same_context_is_no_offset(objects: Store) -> None:
    twice = pair(objects, PATH, BASE, ABOVE + BASE + "\n" + BASE)
    assert rungs.unique_offset(twice, hunk(PATH, BASE, OURS)) is None


def test_lines_that_say_nothing_are_no_place(objects: Store) -> None:
    sides = pair(objects, PATH, "{\n}\n{\n", "int a;\n{\n}\n{\n")
    assert rungs.unique_offset(sides, hunk(PATH, "{\n}\n{\n", "{\n;\n}\n{\n")) is None


def test_three_way_wants_untouched_surroundings(objects: Store) -> None:
    theirs = BASE.replace("const int lanes = 32;", "const int lanes = 64;")
    (block,) = blocks_of(hunk(PATH, BASE, OURS))
    assert rungs.three_way(pair(objects, PATH, BASE, theirs), block) is None
    found = rungs.untouched(pair(objects, PATH, BASE, theirs), block)
    assert found is not None and (found.start, found.end) == (4, 5)
    further = BASE.replace("#include <torch/all.h>", "#include <torch/torch.h>\n#include <a.h>")
    edit = rungs.three_way(pair(objects, PATH, BASE, further), block)
    assert edit is not None and edit.start == 5


def test_untouched_needs_a_line_unlike_all_others(objects: Store) -> None:
    twin = BASE + "\nvoid twin(int count) {\n  uint blocks = divide(count, lanes);\n}\n"
    theirs = twin.replace("const int lanes = 32;", "const int lanes = 64;")
    (block,) = blocks_of(hunk(PATH, twin, twin.replace("uint blocks", "unsigned blocks", 1)))
    assert rungs.untouched(pair(objects, PATH, twin, theirs), block) is None


MOVING = """\
def prepare(config):
    config.check()
    return config


def spawn(config):
    method = "fork"
    context = multiprocessing.get_context(method)
    return context.Process(target=run, args=(config,))


def finish(config):
    config.close()
    return None
"""
SPAWN = MOVING.partition("def spawn")[2].partition("\n\n\n")[0]
MOVED = "def spawn" + SPAWN + "\n\n\n" + MOVING.replace("def spawn" + SPAWN + "\n\n\n", "")


def test_a_function_that_moved_in_its_file(objects: Store) -> None:
    ours = MOVING.replace('"fork"', '"spawn"')
    sides = pair(objects, "vllm/a.py", MOVING, "import os\n\n\n" + MOVED)
    edits = rungs.moved(sides, hunk("vllm/a.py", MOVING, ours))
    carried = carry_file(objects, "vllm/a.py", MOVING, ours, "import os\n\n\n" + MOVED)
    right = {"vllm/a.py": "import os\n\n\n" + MOVED.replace('"fork"', '"spawn"')}
    assert not any(isinstance(o, Conflict) for o in outcomes(carried))
    assert made(carried) == right
    if edits is not None:
        assert edited(sides.theirs, edits) == right["vllm/a.py"]


def test_a_function_that_moved_and_was_copied_is_a_question(objects: Store) -> None:
    ours = MOVING.replace('"fork"', '"spawn"')
    copied = MOVED + "\n\n" + "def spawn" + SPAWN.replace("config", "settings", 1) + "\n"
    sides = pair(objects, "vllm/a.py", MOVING, copied)
    assert rungs.moved(sides, hunk("vllm/a.py", MOVING, ours)) is None


def test_code_that_was_indented_as_a_whole(objects: Store) -> None:
    body = "".join(f"    {line}\n" if line else "\n" for line in MOVING.splitlines())
    theirs = "class Runner:\n" + body
    ours = MOVING.replace('"fork"', '"spawn"')
    carried = carry_file(objects, "vllm/a.py", MOVING, ours, theirs)
    assert made(carried) in ({}, {"vllm/a.py": theirs.replace('"fork"', '"spawn"')})


def test_an_if_around_the_lines(objects: Store) -> None:
    theirs = MOVING.replace(
        '    method = "fork"\n    context = multiprocessing.get_context(method)\n',
        '    if config.parallel:\n        method = "fork"\n'
        "        context = multiprocessing.get_context(method)\n",
    )
    ours = MOVING.replace('"fork"', '"spawn"')
    carried = carry_file(objects, "vllm/a.py", MOVING, ours, theirs)
    assert made(carried) == {"vllm/a.py": theirs.replace('"fork"', '"spawn"')}


@pytest.mark.parametrize(
    ("old", "new", "shift"),
    [
        (b"  a\n", b"    a\n", (b"", b"  ")),
        (b"    a\n", b"  a\n", (b"  ", b"")),
        (b"\ta\n", b"\t\ta\n", (b"", b"\t")),
        (b"  a\n", b"  a\n", (b"", b"")),
        (b"  a\n", b"  b\n", None),
    ],
)
def test_how_far_a_line_was_indented(
    old: bytes, new: bytes, shift: tuple[bytes, bytes] | None
) -> None:
    assert rungs.shift_of(old, new) == shift


def test_indenting_leaves_directives_and_blank_lines_and_refuses_strings() -> None:
    lines = (b"  a\n", b"\n", b"#if X\n", b"  b\n")
    assert rungs.indented(lines, b"", b"  ") == (b"    a\n", b"\n", b"#if X\n", b"    b\n")
    assert rungs.indented((b'  """text\n',), b"", b"  ") is None
    assert rungs.indented((b"a\n",), b"  ", b"") is None


LIST = """\
set(SOURCES
  "csrc/first.cu"
  "csrc/second.cu")

define_target(SOURCES)

install_target(SOURCES)
"""


def test_an_insertion_that_belongs_below_one_neighbour(objects: Store) -> None:
    """Upstream adds a paragraph of its own at the gap: ours stays with the line above it."""
    ours = LIST.replace(
        "define_target(SOURCES)\n", "define_target(SOURCES)\nlink_cublas(SOURCES)\n"
    )
    theirs = LIST.replace(
        "define_target(SOURCES)\n\n", "define_target(SOURCES)\n\nadd_tests(X)\n\n"
    )
    carried = carry_file(objects, "CMakeLists.txt", LIST, ours, theirs)
    right = theirs.replace(
        "define_target(SOURCES)\n", "define_target(SOURCES)\nlink_cublas(SOURCES)\n"
    )
    assert made(carried) == {"CMakeLists.txt": right}


def test_an_insertion_between_two_new_neighbours_is_a_question(objects: Store) -> None:
    ours = LIST.replace(
        "define_target(SOURCES)\n", "define_target(SOURCES)\nlink_cublas(SOURCES)\n"
    )
    theirs = LIST.replace(
        "define_target(SOURCES)\n\ninstall_target(SOURCES)\n",
        "define_both(SOURCES STABLE)\n\ninstall_both(SOURCES STABLE)\n",
    )
    carried = carry_file(objects, "CMakeLists.txt", LIST, ours, theirs)
    assert any(isinstance(o, Conflict) for o in outcomes(carried))
    assert made(carried) == {}


def test_real_files_of_vllm(store: Store, obtain_tag: object) -> None:
    """A patched line of setup.py that only moved is found at a unique offset."""
    tags = [obtain_tag(tag).tree for tag in ("v0.14.1", "v0.17.1")]  # type: ignore[operator]
    old, new = (store.read(store.files(tree)["setup.py"].oid).decode() for tree in tags)
    line = next(
        line for line in old.splitlines(keepends=True)
        if line.strip().startswith("def ") and new.count(line) == old.count(line) == 1
        and old.index(line) != new.index(line)
    )  # fmt: skip
    carried = carry_file(store, "setup.py", old, old.replace(line, "# ours\n" + line), new)
    assert made(carried) in ({}, {"setup.py": new.replace(line, "# ours\n" + line)})
