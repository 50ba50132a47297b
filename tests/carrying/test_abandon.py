"""Skipping what waits of a patch: what has landed stays where it stands alone, and goes else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from small import carry, made, outcomes, patch

from benchmarks.inputs import Shipped
from portkit.carrying.decision import Dropped, Why
from portkit.port.rebase import Carried, Snapshot, carry_series
from portkit.upstream.git import Store
from portkit.upstream.source import Source


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("abandon") / "objects.git") as store:
        yield store


FILLER = "".join(f"int other_value_{n} = compute_other({n});\n" for n in range(20))


def skipped(store: Store, path: str, base: str, ours: str, theirs: str) -> Carried:
    one = patch(path, base, ours)
    waits = carry(store, [one], {path: base}, {path: theirs})
    assert waits.conflicts, "without --skip a piece waits"
    assert made(waits), "and another has landed"
    return carry(store, [one], {path: base}, {path: theirs}, skipped=frozenset([one.name]))


def drops(carried: Carried) -> list[str]:
    found = [o for o in outcomes(carried) if isinstance(o, Dropped)]
    assert all(drop.why is Why.NEEDS_SKIPPED for drop in found)
    return [drop.evidence for drop in found]


def test_pieces_that_stand_alone_stay(objects: Store) -> None:
    base = f"uint first = divide(1);\n{FILLER}uint second = divide(2);\n"
    ours = base.replace("uint ", "unsigned ")
    theirs = base.replace("uint first = divide(1)", "auto grid = plan_all(out, 1)")
    carried = skipped(objects, "csrc/a.cu", base, ours, theirs)
    assert drops(carried) == []
    assert made(carried) == {"csrc/a.cu": theirs.replace("uint second", "unsigned second")}


def test_the_end_of_a_block_goes_with_its_start(objects: Store) -> None:
    body = "".join(f"    run_{n}(out);\n" for n in range(20))
    base = f"void f(float* out) {{\n  LOOP(x, [&] {{\n{body}  }});\n}}\n{FILLER}"
    ours = base.replace("  LOOP(x, [&] {\n", "  // plain\n").replace("  });\n", "")
    theirs = base.replace("  LOOP(x, [&] {\n", "  DISPATCH_ALL(y, out, [=] {\n")
    carried = skipped(objects, "csrc/a.cu", base, ours, theirs)
    assert made(carried) == {}
    assert drops(carried) == ["csrc/a.cu would not parse without the skipped piece"]


LINES = {"csrc/a.cu": "int {} = {};\n", "vllm/a.py": "{} = {}\n", "a.cmake": "set({} {})\n"}


def texts(path: str, definition: str, use: str) -> tuple[str, str, str]:
    """Base, ours and theirs: both change the first line, where ours adds a definition."""
    line = LINES[path]
    filler = "".join(line.format(f"other_{n}", f"compute_{n}") for n in range(20))
    first, last = (line.format(name, "native") for name in ("first", "last"))
    ours = f"{line.format('first', 'windows')}{definition}{filler}{line.format('last', use)}"
    return first + filler + last, ours, f"{line.format('first', 'portable')}{filler}{last}"


@pytest.mark.parametrize(
    ("path", "definition", "use"),
    [
        ("csrc/a.cu", "#define PLAIN_LOOP 1\n", "PLAIN_LOOP"),
        ("csrc/a.cu", "static int clz_of(int x) {\n  return x;\n}\n", "clz_of(3)"),
        ("csrc/a.cu", "constexpr int kWide = 4;\n", "kWide + 1"),
        ("vllm/a.py", "import msvcrt\n", "msvcrt.locking"),
        ("vllm/a.py", "def lock_it(x):\n    return x\n", "lock_it(3)"),
        ("a.cmake", "set(WIN_LIBS b)\n", "${WIN_LIBS}"),
    ],
)
def test_a_use_goes_with_the_definition(
    objects: Store, path: str, definition: str, use: str
) -> None:
    carried = skipped(objects, path, *texts(path, definition, use))
    assert made(carried) == {}
    (reason,) = drops(carried)
    assert "which only the skipped piece defines" in reason


def test_a_name_that_upstream_has_as_well_is_no_dependence(objects: Store) -> None:
    base, ours, theirs = texts("vllm/a.py", "import msvcrt\n", "msvcrt.locking")
    theirs = theirs.replace("last = native", "import msvcrt\nlast = native")
    carried = skipped(objects, "vllm/a.py", base, ours, theirs)
    assert drops(carried) == []
    assert made(carried) == {"vllm/a.py": theirs.replace("last = native", "last = msvcrt.locking")}


@pytest.mark.upstream
def test_the_selective_scan_goes_as_a_whole(
    store: Store, obtain_tag: Callable[[str], Source]
) -> None:
    """v0.32.0 renamed the switches: the heads wait, and without them their ends are loose."""
    (one,) = (p for p in Shipped.load().patches if p.path.endswith("selective_scan_fwd.cu"))
    snapshots = [Snapshot.of(store, t, obtain_tag(t).tree) for t in ("v0.14.1", "v0.32.0")]
    carried = carry_series(store, [one], snapshots, skipped=frozenset([one.name]))
    assert made(carried) == {}
    assert drops(carried)
