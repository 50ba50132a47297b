"""Drops that are right, and the near misses that a person must see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small import Files, carry, carry_file, made, outcomes, patch

from portkit.carrying.decision import Conflict, Dropped, Why
from portkit.port.rebase import Carried
from portkit.upstream.git import Store


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("gone") / "objects.git") as store:
        yield store


def whys(carried: Carried) -> set[Why]:
    return {o.why for o in outcomes(carried) if isinstance(o, Dropped)}


def waits(carried: Carried) -> bool:
    return any(isinstance(o, Conflict) for o in outcomes(carried))


KERNEL = """\
void sparse_kernel(float* values, int count) {
  using FragM = Vec<uint, 1>;
  const int lanes_of_sparse = 32;
  launch_sparse<<<lanes_of_sparse, 256>>>(values, count);
}
"""
OURS = KERNEL.replace("Vec<uint, 1>", "Vec<unsigned, 1>")
OTHER = "".join(f"int other_value_{n} = compute_other({n});\n" for n in range(30))
PATH = "csrc/sparse.cu"


def orphan(store: Store, theirs: Files, base: Files | None = None) -> Carried:
    return carry(
        store, [patch(PATH, KERNEL, OURS)], {PATH: KERNEL, "csrc/b.cu": OTHER, **(base or {})},
        theirs,
    )  # fmt: skip


# the target is gone


def test_a_file_deleted_with_its_code(objects: Store) -> None:
    carried = orphan(objects, {"csrc/b.cu": OTHER})
    assert whys(carried) == {Why.TARGET_GONE}
    assert not waits(carried) and made(carried) == {}
    (drop,) = (o for o in outcomes(carried) if isinstance(o, Dropped))
    assert "csrc/sparse.cu is not in v1.1.0" in drop.evidence
    assert "using FragM = Vec<uint, 1>;" in drop.evidence


def test_code_that_went_to_one_other_file_is_carried_there(objects: Store) -> None:
    carried = orphan(objects, {"csrc/b.cu": OTHER + KERNEL})
    assert whys(carried) == set()
    assert waits(carried) or made(carried) == {"csrc/b.cu": OTHER + OURS}


def test_code_that_went_to_two_other_files_is_a_question(objects: Store) -> None:
    theirs = {"csrc/b.cu": OTHER + KERNEL, "csrc/c.cu": OTHER.replace("value", "x") + KERNEL}
    carried = orphan(objects, theirs)
    assert whys(carried) == set()
    assert waits(carried) and made(carried) == {}


def test_code_that_moved_and_was_edited_is_not_gone(objects: Store) -> None:
    moved = KERNEL.replace("int count", "long count").replace("256", "512")
    carried = orphan(objects, {"csrc/b.cu": OTHER + moved})
    assert whys(carried) == set()


def test_a_copy_that_was_there_before_keeps_nothing_alive(objects: Store) -> None:
    twin = {"csrc/twin.cu": OTHER.replace("value", "x") + KERNEL}
    carried = orphan(objects, {"csrc/b.cu": OTHER, **twin}, twin)
    assert whys(carried) == {Why.TARGET_GONE}


# upstream has the change


def test_upstream_made_the_same_change(objects: Store) -> None:
    carried = carry_file(objects, PATH, KERNEL, OURS, OURS + "int more;\n")
    assert whys(carried) == {Why.UPSTREAMED}
    assert made(carried) == {}


def test_upstream_made_the_same_change_and_others_near(objects: Store) -> None:
    theirs = OURS.replace("const int lanes_of_sparse = 32;", "const int lanes_of_sparse = 64;")
    carried = carry_file(objects, PATH, KERNEL, OURS, theirs)
    assert whys(carried) == {Why.UPSTREAMED} or waits(carried)
    assert made(carried) == {}


def test_upstream_made_half_of_the_change(objects: Store) -> None:
    ours = OURS.replace("launch_sparse<<<", "launch_sparse_windows<<<")
    carried = carry_file(objects, PATH, KERNEL, ours, OURS)
    assert made(carried) in ({}, {PATH: ours})
    assert made(carried) or waits(carried)


def test_the_same_words_in_another_function_are_not_upstreamed(objects: Store) -> None:
    dense = OURS.replace("sparse_kernel", "dense_kernel")
    theirs = KERNEL.replace("Vec<uint, 1>", "Vec<uint, 2>") + dense
    carried = carry_file(objects, PATH, KERNEL, OURS, theirs)
    assert whys(carried) == set()
    right = OURS.replace("Vec<unsigned, 1>", "Vec<unsigned, 2>") + dense
    assert waits(carried) or made(carried) == {PATH: right}


def test_upstream_cured_it_in_its_own_way(objects: Store) -> None:
    base = "void f() {\n  auto x = torch::empty({long(size)}, options);\n  use_all(x);\n}\n"
    ours = base.replace("long(size)", "int64_t(size)")
    theirs = base.replace("torch::empty({long(size)}, options)",
                          "stable::empty({static_cast<int64_t>(size)}, options, dev)")  # fmt: skip
    carried = carry_file(objects, PATH, base, ours, theirs)
    assert whys(carried) <= {Why.UPSTREAMED}
    assert made(carried) == {}


def test_a_cure_that_left_the_cause_elsewhere_is_a_question(objects: Store) -> None:
    base = "void f() {\n  auto x = torch::empty({long(size)}, options);\n  use_all(x);\n}\n"
    ours = base.replace("long(size)", "int64_t(size)")
    theirs = base.replace("torch::empty({long(size)}, options)",
                          "stable::empty({static_cast<int64_t>(size)}, long(dev))")  # fmt: skip
    carried = carry_file(objects, PATH, base, ours, theirs)
    assert whys(carried) == set()
    assert waits(carried)


# the construct is gone

LOCKED = """\
import fcntl
import os


def write_all(path, data):
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(data)


def read_all(path):
    return open(path, "rb").read()
"""
WITH_LOCK = LOCKED[LOCKED.index("    with") : LOCKED.index("\n\ndef read_all")]
REPLACED = "    os.replace(staged(data), path)\n"
GUARDED = LOCKED.replace(
    "        fcntl.flock(file, fcntl.LOCK_EX)\n", "        lock_portably(file)\n"
)


def test_the_construct_went(objects: Store) -> None:
    theirs = LOCKED.replace("import fcntl\n", "").replace(
        WITH_LOCK,
        REPLACED,
    )
    carried = carry_file(objects, "vllm/a.py", LOCKED, GUARDED, theirs)
    assert whys(carried) == {Why.CONSTRUCT_GONE}
    assert made(carried) == {}


def test_the_construct_went_to_another_function_of_the_file(objects: Store) -> None:
    theirs = LOCKED.replace("fcntl.flock(file, fcntl.LOCK_EX)", "lock_it(file)")
    theirs += "\n\ndef lock_it(file):\n    fcntl.flock(file, fcntl.LOCK_EX)\n"
    carried = carry_file(objects, "vllm/a.py", LOCKED, GUARDED, theirs)
    assert whys(carried) == set()


def test_the_construct_was_renamed(objects: Store) -> None:
    theirs = LOCKED.replace("fcntl", "posixlock")
    carried = carry_file(objects, "vllm/a.py", LOCKED, GUARDED, theirs)
    assert whys(carried) == set()
    assert waits(carried)


def test_the_function_went_to_another_file(objects: Store) -> None:
    function = LOCKED[LOCKED.index("def write_all") : LOCKED.index("def read_all")]
    theirs = {
        "vllm/a.py": LOCKED.replace(function, "").replace("import fcntl\n", ""),
        "vllm/b.py": "import fcntl\n\n\n" + function.replace("data", "payload"),
    }
    carried = carry(objects, [patch("vllm/a.py", LOCKED, GUARDED)], {"vllm/a.py": LOCKED}, theirs)
    assert whys(carried) == set()
    assert waits(carried) or "lock_portably" in made(carried).get("vllm/b.py", "")


# what served it


def test_imports_go_with_what_they_served(objects: Store) -> None:
    middle = "".join(f"value_{n} = compute_value({n})\n" for n in range(20))
    base = LOCKED.replace("import os\n", "import os\n\n" + middle)
    ours = GUARDED.replace("import os\n", "import os\nimport portalocker\n\n" + middle)
    theirs = base.replace("import fcntl\n", "").replace(WITH_LOCK, REPLACED)
    carried = carry_file(objects, "vllm/a.py", base, ours, theirs)
    assert whys(carried) == {Why.CONSTRUCT_GONE, Why.SERVES_NOTHING}
    assert made(carried) == {}


def test_an_import_stays_while_one_hunk_does(objects: Store) -> None:
    middle = "".join(f"value_{n} = compute_value({n})\n" for n in range(20))
    base = LOCKED + "\n\n" + middle + "\n\ndef fork_all():\n    return os.fork()\n"
    ours = base.replace("import os\n", "import os\nimport sys\n").replace(
        "        fcntl.flock(file, fcntl.LOCK_EX)\n", "        lock_portably(file, sys)\n"
    ).replace("os.fork()", "spawn_all(sys.platform)")  # fmt: skip
    theirs = base.replace(
        WITH_LOCK,
        REPLACED,
    )
    carried = carry_file(objects, "vllm/a.py", base, ours, theirs)
    assert Why.SERVES_NOTHING not in whys(carried)
    found = made(carried)["vllm/a.py"]
    assert "import sys" in found and "spawn_all(sys.platform)" in found
