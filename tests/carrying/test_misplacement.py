"""Never misplace: each trap has a lookalike that takes the change from a tool that follows text.

The traps are in `benchmarks/traps.py`, where the benchmark shows what other tools make of them.
"""

from __future__ import annotations

import pytest

from benchmarks.outcome import Outcome, carry_trap
from benchmarks.traps import TRAPS, Expect, Trap
from portkit.upstream.git import Store

ALLOWED = {
    Expect.CARRIED: {Outcome.RIGHT},
    Expect.SAFE: {Outcome.RIGHT, Outcome.CONFLICT},
    Expect.NOT_CARRIED: {Outcome.CONFLICT, Outcome.DROPPED},
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.create(tmp_path_factory.mktemp("traps") / "objects.git")


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_lands_right_or_not_at_all(objects: Store, trap: Trap) -> None:
    outcome, story = carry_trap(objects, trap)
    assert outcome in ALLOWED[trap.expect], f"{trap.why}: {outcome.value}\n{story}"


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.right], ids=lambda trap: trap.name)
def test_the_right_answer_is_a_change_of_the_new_tree(trap: Trap) -> None:
    """A trap whose answer were the new tree itself, or the old patch, would prove nothing."""
    assert trap.right is not None
    assert set(trap.right) == set(trap.theirs)
    assert sum(trap.right[path] != trap.theirs[path] for path in trap.right) == 1
    assert trap.theirs != trap.base
    changed = next(path for path in trap.right if trap.right[path] != trap.theirs[path])
    path = next(iter(trap.ours))
    gained = len(trap.ours[path].split()) - len(trap.base[path].split())
    assert len(trap.right[changed].split()) - len(trap.theirs[changed].split()) == gained
