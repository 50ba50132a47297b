"""`patch_series/series`: order, comments, and every way it can disagree with the folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from portkit.change.journal import Journal, fingerprint
from portkit.errors import BadFile
from portkit.model import FileChange, Patch
from portkit.patches import series
from portkit.patches.apply import change_between
from portkit.patches.patchfile import format_patch
from portkit.patches.series import Series, group_of, name_for

MATH, SETUP, INIT = "csrc/core/math.hpp", "setup.py", "vllm/__init__.py"
ORDER = """\
# what the build needs
build/setup.py.patch

# kernels
kernels/csrc/core/math.hpp.patch -p1 # lane count
runtime/vllm/__init__.py.patch

# the end
"""


def patch_of(path: str, group: str | None = None) -> Patch:
    change = change_between(path, b"a\nb\n", b"a\nB\n")
    return Patch(name_for(path, group), f"Description: {path}\n".encode(), change)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in (MATH, SETUP, INIT):
        put(tmp_path, patch_of(path))
    (tmp_path / "patch_series/series").write_bytes(ORDER.encode())
    return tmp_path


def put(root: Path, patch: Patch) -> None:
    file = root / "patch_series" / patch.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(format_patch(patch))


def test_load_and_render_give_the_same_files(root: Path) -> None:
    loaded = series.load(root)
    assert [patch.path for patch in loaded.patches] == [SETUP, MATH, INIT]
    files = series.render(loaded)
    assert files["patch_series/series"] == ORDER.encode()
    for path, data in files.items():
        assert (root / path).read_bytes() == data
    assert len(files) == 4


def write(root: Path, wanted: Series) -> None:
    journal = Journal(root)
    with journal.lock():
        journal.switch(series.changes(root, wanted), message="x", expect=fingerprint(root))


def test_writing_an_unchanged_series_touches_nothing(root: Path) -> None:
    files = [file for file in root.rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    write(root, series.load(root))
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_with_patches_keeps_comments_and_takes_the_order_given(root: Path) -> None:
    loaded = series.load(root)
    setup, math, init = loaded.patches
    moved = Patch(name_for("csrc/new/math.hpp"), math.header, math.change)
    fresh = patch_of("csrc/fresh.cu")
    changed = loaded.with_patches([moved, fresh, init], {math.name: moved.name})
    assert series.render_order(changed).decode() == (
        "# what the build needs\n"  # stood above the patch that is gone
        "\n"
        "# kernels\n"
        "kernels/csrc/new/math.hpp.patch -p1 # lane count\n"
        "kernels/csrc/fresh.cu.patch\n"
        "runtime/vllm/__init__.py.patch\n"
        "\n"
        "# the end\n"
    )
    write(root, loaded.with_patches([setup, init]))
    assert series.load(root).patches == (setup, init)
    assert not (root / "patch_series" / math.name).exists()


def test_an_empty_series(tmp_path: Path) -> None:
    (tmp_path / "patch_series").mkdir()
    (tmp_path / "patch_series/series").write_bytes(b"")
    assert series.load(tmp_path) == Series()
    assert series.render(Series()) == {"patch_series/series": b""}


def test_resolutions_and_rules_are_not_patches_of_the_series(root: Path) -> None:
    for name in ("resolutions/ab/ours.patch", "rules/x.patch"):
        (root / "patch_series" / name).parent.mkdir(parents=True)
        (root / "patch_series" / name).write_bytes(b"")
    assert len(series.load(root).patches) == 3


def test_a_dependency_may_have_a_file_of_the_same_name(root: Path) -> None:
    put(root, patch_of(SETUP, "deps/flash-attn"))
    with (root / "patch_series/series").open("ab") as file:
        file.write(b"deps/flash-attn/setup.py.patch\n")
    loaded = series.load(root)
    assert [patch.group for patch in loaded.patches] == ["build", "kernels", "runtime", "deps"]
    assert len(loaded.upstream) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build/gone.patch", "patch_series/series:9: build/gone.patch is missing"),
        ("build/setup.py.patch", "patch_series/series:9: build/setup.py.patch is listed twice"),
        ("build/x.patch -p0", "patch_series/series:9: option -p0 is not supported"),
        ("build/x.patch -R", "patch_series/series:9: option -R is not supported"),
        (
            "build/x y.patch",
            "patch_series/series:9: expected one patch name, found 'build/x y.patch'",
        ),
        ("../x.patch", "patch_series/series:9: '../x.patch' leaves its folder or is not in its"),
        ("/x.patch", "patch_series/series:9: '/x.patch' is absolute"),
        ("build\\x.patch", "patch_series/series:9: 'build\\\\x.patch' leaves its folder"),
        ("series", "patch_series/series:9: series is not a .patch file of the series"),
        (
            "rules/x.patch",
            "patch_series/series:9: rules/x.patch is not a .patch file of the series",
        ),
    ],
)
def test_bad_lines(root: Path, line: str, message: str) -> None:
    with (root / "patch_series/series").open("ab") as file:
        file.write(f"{line}\n".encode())
    with pytest.raises(BadFile) as caught:
        series.load(root)
    assert caught.value.message.startswith(message)


def _refusal(root: Path, patch: Patch, *, listed: bool = True) -> str:
    put(root, patch)
    if listed:
        with (root / "patch_series/series").open("ab") as file:
            file.write(f"{patch.name}\n".encode())
    with pytest.raises(BadFile) as caught:
        series.load(root)
    return caught.value.message


def test_a_patch_that_is_not_listed(root: Path) -> None:
    message = _refusal(root, patch_of("csrc/x.cu"), listed=False)
    assert message == "patch_series/kernels/csrc/x.cu.patch: is not listed in series"


def test_a_patch_named_after_another_file(root: Path) -> None:
    wrong = Patch("kernels/math.hpp.patch", b"", patch_of("csrc/a.cu").change)
    assert _refusal(root, wrong) == (
        "patch_series/series:9: kernels/math.hpp.patch is not named after csrc/a.cu,"
        " the file it changes"
    )


def test_two_patches_for_one_file(root: Path) -> None:
    assert _refusal(root, patch_of(SETUP, "runtime")) == (
        "patch_series/series:9: runtime/setup.py.patch and build/setup.py.patch"
        " change the same file"
    )


def test_a_rename_onto_a_patched_file(root: Path) -> None:
    renamed = Patch(name_for("new.py"), b"", FileChange(INIT, "new.py"))
    assert "runtime/vllm/__init__.py.patch change the same file" in _refusal(root, renamed)


def test_names_that_differ_by_case_only(root: Path) -> None:
    patch = patch_of("csrc/core/MATH.hpp")
    assert "change the same file" in _refusal(root, patch)


def test_a_malformed_patch_is_named_with_its_line(root: Path) -> None:
    file = root / "patch_series" / name_for(MATH)
    file.write_bytes(file.read_bytes().replace(b"\n-b\n", b"\n"))
    with pytest.raises(BadFile) as caught:
        series.load(root)
    assert caught.value.message == (
        "patch_series/kernels/csrc/core/math.hpp.patch:8: the patch ends inside a hunk"
    )


def test_no_series(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="patch_series/series: is missing"):
        series.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("CMakeLists.txt", "build"),
        ("csrc/quantization/CMakeLists.txt", "kernels"),
        ("cmake/utils.cmake", "build"),
        ("setup.py", "build"),
        ("requirements/cuda.txt", "build"),
        ("vllm/setup.py", "runtime"),
        ("csrc/core/math.hpp", "kernels"),
        ("tools/x.py", "runtime"),
    ],
)
def test_groups(path: str, group: str) -> None:
    assert group_of(path) == group
    assert name_for(path) == f"{group}/{path}.patch"


@pytest.mark.skipif(shutil.which("quilt") is None, reason="quilt is not installed")
def test_quilt_reads_and_applies_the_series(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    for path in (MATH, SETUP, INIT):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"a\nb\n")
    command = ["quilt", "--quiltrc", "-", "push", "-a"]
    env = {"QUILT_PATCHES": str(root / "patch_series"), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=tree, env=env, check=True, capture_output=True)
    assert [(tree / path).read_bytes() for path in (MATH, SETUP, INIT)] == [b"a\nB\n"] * 3
