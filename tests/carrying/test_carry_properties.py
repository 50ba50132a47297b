"""What holds of every carry, whatever the files and the patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portkit.carrying.decision import Rung
from portkit.model import Patch
from portkit.patches.apply import apply_change, change_between
from portkit.patches.patchfile import canonical, format_patch
from portkit.port.rebase import Carried, Snapshot, carry_series, patches_of
from portkit.upstream.git import Store, TreeEntry

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

PATHS = ("csrc/a.cu", "csrc/b.cuh", "vllm/c.py", "CMakeLists.txt", "requirements/cuda.txt")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.create(tmp_path_factory.mktemp("properties") / "objects.git") as store:
        yield store


def _line(path: str, name: str, number: int) -> str:
    """A line that is sound in its language wherever it stands at file level."""
    if path.endswith(".py"):
        return f"{name}_{number} = make_{name}({number})\n"
    if path.endswith(".txt") and "requirements" in path:
        return f"{name}-{number}=={number}.0\n"
    if path == "CMakeLists.txt":
        return f"set({name}_{number} {number})\n"
    return f"int {name}_{number} = {number};\n"


def _file(path: str, size: int, name: str = "base") -> list[str]:
    return [_line(path, name, number) for number in range(size)]


@st.composite
def patched_files(draw: st.DrawFn) -> dict[str, tuple[list[str], list[str]]]:
    """Files with ours: some lines replaced, deleted or added, far enough apart or not."""
    made: dict[str, tuple[list[str], list[str]]] = {}
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, unique=True)):
        base = _file(path, draw(st.integers(3, 40)))
        ours: list[str] = []
        for number, line in enumerate(base):
            what = draw(st.sampled_from(["keep"] * 8 + ["replace", "delete", "add"]))
            added = _line(path, "ours", number)
            ours += {"keep": [line], "replace": [added], "delete": [], "add": [added, line]}[what]
        if ours != base:
            made[path] = base, ours
    return made


Trees = Mapping[str, Sequence[str]]


def _snapshot(store: Store, tag: str, files: Trees) -> Snapshot:
    oids = store.write_blobs(["".join(lines).encode() for lines in files.values()])
    entries = {path: TreeEntry("100644", oid) for path, oid in zip(files, oids, strict=True)}
    return Snapshot.of(store, tag, store.edit_tree(None, entries))


def _patches(files: Mapping[str, tuple[list[str], list[str]]]) -> list[Patch]:
    return [
        canonical(
            Patch(
                f"kernels/{path}.patch",
                b"Description: a change\n",
                change_between(path, "".join(base).encode(), "".join(ours).encode()),
            )
        )
        for path, (base, ours) in files.items()
    ]


def _carry(store: Store, patches: Sequence[Patch], base: Trees, theirs: Trees) -> Carried:
    snapshots = [_snapshot(store, "v1.0.0", base), _snapshot(store, "v1.1.0", theirs)]
    return carry_series(store, patches, snapshots)


def _results(carried: Carried) -> dict[str, bytes]:
    return {path: file.result for path, file in carried.files.items()}


@quick
@given(patched_files())
def test_onto_the_same_tree_it_is_exact_and_keeps_every_byte(
    objects: Store, files: dict[str, tuple[list[str], list[str]]]
) -> None:
    base = {path: old for path, (old, _) in files.items()}
    patches = _patches(files)
    carried = _carry(objects, patches, base, base)
    outcomes = [o for s in carried.stories for t in s.steps for r in t.results for o in r.outcomes]
    rungs = {landed.rung for s in carried.stories for t in s.steps for r in t.results
             for landed in r.landed}  # fmt: skip
    assert rungs <= {Rung.EXACT}
    assert len(outcomes) == sum(len(p.change.hunks) for p in patches)
    again = patches_of(carried, patches)
    assert [format_patch(p) for p in again] == [format_patch(p) for p in patches]


@quick
@given(patched_files(), st.randoms(use_true_random=False), st.integers(0, 6))
def test_the_order_of_patches_means_nothing(
    objects: Store,
    files: dict[str, tuple[list[str], list[str]]],
    random: st.DataObject,
    inserted: int,
) -> None:
    base = {path: old for path, (old, _) in files.items()}
    theirs = {p: [_line(p, "top", n) for n in range(inserted)] + old for p, old in base.items()}
    patches = _patches(files)
    shuffled = list(patches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    backwards = dict(reversed(theirs.items()))
    one = _carry(objects, patches, base, theirs)
    other = _carry(objects, shuffled, dict(reversed(base.items())), backwards)
    assert _results(one) == _results(other)
    assert {p.name: c.reason for p, c in one.conflicts} == {
        p.name: c.reason for p, c in other.conflicts
    }


@quick
@given(patched_files(), st.integers(1, 5))
def test_what_upstream_left_alone_is_as_if_applied(
    objects: Store, files: dict[str, tuple[list[str], list[str]]], extra: int
) -> None:
    base = {path: old for path, (old, _) in files.items()}
    theirs = dict(base)
    for number in range(extra):
        path = f"vllm/other_{number}.py"
        theirs[path] = _file(path, 5, "other")
    patches = _patches(files)
    carried = _carry(objects, patches, base, theirs)
    applied = {p.path: apply_change(p.change, "".join(base[p.path]).encode()) for p in patches}
    assert _results(carried) == applied


@quick
@given(patched_files(), st.data())
def test_insertions_elsewhere_only_shift_it(
    objects: Store, files: dict[str, tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    """Upstream adds lines of its own, nowhere within three lines of a change of ours."""
    base = {path: old for path, (old, _) in files.items()}
    theirs: dict[str, list[str]] = {}
    wanted: dict[str, bytes] = {}
    patches = _patches(files)
    for patch in patches:
        path = patch.path
        near = {
            gap
            for hunk in patch.change.hunks
            for gap in range(hunk.old_index, hunk.old_index + hunk.old_count + 1)
        }
        gaps = [gap for gap in range(len(base[path]) + 1) if gap not in near]
        chosen = data.draw(st.sets(st.sampled_from(gaps), max_size=4)) if gaps else set()
        theirs[path] = _with_insertions(path, base[path], chosen)
        ours = {(h.old_index, h.after, h.before) for h in patch.change.hunks}
        wanted[path] = _with_ours(theirs[path], base[path], chosen, ours)
    carried = _carry(objects, patches, base, theirs)
    assert not carried.conflicts
    assert _results(carried) == wanted


def _with_insertions(path: str, base: Sequence[str], gaps: set[int]) -> list[str]:
    made: list[str] = []
    for number in range(len(base) + 1):
        if number in gaps:
            made += [_line(path, "theirs", 10 * number + n) for n in range(2)]
        made += base[number : number + 1]
    return made


def _with_ours(
    theirs: Sequence[str],
    base: Sequence[str],
    gaps: set[int],
    hunks: set[tuple[int, tuple[bytes, ...], tuple[bytes, ...]]],
) -> bytes:
    """`theirs` with each hunk made at the line that its old line has become."""
    lines = [line.encode() for line in theirs]
    for start, after, before in sorted(hunks, reverse=True):
        at = start + 2 * sum(gap <= start for gap in gaps)
        assert tuple(lines[at : at + len(before)]) == before
        lines[at : at + len(before)] = after
    assert len(base) <= len(theirs)
    return b"".join(lines)


def test_a_store_is_not_needed_twice(tmp_path: Path) -> None:
    """Two carries in fresh stores give the same ids: nothing depends on the machine."""
    path = "vllm/c.py"
    base, ours = _file(path, 8), _file(path, 8)
    ours[4] = _line(path, "ours", 4)
    patches = _patches({path: (base, ours)})
    found = []
    for name in ("one", "two"):
        with Store.create(tmp_path / name) as store:
            theirs = {path: [_line(path, "top", 0), *base]}
            found.append(_results(_carry(store, patches, {path: base}, theirs)))
    assert found[0] == found[1]
    assert found[0][path] == "".join([_line(path, "top", 0), *ours]).encode()
